"""Training on the variational bound, in discrete and continuous time, with learned variances.

The discrete bound is that of a ladder of rungs, see `terms`. Everything is in bits per dimension.
"""

from diffjax.core.types import Data, Denoiser, Network, PRNGKey, Scalar, Schedule
from diffjax.diffusion.predict import Kind
from diffjax.diffusion.training.loss import LossAux, diffusion_loss, expected, mean_over
from diffjax.diffusion.training.objectives import BITS, Hybrid, Vlb
from diffjax.diffusion.training.terms import Ladder
from diffjax.diffusion.training.terms import rung_at as rung_at
from diffjax.diffusion.training.terms import vlb_term as vlb_term
from diffjax.diffusion.training.times import TimeSampler, uniform
from diffjax.diffusion.training.weighting import Weighting


def vlb_loss(
    denoise: Denoiser,
    x_0: Data,
    *,
    key: PRNGKey,
    logsnrs: Ladder,
    gamma: float = 0.0,
    eight_bit: bool = True,
    times: TimeSampler = uniform,
) -> tuple[Scalar, LossAux]:
    """L_0 + ... + L_{T-1}  (Ho et al. 2020, eq. 5): T times one term, at a rung drawn by `times`.

    Bits per dimension. L_T is left out, since nothing in it is learned: `gaussian.prior_kl` has
    it, and `bound.vlb` the whole bound.

    logsnrs: the T + 1 rungs of `sampler.sample`; the last is taken for the clean data.
    gamma: 0 is the small and 1 the large variance, as in `ddpm`; a denoiser that returns a
      `Guess` chooses its own, which is how a variance is learned.
    eight_bit: x_0 lies on the 256 levels k / 127.5 - 1; if not, the bound is on a density.

    Raises:
      ValueError: for fewer than three rungs.
    """
    bound = Vlb(logsnrs, "x_0", gamma, eight_bit)
    return expected(bound.of_denoiser, bound.logsnr, denoise, x_0, key=key, times=times)


def hybrid_loss(
    network: Network,
    x_0: Data,
    *,
    key: PRNGKey,
    logsnrs: Ladder,
    predict: Kind = "eps",
    weighting: Weighting = "eps",
    vlb_weight: float = 0.001,
    eight_bit: bool = True,
    times: TimeSampler = uniform,
) -> tuple[Scalar, LossAux]:
    """L_simple + lambda L_vlb, the mean in L_vlb held constant  (Nichol & Dhariwal 2021, eq. 16).

    network: 2c channels, the prediction and the variance (see `as_denoiser_with_variance`). The
    prediction learns from the weighted error alone, the variance from the bound alone.
    The other arguments are those of `diffusion_loss` and `vlb_loss`.
    """
    hybrid = Hybrid(logsnrs, predict, weighting, vlb_weight, eight_bit)
    return expected(hybrid, hybrid.logsnr, network, x_0, key=key, times=times)


def continuous_vlb_loss(
    network: Network,
    x_0: Data,
    *,
    key: PRNGKey,
    schedule: Schedule,
    predict: Kind = "eps",
    times: TimeSampler = uniform,
) -> tuple[Scalar, LossAux]:
    """1/2 E[-dlogsnr/du |eps - eps_hat|^2]  (Kingma et al. 2021, eq. 18): the bound as T grows.

    Bits per dimension, of the levels between the schedule's two ends; the prior's term and the
    decoder's are apart.
    """
    _, aux = diffusion_loss(
        network, x_0, key=key, schedule=schedule, predict=predict, over="logsnr", times=times
    )
    aux = aux._replace(per_example=0.5 * BITS * aux.per_example)
    return mean_over(aux.times, aux.per_example), aux
