"""The denoising loss: draws times and noise, then asks an objective for each example's error."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from diffjax.core.types import Data, LogSnr, Network, PerExample, PRNGKey, Scalar, Schedule
from diffjax.diffusion.predict import Kind
from diffjax.diffusion.training.objectives import simple
from diffjax.diffusion.training.terms import weighted_error as weighted_error
from diffjax.diffusion.training.times import Times, TimeSampler, uniform
from diffjax.diffusion.training.weighting import Weighting

Model = TypeVar("Model")


class LossAux(NamedTuple):
    """The per-example parts of a loss, which is the mean of times.weight * per_example."""

    per_example: PerExample
    logsnr_t: LogSnr
    times: Times


def diffusion_loss(
    network: Network,
    x_0: Data,
    *,
    key: PRNGKey,
    schedule: Schedule,
    predict: Kind = "eps",
    weighting: Weighting = "eps",
    over: str = "u",
    times: TimeSampler = uniform,
) -> tuple[Scalar, LossAux]:
    """E over u ~ U(0, 1), eps ~ N(0, 1) of w |x_0 - x_0_hat|^2, a mean over all numbers of x_0.

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
    objective = simple(schedule, predict, weighting, over)
    return expected(objective, objective.logsnr, network, x_0, key=key, times=times)


def expected(
    error: Callable[[Model, Data, Data, PerExample], PerExample],
    logsnr: Callable[[PerExample], LogSnr],
    model: Model,
    x_0: Data,
    *,
    key: PRNGKey,
    times: TimeSampler = uniform,
) -> tuple[Scalar, LossAux]:
    """An estimate of E over u ~ U(0, 1), eps ~ N(0, 1) of error(model, x_0, eps, u).

    error, logsnr: those of an objective, see `objectives`. model: the first argument of `error`,
    such as a network. times: how u is drawn.
    """
    key_u, key_eps = jax.random.split(key)
    drawn = times(key_u, x_0.shape[0])
    eps = jax.random.normal(key_eps, x_0.shape)
    per_example = error(model, x_0, eps, drawn.u)
    return mean_over(drawn, per_example), LossAux(per_example, logsnr(drawn.u), drawn)


def mean_over(times: Times, per_example: PerExample) -> Scalar:
    """The estimate of the mean over u ~ U(0, 1), however the times were drawn."""
    return jnp.mean(times.weight * per_example)
