"""Noise schedules: u in [0, 1] -> logsnr, decreasing, finite with finite gradients at both ends.

A schedule with a closed form is computed from two quantities, one small at the clean end and one
small at the noise end. Each end then keeps its digits in float32, where 1 - u has lost them. Two
schedules made with equal arguments are equal, but for learned ones.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffjax.core.types import PRNGKey, Schedule
from diffjax.diffusion import table
from diffjax.diffusion.made import by_value

# The noise levels of EDM's samplers, sigma / alpha = 80 and 0.002 (Karras et al. 2022, table 1).
EDM_LOGSNR_MIN, EDM_LOGSNR_MAX = -2 * math.log(80.0), -2 * math.log(0.002)

Params: TypeAlias = dict[str, Any]


@by_value
def cosine(logsnr_min: float = -20.0, logsnr_max: float = 20.0) -> Schedule:
    """logsnr(u) = -2 log tan(a u + b), truncated to the two ends (Ho & Salimans 2022, sec. 3).

    Written with both angles, theta and pi/2 - theta, because tan loses the end near pi/2 in
    float32.
    """
    _check_ends(logsnr_min, logsnr_max)
    theta_0 = math.atan(math.exp(-logsnr_max / 2))
    phi_1 = math.atan(math.exp(logsnr_min / 2))
    angles = _from_both_ends(theta_0, phi_1, math.pi / 2)

    def logsnr(u):
        theta, phi = angles(u)
        return 2.0 * (jnp.log(jnp.sin(phi)) - jnp.log(jnp.sin(theta)))

    return logsnr


@by_value
def linear(
    beta_min: float = 1e-4, beta_max: float = 0.02, num_steps: int = 1000, zero_snr: bool = False
) -> Schedule:
    """beta_t linear in t (Ho et al. 2020, sec. 4), used continuously (Imagen, app. F.3).

    The table of log SNR is made in float64; u = 0 is its first step and u = 1 its last, and
    between two steps the logsnr is interpolated. zero_snr: rescaled so that the last step holds
    no signal (Lin et al. 2023).
    """
    return _of_betas(table.linear_betas(beta_min, beta_max, num_steps), zero_snr)


@by_value
def quadratic(
    beta_min: float = 0.00085,
    beta_max: float = 0.012,
    num_steps: int = 1000,
    zero_snr: bool = False,
) -> Schedule:
    """sqrt(beta_t) linear in t, known as scaled linear too (Rombach et al. 2022); as `linear`."""
    return _of_betas(table.quadratic_betas(beta_min, beta_max, num_steps), zero_snr)


@by_value
def discrete_cosine(
    num_steps: int = 1000, s: float = 0.008, max_beta: float = 0.999, zero_snr: bool = False
) -> Schedule:
    """alpha_bar_t = cos^2((t/T + s) / (1 + s) pi/2) with betas clipped; as `linear`.

    Nichol & Dhariwal 2021, eq. 17. `cosine` is its limit without s and clipping.
    """
    return _of_betas(table.cosine_betas(num_steps, s, max_beta), zero_snr)


@by_value
def sigmoid(
    start: float = -3.0,
    end: float = 3.0,
    tau: float = 1.0,
    logsnr_min: float = -20.0,
    logsnr_max: float = 20.0,
) -> Schedule:
    """alpha^2(t) = (S(end) - S(start + (end - start) t)) / (S(end) - S(start)), S = sigmoid(./tau).

    Jabri et al. 2022; Chen 2023, alg. 1; truncated to the two ends as `cosine` is. With
    x = (end - start) t / tau and y = (end - start) (1 - t) / tau,
    logsnr = log sinh(y/2) - log sinh(x/2) + log cosh(start / 2 tau) - log cosh(end / 2 tau).
    """
    _check_ends(logsnr_min, logsnr_max)
    if not (start < end and tau > 0):
        raise ValueError(f"start={start}, end={end}, tau={tau}: allowed are start < end, tau > 0")
    low, high = _expit(start / tau), _expit(-end / tau)  # S(start), 1 - S(end)
    width = 1 - low - high
    noise_0, signal_1 = width * _expit(-logsnr_max), width * _expit(logsnr_min)
    x_0 = math.log1p(noise_0 / low) - math.log1p(-noise_0 / (1 - low))
    y_1 = math.log1p(signal_1 / high) - math.log1p(-signal_1 / (1 - high))
    distances = _from_both_ends(x_0, y_1, (end - start) / tau)
    # log 2 sinh(x/2) = x/2 + log(1 - e^-x), and the same for cosh
    shift = float(np.logaddexp(0, start / tau) - np.logaddexp(0, end / tau))
    shift += (end - start) / (2 * tau)

    def logsnr(u):
        x, y = distances(u)
        return (y - x) / 2 + jnp.log(-jnp.expm1(-y)) - jnp.log(-jnp.expm1(-x)) + shift

    return logsnr


@by_value
def flow(logsnr_min: float = -20.0, logsnr_max: float = 20.0) -> Schedule:
    """logsnr(u) = 2 log((1 - t) / t), t uniform between the two ends  (Lipman et al. 2023).

    The straight path (1 - t) x_0 + t eps, scaled to alpha^2 + sigma^2 = 1, which changes the
    image's scale and not its log SNR.
    """
    _check_ends(logsnr_min, logsnr_max)
    times = _from_both_ends(_expit(-logsnr_max / 2), _expit(logsnr_min / 2), 1.0)

    def logsnr(u):
        t, rest = times(u)
        return 2.0 * (jnp.log(rest) - jnp.log(t))

    return logsnr


@by_value
def uniform(logsnr_min: float = -20.0, logsnr_max: float = 20.0) -> Schedule:
    """logsnr(u) = (1 - u) logsnr_max + u logsnr_min: what `monotone` bends."""
    _check_ends(logsnr_min, logsnr_max)
    return lambda u: (1.0 - u) * logsnr_max + u * logsnr_min


@by_value
def edm(
    p_mean: float = -1.2,
    p_std: float = 1.2,
    logsnr_min: float = EDM_LOGSNR_MIN,
    logsnr_max: float = EDM_LOGSNR_MAX,
) -> Schedule:
    """logsnr(u) = -2 ln sigma, ln sigma ~ N(p_mean, p_std^2)  (Karras et al. 2022, table 1).

    sigma is EDM's, the noise on an unscaled image. The normal is truncated to the two ends, by
    default at the sigmas 80 and 0.002 of EDM's samplers, with 2e-5 of it outside. Since
    ln sigma = logit t on the straight path of `flow`, this is the logit-normal schedule of
    Esser et al. 2024 too, with their m and s as p_mean and p_std.
    """
    _check_ends(logsnr_min, logsnr_max)
    if not p_std > 0:
        raise ValueError(f"p_std={p_std}: above 0")
    # deviations from the mean; at 11 the slope, 1 / density, is 1e27 and its float32 still finite
    clean, noise = (-(end / 2 + p_mean) / p_std for end in (logsnr_max, logsnr_min))
    if not -11 <= clean < 0 < noise <= 11:
        raise ValueError(
            f"logsnr_min={logsnr_min}, logsnr_max={logsnr_max}: allowed are ends on both sides of "
            f"-2 p_mean={-2 * p_mean}, within 22 p_std={22 * p_std} of it"
        )
    below, above = (math.erfc(z / math.sqrt(2)) / 2 for z in (-clean, noise))
    tails = _from_both_ends(below, above, 1.0)

    def logsnr(u):
        p, q = tails(u)
        low = p < 0.5
        z = jax.scipy.special.ndtri(jnp.where(low, p, q))
        return -2.0 * (p_mean + p_std * jnp.where(low, z, -z))

    return logsnr


@by_value
def shifted(schedule: Schedule, factor: float) -> Schedule:
    """logsnr(u) + 2 log(factor), factor = base_px / size_px  (Hoogeboom et al. 2023, sec. 3.1).

    A schedule made for images of base_px, used at size_px: an image twice as wide averages the
    noise of four pixels, so it needs a factor of 1/2, which is more noise.
    """
    shift = 2 * _log_factor("factor", factor)
    return lambda u: schedule(u) + shift


@by_value
def interpolated(schedule: Schedule, factor_clean: float, factor_noise: float) -> Schedule:
    """(1 - u) shifted(factor_clean) + u shifted(factor_noise)  (Hoogeboom et al. 2023, sec. 3.1).

    Two base sizes: the smaller rules at the noise end, where the layout is decided, and the
    larger at the clean end, so that fine detail is not drowned. Their example for 512 px is
    factor_clean = 256/512, factor_noise = 32/512.
    """
    clean = 2 * _log_factor("factor_clean", factor_clean)
    noise = 2 * _log_factor("factor_noise", factor_noise)
    if noise > clean:
        raise ValueError(
            f"factor_noise={factor_noise}: at most factor_clean={factor_clean}, or it may rise"
        )
    return lambda u: schedule(u) + (1.0 - u) * clean + u * noise


def monotone_init(
    key: PRNGKey, width: int = 1024, logsnr_min: float = -5.0, logsnr_max: float = 13.3
) -> Params:
    """Parameters of `monotone`, nearly straight between the ends, which are Kingma et al.'s.

    The hidden units are steep and centred all over [0, 1], so that each end can bend by itself.
    """
    _check_ends(logsnr_min, logsnr_max)
    key_rate, key_centre, key_bend = jax.random.split(key, 3)
    rate = 5.0 + jax.random.normal(key_rate, (width,))
    return {
        "logsnr_min": jnp.float32(logsnr_min),
        "log_range": jnp.log(jnp.float32(logsnr_max - logsnr_min)),
        "rate": rate,
        "offset": -jax.nn.softplus(rate) * jax.random.uniform(key_centre, (width,)),
        "bend": -2.0 + jax.random.normal(key_bend, (width,)),
    }


def monotone(params: Params, learn_ends: bool = True) -> Schedule:
    """logsnr(u) = min + (max - min) (g(1) - g(u)) / (g(1) - g(0))  (Kingma et al. 2021, app. H).

    g(u) = u + mean over hidden units of w sigmoid(r u + b), with w and r positive by softplus, so
    g rises for any parameters and the ends are met exactly. The paper has a learned positive
    factor before u as well, which the division takes out again. max - min is exp(log_range).
    learn_ends: False keeps the gradient from the ends.
    """
    end = (lambda x: x) if learn_ends else jax.lax.stop_gradient
    bottom, height = end(params["logsnr_min"]), jnp.exp(end(params["log_range"]))
    rate, weight = jax.nn.softplus(params["rate"]), jax.nn.softplus(params["bend"])
    units = lambda u: jax.nn.sigmoid(rate * u + params["offset"])  # noqa: E731

    def logsnr(u):
        u = jnp.asarray(u, jnp.float32)[..., None]
        here = units(u)
        done = u[..., 0] + jnp.mean(weight * (here - units(0.0)), axis=-1)
        rest = 1.0 - u[..., 0] + jnp.mean(weight * (units(1.0) - here), axis=-1)
        return bottom + height * (rest / (rest + done))

    return logsnr


def dlogsnr_du(schedule: Schedule, u: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """d logsnr / du < 0 at every u; -dlogsnr/du is 1 / the density of logsnr, u ~ U(0, 1)."""
    return jax.jvp(schedule, (u,), (jnp.ones_like(u),))[1]


# Each maker has defaults for all its arguments.
SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "cosine": cosine,
    "linear": linear,
    "quadratic": quadratic,
    "discrete_cosine": discrete_cosine,
    "sigmoid": sigmoid,
    "flow": flow,
    "uniform": uniform,
    "edm": edm,
}


def _from_both_ends(first: float, last: float, total: float) -> Callable:
    """u -> (x, total - x), x straight from `first` to total - `last`, each exact at its own end.

    Weighted by u and 1 - u: a compiler may fold the sum of constants in last + (1 - u).
    """

    def both(u):
        rest = 1.0 - u
        return first * rest + (total - last) * u, (total - first) * rest + last * u

    return both


def _of_betas(betas: table.Table, zero_snr: bool) -> Schedule:
    betas = table.zero_terminal_snr(betas) if zero_snr else betas
    return table.discrete(table.logsnr_table(betas))


def _check_ends(logsnr_min: float, logsnr_max: float) -> None:
    if not -math.inf < logsnr_min < logsnr_max < math.inf:
        raise ValueError(f"logsnr_min {logsnr_min} must lie below logsnr_max {logsnr_max}, finite")


def _log_factor(name: str, factor: float) -> float:
    if not 0 < factor < math.inf:
        raise ValueError(f"{name}={factor}: above 0, as base_px / size_px is")
    return math.log(factor)


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))
