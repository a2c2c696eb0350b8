"""The denoising loss: a pure function of a network, data and a key."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.diffusion.predict import KINDS, Kind, target
from diffjax.diffusion.process import diffuse
from diffjax.types import Image, LogSnr, Network, PRNGKey, Scalar, Schedule


class LossAux(NamedTuple):
    """The per-example parts of a loss."""

    per_example: Float[Array, " b"]
    logsnr_t: LogSnr


def log_weight(kind: Kind, logsnr: LogSnr) -> LogSnr:
    """log w in |error in `kind`|^2 = w |error in x_0|^2 at fixed x_t.

    eps: w = alpha^2 / sigma^2; v: w = 1 / sigma^2 = 1 + alpha^2 / sigma^2
    (Salimans & Ho 2022, sec. 4).
    """
    return {"x_0": jnp.zeros_like(logsnr), "eps": logsnr, "v": jax.nn.softplus(logsnr)}[kind]


def diffusion_loss(
    network: Network,
    x_0: Image,
    *,
    key: PRNGKey,
    schedule: Schedule,
    predict: Kind = "eps",
    weighting: Kind = "eps",
) -> tuple[Scalar, LossAux]:
    """E over u ~ U(0, 1), eps ~ N(0, 1) of the squared error, a mean over pixels and examples.

    `predict` says what the network's output is, `weighting` in which of the three spaces the
    error counts; with both "eps" this is L_simple (Ho et al. 2020, eq. 14; Imagen, app. A).
    """
    for name, kind in (("predict", predict), ("weighting", weighting)):
        if kind not in KINDS:
            raise ValueError(f"{name}={kind!r}: allowed are {', '.join(KINDS)}")
    key_u, key_eps = jax.random.split(key)
    logsnr_t = schedule(jax.random.uniform(key_u, x_0.shape[:1]))
    eps = jax.random.normal(key_eps, x_0.shape)
    output = network(diffuse(x_0, eps, logsnr_t), logsnr_t)
    error = jnp.square(output - target(x_0, eps, logsnr_t, predict))
    weight = jnp.exp(log_weight(weighting, logsnr_t) - log_weight(predict, logsnr_t))
    per_example = weight * jnp.mean(error, axis=(1, 2, 3))
    return jnp.mean(per_example), LossAux(per_example, logsnr_t)
