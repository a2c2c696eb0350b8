"""The loss of one example at one noise level: a weighted error, or a term of the bound.

The discrete bound is that of a ladder of rungs, the very one that an ancestral sampler goes down:
logsnrs [T + 1] from noise to clean. Rung r is left for rung r + 1 by p(x_s | x_t), and the last
step, to the clean data, is the decoder's.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffjax.core.types import Data, Denoised, Guess, LogSnr, PerExample
from diffjax.diffusion.likelihood.bound import decoder_nats, log_small_variance, step_kl
from diffjax.diffusion.predict import Kind, target, x_0_of
from diffjax.diffusion.process import mean_of_each, per_example
from diffjax.diffusion.training.times import bin_of
from diffjax.diffusion.training.weighting import Weighting, relative_weight

Ladder = Float[Array, " n"]
Rungs = Int[Array, " b"]


def weighted_error(
    output: Data, x_0: Data, eps: Data, logsnr_t: LogSnr, predict: Kind, weighting: Weighting
) -> PerExample:
    """w |x_0 - x_0_hat|^2, a mean over dimensions, of an output of kind `predict`."""
    error = jnp.square(output - target(x_0, eps, logsnr_t, predict))
    return relative_weight(weighting, predict, logsnr_t) * mean_of_each(error)


def vlb_term(
    guess: Denoised,
    x_0: Data,
    logsnrs: Ladder,
    rung: Rungs,
    *,
    gamma: float = 0.0,
    eight_bit: bool = True,
) -> Data:
    """KL(q(x_s | x_t, x_0) || p(x_s | x_t)), or -log p(x_0 | x_t) at the last rung; nats.

    Ho et al. 2020, eq. 5. guess: what the denoiser said at x_t of level logsnrs[rung]. p's
    variance is small^(1 - f) large^f (Nichol & Dhariwal 2021, eq. 15), f the guess's fraction or
    gamma. The last step's small variance would be 0; that of the step before stands in.
    """
    last = num_steps(logsnrs) - 1
    before = jnp.minimum(rung, last - 1)  # finite where it is not the answer, gradients too
    logsnr_t, logsnr_s = logsnrs[before], logsnrs[before + 1]
    divergence = step_kl(guess, x_0, logsnr_s, logsnr_t, gamma=gamma)
    small = log_small_variance(logsnr_s, logsnr_t, x_0)
    large = per_example(jax.nn.log_sigmoid(-logsnrs[rung]), x_0)
    fraction = guess.fraction if isinstance(guess, Guess) else gamma
    log_variance = small + fraction * (large - small)
    decoder = decoder_nats(x_0, x_0_of(guess), log_variance, eight_bit=eight_bit)
    return jnp.where(per_example(rung == last, x_0), decoder, divergence)


def rung_at(u: PerExample, logsnrs: Ladder) -> Rungs:
    """The rung that the time u falls on, T equal shares of [0, 1]; u = 1 is the noisiest, 0."""
    steps = num_steps(logsnrs)
    return steps - 1 - bin_of(u, steps)


def num_steps(logsnrs: Ladder) -> int:
    """T of a ladder of T + 1 rungs; at least 2, for the last step takes the variance before it."""
    if logsnrs.shape[0] < 3:
        raise ValueError(f"logsnrs has {logsnrs.shape[0]} rungs: at least 3, for two steps")
    return logsnrs.shape[0] - 1
