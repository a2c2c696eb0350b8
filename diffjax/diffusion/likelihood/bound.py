"""The variational bound on -log p(x_0), in bits per dimension, with its three parts.

-log p(x_0) <= KL(q(x_T | x_0) || N(0, 1))                            prior
             + sum_t E KL(q(x_s | x_t, x_0) || p(x_s | x_t))          diffusion
             + E -log p(x_0 | x_1)                                    decoder
(Ho et al. 2020, eq. 5). A dimension is one number of an
example: in a picture, one channel of one pixel.

How tight it is: even with the exact denoiser, rungs that lie h apart in logsnr leave a gap. With
gamma = 0 it is about h R / 4 nats per dimension, R the range of logsnr over which the noise still
hides x_0's value: the small variance is that of a known x_0. With gamma = 1 only the few rungs
where the signal emerges pay, again in proportion to h, so that twice the rungs halve it. With the
exact variance, learned, it is 0 for Gaussian data on any ladder. In continuous time, h = 0, the
variances agree and nothing is left: `vlb_continuous`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffjax.core import rng
from diffjax.core.types import (
    Data,
    Denoised,
    Denoiser,
    Factor,
    Guess,
    LogSnr,
    PerExample,
    PRNGKey,
    PRNGKeys,
    Scalar,
)
from diffjax.diffusion.likelihood.gaussian import (
    discretised_log_likelihood,
    gaussian_kl,
    gaussian_log_likelihood,
    prior_kl,
)
from diffjax.diffusion.predict import x_0_of
from diffjax.diffusion.process import Like, alpha_sigma, diffuse, mean_of_each, per_example


class Bound(NamedTuple):
    """The three parts of a bound on -log p(x_0), in bits per dimension, one per example."""

    prior: PerExample
    diffusion: PerExample
    decoder: PerExample

    @property
    def total(self) -> PerExample:
        """The bound itself."""
        return self.prior + self.diffusion + self.decoder


class ByTime(NamedTuple):
    """A bound with its parts by time, one column per example.

    terms: in bits per dimension, of each step of the chain from noise to clean; the last is the
    decoder, so they sum to all but the prior. error: |eps - eps_hat|^2 per dimension at the level
    where each of the steps begins.
    """

    bound: Bound
    terms: Float[Array, "n b"]
    error: Float[Array, "n b"]


def to_bits(nats: PerExample, x_0: Data) -> PerExample:
    """nats / (d log 2), d the numbers of an example: its nats, in bits per dimension."""
    return nats / (np.prod(x_0.shape[1:]) * np.log(2.0))


def to_nats(bits_per_dim: PerExample, x_0: Data) -> PerExample:
    """Nats = bits_per_dim d log 2: the inverse of `to_bits`."""
    return bits_per_dim * (np.prod(x_0.shape[1:]) * np.log(2.0))


def vlb(
    denoise: Denoiser,
    x_0: Data,
    *,
    logsnrs: Float[Array, " n"],
    key: PRNGKey | PRNGKeys,
    gamma: float = 0.0,
    decoder_gamma: float | None = None,
    eight_bit: bool = True,
) -> Bound:
    """The bound of `vlb_by_time`, without its parts by time."""
    return vlb_by_time(
        denoise,
        x_0,
        logsnrs=logsnrs,
        key=key,
        gamma=gamma,
        decoder_gamma=decoder_gamma,
        eight_bit=eight_bit,
    ).bound


def vlb_by_time(
    denoise: Denoiser,
    x_0: Data,
    *,
    logsnrs: Float[Array, " n"],
    key: PRNGKey | PRNGKeys,
    gamma: float = 0.0,
    decoder_gamma: float | None = None,
    eight_bit: bool = True,
) -> ByTime:
    """The bound for the chain that ancestral sampling runs on `logsnrs`  (Ho et al. 2020, eq. 5).

    L_t = 1/2 (e^(l_s) - e^(l_t)) |x_0 - x_0_hat|^2 with the small variance (Kingma et al. 2021,
    eq. 13), for every pair of rungs in one scan, each with fresh noise.

    logsnrs: from noise to clean as samplers take them, at least three, the last +inf.
    gamma: the chain's variance is small^(1 - gamma) large^gamma as in `ancestral.ddpm`; a denoiser
      that returns a `Guess` chooses its own, per dimension.
    decoder_gamma: the same for p(x_0 | x_1) = N(x_0_hat, .), if not gamma itself. Its small
      variance would be 0: that of the step before stands in; sigma_1^2 is the large one. The code
      of Ho et al. 2020 takes 0 here for both of its chains.
    eight_bit: x_0 lies on the 256 levels k / 127.5 - 1, and the decoder gives probabilities; if
      not, x_0 is real and the bound is on a density.

    Raises:
      ValueError: for a gamma outside [0, 1] or fewer than three rungs.
    """
    decoder_gamma = gamma if decoder_gamma is None else decoder_gamma
    for name, value in (("gamma", gamma), ("decoder_gamma", decoder_gamma)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value}: between 0 (small variance) and 1 (large)")
    if logsnrs.shape[0] < 3:
        raise ValueError(f"logsnrs has {logsnrs.shape[0]} rungs: at least 3, the last one +inf")
    at = lambda logsnr: jnp.broadcast_to(logsnr, x_0.shape[:1])  # noqa: E731
    noisy = logsnrs[:-1]
    key_steps, key_decoder = rng.split(key, 2)

    def body(total: PerExample, rung):
        logsnr_t, logsnr_s, key = at(rung[0]), at(rung[1]), rung[2]
        guess = denoise(diffuse(x_0, rng.normal(key, x_0.shape), logsnr_t), logsnr_t)
        kl = mean_of_each(step_kl(guess, x_0, logsnr_s, logsnr_t, gamma=gamma))
        return total + kl, (kl, _error(guess, x_0, logsnr_t))

    keys = rng.split(key_steps, noisy.shape[0] - 1)
    none = jnp.zeros(x_0.shape[:1], x_0.dtype)
    diffusion, (steps, errors) = jax.lax.scan(body, none, (noisy[:-1], noisy[1:], keys))

    logsnr_1, logsnr_2 = at(noisy[-1]), at(noisy[-2])
    guess = denoise(diffuse(x_0, rng.normal(key_decoder, x_0.shape), logsnr_1), logsnr_1)
    small = log_small_variance(logsnr_1, logsnr_2, x_0)
    large = per_example(jax.nn.log_sigmoid(-logsnr_1), x_0)
    log_var = small + _fraction(guess, decoder_gamma) * (large - small)
    decoder = decoder_nats(x_0, x_0_of(guess), log_var, eight_bit=eight_bit)
    bound = _bound(prior_kl(x_0, at(noisy[0])), diffusion, decoder)
    return ByTime(
        bound,
        jnp.concatenate([steps / np.log(2.0), bound.decoder[None]]),
        jnp.concatenate([errors, _error(guess, x_0, logsnr_1)[None]]),
    )


def vlb_continuous(
    denoise: Denoiser,
    x_0: Data,
    *,
    key: PRNGKey | PRNGKeys,
    logsnr_min: float | Scalar = -20.0,
    logsnr_max: float | Scalar = 20.0,
    num_times: int = 128,
    eight_bit: bool = True,
) -> Bound:
    """The bound of infinitely many rungs: diffusion = 1/2 integral of e^l E|x_0 - x_0_hat|^2 dl.

    Kingma et al. 2021, eq. 17 and 18. No schedule is asked for, since the integral depends on its
    two ends alone, from logsnr_min, noise, to logsnr_max, clean. The levels are stratified: one
    drawn in each of `num_times` equal slices of logsnr, in which the integrand, the squared error
    in eps, stays between 0 and 1 per dimension for a good denoiser. The ends of a learned schedule
    are not checked, since they are known only when the program runs.

    The decoder is N(x_0_hat, sigma_1^2 / alpha_1^2) at logsnr_max; eight_bit as in `vlb`.

    Raises:
      ValueError: for num_times below 1 or levels that do not rise.
    """
    if num_times < 1:
        raise ValueError(f"num_times={num_times}: at least 1")
    traced = isinstance(logsnr_min, jax.core.Tracer) or isinstance(logsnr_max, jax.core.Tracer)
    if not traced and not logsnr_min < logsnr_max:
        raise ValueError(f"logsnr_min={logsnr_min}: below logsnr_max={logsnr_max}")
    slice_ = (logsnr_max - logsnr_min) / num_times
    key_steps, key_decoder = rng.split(key, 2)

    def body(total: PerExample, rung):
        i, key = rung
        key_w, key_eps = rng.split(key, 2)
        # Phi of a normal is uniform; `rng.normal` takes one key as well as one per example
        w = jax.scipy.special.ndtr(rng.normal(key_w, x_0.shape[:1])).astype(x_0.dtype)
        logsnr_t = logsnr_min + slice_ * (i + w)
        x_t = diffuse(x_0, rng.normal(key_eps, x_0.shape), logsnr_t)
        error = mean_of_each(jnp.square(x_0 - x_0_of(denoise(x_t, logsnr_t))))
        return total + 0.5 * slice_ * jnp.exp(logsnr_t) * error, None

    rungs = (jnp.arange(num_times), rng.split(key_steps, num_times))
    diffusion, _ = jax.lax.scan(body, jnp.zeros(x_0.shape[:1], x_0.dtype), rungs)

    logsnr_1, logsnr_T = (jnp.full_like(diffusion, end) for end in (logsnr_max, logsnr_min))
    x_1 = diffuse(x_0, rng.normal(key_decoder, x_0.shape), logsnr_1)
    x_0_hat = x_0_of(denoise(x_1, logsnr_1))
    decoder = decoder_nats(x_0, x_0_hat, per_example(-logsnr_1, x_0), eight_bit=eight_bit)
    return _bound(prior_kl(x_0, logsnr_T), diffusion, decoder)


def step_kl(
    guess: Denoised, x_0: Data, logsnr_s: LogSnr, logsnr_t: LogSnr, *, gamma: float = 0.0
) -> Data:
    """KL(q(x_s | x_t, x_0) || p(x_s | x_t)) in nats  (Kingma et al. 2021, eq. 11 to 13).

    For each dimension. The means differ by alpha_s (1 - e^(l_t - l_s)) (x_0 - x_0_hat). Both
    logsnr are finite.
    """
    small = log_small_variance(logsnr_s, logsnr_t, x_0)
    ratio = jax.nn.log_sigmoid(-logsnr_t) - jax.nn.log_sigmoid(-logsnr_s)
    log_ratio = per_example(ratio, x_0)
    move = per_example(-jnp.expm1(logsnr_t - logsnr_s), x_0)
    alpha_s, _ = alpha_sigma(logsnr_s, x_0)
    apart = alpha_s * move * (x_0 - x_0_of(guess))
    return gaussian_kl(apart, small, 0.0, small + _fraction(guess, gamma) * log_ratio)


def log_small_variance(logsnr_s: LogSnr, logsnr_t: LogSnr, like: Like = None) -> Factor:
    """log((1 - e^(l_t - l_s)) sigma_s^2), the posterior's variance; both logsnr are finite."""
    move = -jnp.expm1(logsnr_t - logsnr_s)
    return per_example(jnp.log(move) + jax.nn.log_sigmoid(-logsnr_s), like)


def decoder_nats(
    x_0: Data, x_0_hat: Data, log_var: Float[Array, "..."], *, eight_bit: bool
) -> Data:
    """-log p(x_0 | x_1), p = N(x_0_hat, var): of the level's bin or of the density."""
    log_likelihood = discretised_log_likelihood if eight_bit else gaussian_log_likelihood
    return -log_likelihood(x_0, x_0_hat, log_var)


def _error(guess: Denoised, x_0: Data, logsnr_t: LogSnr) -> PerExample:
    """|eps - eps_hat|^2 = e^(logsnr_t) |x_0 - x_0_hat|^2, per dimension."""
    return jnp.exp(logsnr_t) * mean_of_each(jnp.square(x_0 - x_0_of(guess)))


def _fraction(guess: Denoised, gamma: float) -> float | Data:
    return guess.fraction if isinstance(guess, Guess) else gamma


def _bound(prior: Data, diffusion: PerExample, decoder: Data) -> Bound:
    """From nats to bits per dimension."""
    parts = (mean_of_each(prior), diffusion, mean_of_each(decoder))
    return Bound(*(part / np.log(2.0) for part in parts))
