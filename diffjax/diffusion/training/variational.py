"""Training on the variational bound, in discrete and continuous time, with learned variances.

The discrete bound is that of a ladder of rungs, the very one that an ancestral sampler goes down:
logsnrs [T + 1] from noise to clean. Rung r is left for rung r + 1 by p(x_s | x_t), and the last
step, to the clean image, is the decoder's. Everything is in bits per dimension.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffjax.core.types import Denoised, Denoiser, Guess, Image, Network, PRNGKey, Scalar, Schedule
from diffjax.diffusion.likelihood.bound import decoder_nats, log_small_variance, step_kl
from diffjax.diffusion.predict import KINDS, Kind, to_x_0, variance_fraction, x_0_of
from diffjax.diffusion.process import diffuse, per_image
from diffjax.diffusion.training.loss import LossAux, diffusion_loss, mean_over, weighted_error
from diffjax.diffusion.training.times import TimeSampler, bin_of, uniform
from diffjax.diffusion.training.weighting import Weighting

Ladder = Float[Array, " n"]
Rungs = Int[Array, " b"]
BITS = 1.0 / np.log(2.0)  # per nat


def vlb_loss(
    denoise: Denoiser,
    x_0: Image,
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

    logsnrs: the T + 1 rungs of `sampler.sample`; the last is taken for the clean image.
    gamma: 0 is the small and 1 the large variance, as in `ddpm`; a denoiser that returns a
      `Guess` chooses its own, which is how a variance is learned.
    eight_bit: x_0 lies on the 256 levels k / 127.5 - 1; if not, the bound is on a density.

    Raises:
      ValueError: for fewer than three rungs.
    """
    key_u, key_eps = jax.random.split(key)
    drawn = times(key_u, x_0.shape[0])
    rung = rung_at(drawn.u, logsnrs)
    x_t = diffuse(x_0, jax.random.normal(key_eps, x_0.shape), logsnrs[rung])
    guess = denoise(x_t, logsnrs[rung])
    terms = vlb_term(guess, x_0, logsnrs, rung, gamma=gamma, eight_bit=eight_bit)
    per_example = _steps(logsnrs) * BITS * jnp.mean(terms, axis=(1, 2, 3))
    return mean_over(drawn, per_example), LossAux(per_example, logsnrs[rung], drawn)


def hybrid_loss(
    network: Network,
    x_0: Image,
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
    if predict not in KINDS:
        raise ValueError(f"predict={predict!r}: allowed are {', '.join(KINDS)}")
    key_u, key_eps = jax.random.split(key)
    drawn = times(key_u, x_0.shape[0])
    rung = rung_at(drawn.u, logsnrs)
    logsnr_t = logsnrs[rung]
    eps = jax.random.normal(key_eps, x_0.shape)
    x_t = diffuse(x_0, eps, logsnr_t)
    output, variance = jnp.split(network(x_t, logsnr_t), 2, axis=-1)
    x_0_hat = jax.lax.stop_gradient(to_x_0(output, x_t, logsnr_t, predict))
    guess = Guess(x_0_hat, variance_fraction(variance))
    terms = vlb_term(guess, x_0, logsnrs, rung, eight_bit=eight_bit)
    bound = _steps(logsnrs) * BITS * jnp.mean(terms, axis=(1, 2, 3))
    simple = weighted_error(output, x_0, eps, logsnr_t, predict, weighting)
    per_example = simple + vlb_weight * bound
    return mean_over(drawn, per_example), LossAux(per_example, logsnr_t, drawn)


def continuous_vlb_loss(
    network: Network,
    x_0: Image,
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


def vlb_term(
    guess: Denoised,
    x_0: Image,
    logsnrs: Ladder,
    rung: Rungs,
    *,
    gamma: float = 0.0,
    eight_bit: bool = True,
) -> Image:
    """KL(q(x_s | x_t, x_0) || p(x_s | x_t)), or -log p(x_0 | x_t) at the last rung; nats per pixel.

    Ho et al. 2020, eq. 5. guess: what the denoiser said at x_t of level logsnrs[rung]. p's
    variance is small^(1 - f) large^f (Nichol & Dhariwal 2021, eq. 15), f the guess's fraction or
    gamma. The last step's small variance would be 0; that of the step before stands in.
    """
    last = _steps(logsnrs) - 1
    before = jnp.minimum(rung, last - 1)  # finite where it is not the answer, gradients too
    logsnr_t, logsnr_s = logsnrs[before], logsnrs[before + 1]
    divergence = step_kl(guess, x_0, logsnr_s, logsnr_t, gamma=gamma)
    small = log_small_variance(logsnr_s, logsnr_t)
    large = per_image(jax.nn.log_sigmoid(-logsnrs[rung]))
    fraction = guess.fraction if isinstance(guess, Guess) else gamma
    log_variance = small + fraction * (large - small)
    decoder = decoder_nats(x_0, x_0_of(guess), log_variance, eight_bit=eight_bit)
    return jnp.where((rung == last)[:, None, None, None], decoder, divergence)


def rung_at(u: Float[Array, " b"], logsnrs: Ladder) -> Rungs:
    """The rung that the time u falls on, T equal shares of [0, 1]; u = 1 is the noisiest, 0."""
    num_steps = _steps(logsnrs)
    return num_steps - 1 - bin_of(u, num_steps)


def _steps(logsnrs: Ladder) -> int:
    """T; at least 2, for the last step's variance comes from the one before."""
    if logsnrs.shape[0] < 3:
        raise ValueError(f"logsnrs has {logsnrs.shape[0]} rungs: at least 3, for two steps")
    return logsnrs.shape[0] - 1
