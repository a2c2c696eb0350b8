"""The probability-flow ODE: data to latents and back without noise, and exact likelihood.

With d alpha / dl = alpha sigma^2 / 2 and d sigma / dl = -sigma alpha^2 / 2, l the logsnr, the path
x_t = alpha x_0_hat + sigma eps_hat moves with

    dx / dl = alpha / 2 (x_0_hat(x, l) - alpha x)

which is Song et al. 2021, eq. 13, with l as the time. It is bounded at both ends and holds no
schedule, so that it is not stiff. Along it d log p(x) / dl = -div (dx / dl)  (eq. 39), so an
example's log-likelihood is that of its latent plus the divergence summed on the way.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffjax.core import rng
from diffjax.core.types import Data, Denoiser, LogSnr, PerExample, PRNGKey, PRNGKeys
from diffjax.diffusion.likelihood.gaussian import HALF_BIN
from diffjax.diffusion.predict import x_0_of
from diffjax.diffusion.process import alpha_sigma, sum_of_each

# dx / dl at (x, logsnr).
Velocity: TypeAlias = Callable[[Data, LogSnr], Data]
PROBES = ("rademacher", "normal", "exact")


class Likelihood(NamedTuple):
    """log p(x_0) of a density over whole examples, [b] in nats, and the latent x_T of each."""

    log_p: PerExample
    x_T: Data


def velocity(denoise: Denoiser) -> Velocity:
    """dx / dl = alpha / 2 (x_0_hat - alpha x)."""

    def dx_dl(x_t: Data, logsnr_t: LogSnr) -> Data:
        alpha_t, _ = alpha_sigma(logsnr_t, x_t)
        return 0.5 * alpha_t * (x_0_of(denoise(x_t, logsnr_t)) - alpha_t * x_t)

    return dx_dl


def encode(
    denoise: Denoiser,
    x_0: Data,
    *,
    num_steps: int = 64,
    logsnr_min: float = -20.0,
    logsnr_max: float = 20.0,
) -> Data:
    """x_T: the ODE from logsnr_max, where alpha x_0 stands for x_0, to logsnr_min.

    `num_steps` steps of Runge and Kutta's fourth order, uniform in logsnr: four evaluations each.
    """
    _check(num_steps, logsnr_min, logsnr_max)
    move = lambda x, logsnr: (velocity(denoise)(x, logsnr), ())  # noqa: E731
    alpha, _ = alpha_sigma(_level(x_0, logsnr_max), x_0)
    return _integrate(move, alpha * x_0, (), logsnr_max, logsnr_min, num_steps)[0]


def decode(
    denoise: Denoiser,
    x_T: Data,
    *,
    num_steps: int = 64,
    logsnr_min: float = -20.0,
    logsnr_max: float = 20.0,
) -> Data:
    """x_0: the ODE from logsnr_min to logsnr_max, the inverse of `encode` to the steps' error."""
    _check(num_steps, logsnr_min, logsnr_max)
    move = lambda x, logsnr: (velocity(denoise)(x, logsnr), ())  # noqa: E731
    x, _ = _integrate(move, x_T, (), logsnr_min, logsnr_max, num_steps)
    alpha, _ = alpha_sigma(_level(x_T, logsnr_max), x_T)
    return x / alpha


def log_likelihood(
    denoise: Denoiser,
    x_0: Data,
    *,
    key: PRNGKey | PRNGKeys | None,
    num_steps: int = 64,
    logsnr_min: float = -20.0,
    logsnr_max: float = 20.0,
    probe: str = "rademacher",
    num_probes: int = 1,
) -> Likelihood:
    """log p(x_0) = log N(x_T; 0, 1) + d log alpha - integral of div (dx / dl) dl  (Song, eq. 39).

    The integral runs from logsnr_min to logsnr_max, with div (dx / dl) = alpha / 2 (div x_0_hat -
    alpha d), in the same scan as `encode`. d log alpha is for the scale of x at logsnr_max.

    probe: "rademacher" or "normal" for Hutchinson's div f = E v' (df / dx) v over `num_probes`
      random v per example, which stay the same along the path (Grathwohl et al. 2019); "exact"
      takes d products and no key: for examples of some hundred numbers.

    Raises:
      ValueError: for an unknown probe or one without a key, or for steps, probes or levels that
        make no path.
    """
    _check(num_steps, logsnr_min, logsnr_max)
    probes = _probes(x_0, key, probe, num_probes)
    flow = velocity(denoise)

    def move(x: Data, logsnr: LogSnr):
        dx, pull = jax.vjp(lambda x: flow(x, logsnr), x)
        along = lambda v: sum_of_each(pull(v)[0] * v)  # noqa: E731
        products = jax.vmap(along)(probes)
        # unit vectors are summed; random ones, whose squares are 1 on average, are averaged
        return dx, jnp.sum(products, 0) if probe == "exact" else jnp.mean(products, 0)

    alpha, _ = alpha_sigma(_level(x_0, logsnr_max), x_0)
    zero = jnp.zeros(x_0.shape[:1], x_0.dtype)
    # from clean to noise, the divergence adds up to log p(alpha x_0) - log p(x_T)
    x_T, gathered = _integrate(move, alpha * x_0, zero, logsnr_max, logsnr_min, num_steps)
    dims = np.prod(x_0.shape[1:])
    log_normal = -0.5 * (sum_of_each(jnp.square(x_T)) + dims * np.log(2.0 * np.pi))
    return Likelihood(log_normal + gathered + dims * jnp.log(alpha.ravel()), x_T)


def dequantised_nats(
    denoise: Denoiser,
    x_0: Data,
    *,
    key: PRNGKey | PRNGKeys,
    num_steps: int = 64,
    logsnr_min: float = -20.0,
    logsnr_max: float = 20.0,
    probe: str = "rademacher",
    num_probes: int = 1,
) -> PerExample:
    """-log P(x_0) <= -E log p(x_0 + (u - 1/2) 2/255) - d log(2/255), u ~ U[0, 1)^d, in nats [b].

    For x_0 on the 256 levels k / 127.5 - 1: Jensen's inequality for the mass of each level's bin
    (Theis et al. 2016, sec. 3.1). In bits per dimension the scale adds log2(127.5) to the
    density's. One u per example; the other arguments are `log_likelihood`'s.
    """
    key_u, key_probe = rng.split(key, 2)
    u = jax.scipy.special.ndtr(rng.normal(key_u, x_0.shape))
    density = log_likelihood(
        denoise,
        x_0 + HALF_BIN * (2.0 * u - 1.0),
        key=key_probe,
        num_steps=num_steps,
        logsnr_min=logsnr_min,
        logsnr_max=logsnr_max,
        probe=probe,
        num_probes=num_probes,
    )
    return -density.log_p - np.prod(x_0.shape[1:]) * np.log(2.0 * HALF_BIN)


def _probes(x_0: Data, key, probe: str, num_probes: int) -> Float[Array, "k b *shape"]:
    if probe not in PROBES:
        raise ValueError(f"probe={probe!r}: allowed are {', '.join(PROBES)}")
    if num_probes < 1:
        raise ValueError(f"num_probes={num_probes}: at least 1")
    if probe == "exact":
        units = jnp.eye(np.prod(x_0.shape[1:]), dtype=x_0.dtype).reshape(-1, 1, *x_0.shape[1:])
        return jnp.broadcast_to(units, (units.shape[0], *x_0.shape))
    if key is None:
        raise ValueError(f"key=None: the {probe} probes are drawn, give a key")
    draws = [rng.normal(key, x_0.shape) for key in rng.split(key, num_probes)]
    noise = jnp.stack(draws).astype(x_0.dtype)
    return jnp.where(noise < 0, -1.0, 1.0).astype(x_0.dtype) if probe == "rademacher" else noise


def _integrate(move, x: Data, gathered, start: float, stop: float, num_steps: int):
    """x and the integral of the second value of `move`, from `start` to `stop`; of fourth order."""
    h = (stop - start) / num_steps

    def body(carry, i):
        x, gathered = carry
        at = lambda part: _level(x, start + (i + part) * h)  # noqa: E731
        dx_1, d_1 = move(x, at(0.0))
        dx_2, d_2 = move(x + 0.5 * h * dx_1, at(0.5))
        dx_3, d_3 = move(x + 0.5 * h * dx_2, at(0.5))
        dx_4, d_4 = move(x + h * dx_3, at(1.0))
        step = lambda y, a, b, c, d: y + (h / 6.0) * (a + 2.0 * b + 2.0 * c + d)  # noqa: E731
        return jax.tree.map(
            step, (x, gathered), (dx_1, d_1), (dx_2, d_2), (dx_3, d_3), (dx_4, d_4)
        ), None

    return jax.lax.scan(body, (x, gathered), jnp.arange(num_steps, dtype=x.dtype))[0]


def _level(x: Data, logsnr) -> LogSnr:
    return jnp.broadcast_to(jnp.asarray(logsnr, x.dtype), x.shape[:1])


def _check(num_steps: int, logsnr_min: float, logsnr_max: float) -> None:
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps}: at least 1")
    if not logsnr_min < logsnr_max:
        raise ValueError(f"logsnr_min={logsnr_min}: below logsnr_max={logsnr_max}")
