"""The denoising loss: a pure function of a network, data and a key."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffjax.core.types import Image, LogSnr, Network, PRNGKey, Scalar, Schedule
from diffjax.diffusion.predict import KINDS, Kind, target
from diffjax.diffusion.process import diffuse
from diffjax.diffusion.schedule import dlogsnr_du
from diffjax.diffusion.training.times import Times, TimeSampler, uniform
from diffjax.diffusion.training.weighting import Weighting, relative_weight


class LossAux(NamedTuple):
    """The per-example parts of a loss, which is the mean of times.weight * per_example."""

    per_example: Float[Array, " b"]
    logsnr_t: LogSnr
    times: Times


def diffusion_loss(
    network: Network,
    x_0: Image,
    *,
    key: PRNGKey,
    schedule: Schedule,
    predict: Kind = "eps",
    weighting: Weighting = "eps",
    over: str = "u",
    times: TimeSampler = uniform,
) -> tuple[Scalar, LossAux]:
    """E over u ~ U(0, 1), eps ~ N(0, 1) of w |x_0 - x_0_hat|^2, a mean over pixels and examples.

    `predict` says what the network's output is; `weighting` what its error counts at each level:
    a name (see `weighting.log_weight`) or a function logsnr -> log w. With both "eps" this is
    L_simple (Ho et al. 2020, eq. 14; Imagen, app. A). The error is taken in the network's own
    space, against a target of x_0 and eps alone.

    over: "u" weights the levels as the schedule visits them; "logsnr" multiplies by
    -dlogsnr/du, which makes the loss the integral over logsnr between the schedule's ends,
    whatever its form (Kingma et al. 2021, eq. 18; Kingma & Gao 2023).
    times: how u is drawn; the expectation is the same for each (see `times`).

    Raises:
      ValueError: names the argument, its value and those allowed.
    """
    if predict not in KINDS:
        raise ValueError(f"predict={predict!r}: allowed are {', '.join(KINDS)}")
    if over not in ("u", "logsnr"):
        raise ValueError(f"over={over!r}: allowed are u, logsnr")
    key_u, key_eps = jax.random.split(key)
    drawn = times(key_u, x_0.shape[0])
    logsnr_t = schedule(drawn.u)
    eps = jax.random.normal(key_eps, x_0.shape)
    output = network(diffuse(x_0, eps, logsnr_t), logsnr_t)
    per_example = weighted_error(output, x_0, eps, logsnr_t, predict, weighting)
    if over == "logsnr":
        per_example *= -dlogsnr_du(schedule, drawn.u)
    return mean_over(drawn, per_example), LossAux(per_example, logsnr_t, drawn)


def weighted_error(
    output: Image, x_0: Image, eps: Image, logsnr_t: LogSnr, predict: Kind, weighting: Weighting
) -> Float[Array, " b"]:
    """w |x_0 - x_0_hat|^2, a mean over pixels, of an output of kind `predict`."""
    error = jnp.square(output - target(x_0, eps, logsnr_t, predict))
    return relative_weight(weighting, predict, logsnr_t) * jnp.mean(error, axis=(1, 2, 3))


def mean_over(times: Times, per_example: Float[Array, " b"]) -> Scalar:
    """The estimate of the mean over u ~ U(0, 1), however the times were drawn."""
    return jnp.mean(times.weight * per_example)
