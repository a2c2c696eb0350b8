"""Solvers of the probability-flow ODE and its SDE: each is `towards` with a better x_0_hat.

The ODE in log(alpha / sigma) is linear in x but for x_0_hat(x_t, t). Solvers differ in how they
guess x_0_hat between two rungs: from a second evaluation, or from earlier rungs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffjax.core import rng
from diffjax.core.types import Data, Factor, LogSnr
from diffjax.diffusion.process import alpha_sigma, per_example, renoise
from diffjax.diffusion.sampling.step import Multistep, Step, half_step, image_of, towards


class Churn(NamedTuple):
    """Noise added before a step, then removed by it  (Karras et al. 2022, algorithm 2).

    per_step: the noise level sigma / alpha grows by min(per_step, sqrt 2 - 1) of itself: the
    paper's S_churn / N. Only where sigma / alpha lies in [sigma_min, sigma_max]; `noise` is the
    deviation of what is added, the paper's S_noise.
    """

    per_step: float = 0.0
    sigma_min: float = 0.0
    sigma_max: float = float("inf")
    noise: float = 1.0

    def check(self) -> None:
        """Raise a ValueError that names the field."""
        if not self.per_step >= 0:
            raise ValueError(f"churn.per_step={self.per_step}: 0 (none) or above")
        if not 0 <= self.sigma_min <= self.sigma_max:
            raise ValueError(
                f"churn.sigma_min={self.sigma_min}, sigma_max={self.sigma_max}: "
                "0 <= sigma_min <= sigma_max"
            )


def euler(churn: Churn | None = None) -> Step:
    """Euler's method in sigma, order 1  (Karras et al. 2022, algorithm 2 without lines 6 to 8).

    x_hat + (sigma_s - sigma_t) (x_hat - x_0_hat) / sigma_t in their x = x_t / alpha_t, which is
    DDIM's step to the last digit.
    """
    if churn is not None:
        churn.check()

    def step(denoise, x_t, logsnr_t, logsnr_s, *, key):
        x_t, logsnr_t = stirred(x_t, logsnr_t, churn, key)
        return towards(image_of(denoise, x_t, logsnr_t), x_t, logsnr_t, logsnr_s)

    return step


def heun(churn: Churn | None = None) -> Step:
    """Heun's method in sigma, order 2, two evaluations  (Karras et al. 2022, algorithm 2).

    Averaging the slopes at both ends is, solved for x_0_hat, `towards` the guess
    x_0_hat + (e^h / 2) (x_0_hat' - x_0_hat). The last rung has one evaluation, as in the paper.
    """
    if churn is not None:
        churn.check()

    def step(denoise, x_t, logsnr_t, logsnr_s, *, key):
        x_t, logsnr_t = stirred(x_t, logsnr_t, churn, key)
        first = image_of(denoise, x_t, logsnr_t)
        x_s = towards(first, x_t, logsnr_t, logsnr_s)

        def correct():
            second = image_of(denoise, x_s, logsnr_s)
            half_slope = 0.5 * jnp.exp(half_step(logsnr_t, logsnr_s, x_t))
            return towards(first + half_slope * (second - first), x_t, logsnr_t, logsnr_s)

        return jax.lax.cond(jnp.isposinf(logsnr_s[0]), lambda: x_s, correct)

    return step


def stirred(x_t: Data, logsnr_t: LogSnr, churn: Churn | None, key) -> tuple[Data, LogSnr]:
    """x_t noised up to the level that `churn` sets, and that level."""
    if churn is None or churn.per_step == 0:
        return x_t, logsnr_t
    sigma = jnp.exp(-0.5 * logsnr_t)
    inside = (sigma >= churn.sigma_min) & (sigma <= churn.sigma_max)
    growth = jnp.where(inside, min(churn.per_step, 2**0.5 - 1), 0.0)
    logsnr_hat = logsnr_t - 2.0 * jnp.log1p(growth)
    eps = churn.noise * rng.normal(key, x_t.shape)
    return renoise(x_t, eps, logsnr_t, logsnr_hat), logsnr_hat


def dpmpp_1s() -> Step:
    """DPM-Solver++ of order 1: DDIM's deterministic step  (Lu et al. 2022, sec. 4)."""
    return euler()


def dpmpp_2s() -> Step:
    """DPM-Solver++ 2S, order 2, two evaluations  (Lu et al. 2022, algorithm 1, r = 1/2).

    The guess is the denoiser's at the middle of the step in log(alpha / sigma).
    """

    def step(denoise, x_t, logsnr_t, logsnr_s, *, key):
        first = image_of(denoise, x_t, logsnr_t)

        def midpoint():
            middle = 0.5 * (logsnr_t + logsnr_s)
            x_middle = towards(first, x_t, logsnr_t, middle)
            return image_of(denoise, x_middle, middle)

        clean = jnp.isposinf(logsnr_s[0])
        return towards(jax.lax.cond(clean, lambda: first, midpoint), x_t, logsnr_t, logsnr_s)

    return step


class Past(NamedTuple):
    """The rung before: what was guessed there, and its level; -inf before the first."""

    x_0_hat: Data
    logsnr: LogSnr


def _no_past(x_T: Data) -> Past:
    return Past(jnp.zeros_like(x_T), jnp.full(x_T.shape[:1], -jnp.inf))


def extrapolated(x_0_hat: Data, past: Past, logsnr_t: LogSnr, logsnr_s: LogSnr) -> Data:
    """x_0_hat + (h / (2 h_past)) (x_0_hat - x_0_hat_past): the line through two guesses, halfway.

    The guess itself at the first rung, where h_past is infinite, and at the last, where h is
    (Lu et al. 2022, algorithm 2).
    """
    h = half_step(logsnr_t, logsnr_s, x_0_hat)
    h_past = half_step(past.logsnr, logsnr_t, x_0_hat)
    alone = jnp.isinf(h) | jnp.isinf(h_past) | (h_past == 0)
    slope = jnp.where(alone, 0.0, 0.5 * h / jnp.where(alone, 1.0, h_past))
    return x_0_hat + slope * (x_0_hat - past.x_0_hat)


def dpmpp_2m() -> Multistep:
    """DPM-Solver++ 2M, order 2, one evaluation  (Lu et al. 2022, algorithm 2)."""

    def step(denoise, x_t, logsnr_t, logsnr_s, past, *, key):
        x_0_hat = image_of(denoise, x_t, logsnr_t)
        guess = extrapolated(x_0_hat, past, logsnr_t, logsnr_s)
        return towards(guess, x_t, logsnr_t, logsnr_s), Past(x_0_hat, logsnr_t)

    return Multistep(_no_past, step)


def dpmpp_2m_sde(eta: float = 1.0) -> Multistep:
    """DPM-Solver++ 2M for the SDE, midpoint form  (Lu et al. 2022, eq. 18, with noise eta).

    x_s = (sigma_s / sigma_t) e^(-eta h) x_t + alpha_s (1 - e^(-(1 + eta) h)) guess
          + sigma_s sqrt(1 - e^(-2 eta h)) z; eta = 1 is the reverse SDE, eta = 0 is 2M.
    """
    if not eta >= 0:
        raise ValueError(f"eta={eta}: 0 (the ODE) or above; 1 is the reverse SDE")
    if eta == 0:
        return dpmpp_2m()

    def step(denoise, x_t, logsnr_t, logsnr_s, past, *, key):
        x_0_hat = image_of(denoise, x_t, logsnr_t)
        guess = extrapolated(x_0_hat, past, logsnr_t, logsnr_s)
        _, sigma_t = alpha_sigma(logsnr_t, x_t)
        alpha_s, sigma_s = alpha_sigma(logsnr_s, x_t)
        h = half_step(logsnr_t, logsnr_s, x_t)
        mean = (sigma_s / sigma_t) * jnp.exp(-eta * h) * x_t
        mean = mean - alpha_s * jnp.expm1(-(1.0 + eta) * h) * guess
        deviation = sigma_s * jnp.sqrt(-jnp.expm1(-2.0 * eta * h))
        return mean + deviation * rng.normal(key, x_t.shape), Past(x_0_hat, logsnr_t)

    return Multistep(_no_past, step)


class UniPCMemory(NamedTuple):
    """The last rung's x_t, and the guesses of the last rung and of the one before."""

    x: Data
    last: Past
    earlier: Past


def unipc() -> Multistep:
    """UniPC of order 2, B_2(h), predicting x_0, one evaluation  (Zhao et al. 2023, algorithm 1).

    The evaluation at a rung first corrects the step that led to it, then predicts the next; the
    predictor is DPM-Solver++ 2M's.
    """

    def start(x_T):
        return UniPCMemory(jnp.zeros_like(x_T), _no_past(x_T), _no_past(x_T))

    def step(denoise, x_t, logsnr_t, logsnr_s, memory, *, key):
        x_0_hat = image_of(denoise, x_t, logsnr_t)
        here = Past(x_0_hat, logsnr_t)
        x_t = corrected(x_t, here, memory)
        guess = extrapolated(x_0_hat, memory.last, logsnr_t, logsnr_s)
        x_s = towards(guess, x_t, logsnr_t, logsnr_s)
        return x_s, UniPCMemory(x_t, here, memory.last)

    return Multistep(start, step)


def corrected(x_t: Data, here: Past, memory: UniPCMemory) -> Data:
    """UniC: the step to x_t taken again, now that the guess at its end is known.

    guess = last + rho_1 (earlier - last) / r + rho_2 (here - last) with r < 0 the earlier rung's
    place in units of the step; the two weights solve rho_1 + rho_2 = b_1 and
    r rho_1 + rho_2 = b_2 (Zhao et al. 2023, eq. 12). On the second rung rho_2 = 1/2 alone.
    """
    last, earlier = memory.last, memory.earlier
    first, second = jnp.isinf(last.logsnr), jnp.isinf(earlier.logsnr)
    # finite stand-ins where there is no past, so that neither value nor gradient is NaN
    origin = jnp.where(first, here.logsnr - 1.0, last.logsnr)
    before = jnp.where(second, origin - 1.0, earlier.logsnr)
    h, h_before = half_step(origin, here.logsnr, x_t), half_step(before, origin, x_t)
    r = -h_before / h
    b_1, b_2 = _unic_moments(h)
    rho_1 = (b_2 - b_1) / (r - 1.0)
    fresh = per_example(second, x_t)
    rho_1, rho_2 = jnp.where(fresh, 0.0, rho_1), jnp.where(fresh, 0.5, b_1 - rho_1)
    guess = last.x_0_hat + rho_2 * (here.x_0_hat - last.x_0_hat)
    guess = guess + (rho_1 / r) * (earlier.x_0_hat - last.x_0_hat)
    again = towards(guess, memory.x, origin, here.logsnr)
    return jnp.where(per_example(first, x_t), x_t, again)


def _unic_moments(h: Factor) -> tuple[Factor, Factor]:
    """b_1 and b_2: the means of tau and tau^2 over the step, tau in [0, 1], weighed by e^(h tau).

    By parts, b_1 = 1 / (1 - e^-h) - 1 / h and b_2 = 1 / (1 - e^-h) - 2 b_1 / h; near h = 0,
    where these cancel, by their series.
    """
    small = jnp.abs(h) < 0.5
    safe = jnp.where(small, 1.0, h)
    full = -1.0 / jnp.expm1(-safe)
    b_1 = full - 1.0 / safe
    b_2 = full - 2.0 * b_1 / safe
    series_1 = 1 / 2 + h / 12 - h**3 / 720 + h**5 / 30240
    series_2 = 1 / 3 + h / 12 + h**2 / 360 - h**3 / 720 - h**4 / 15120 + h**5 / 30240
    return jnp.where(small, series_1, b_1), jnp.where(small, series_2, b_2)
