"""Measures of denoising tasks: the error at each noise level, and the variational bound."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffjax.core import rng
from diffjax.core.types import Data, Denoiser, PerExample, PRNGKeys, Reshaped, Scalar
from diffjax.diffusion.likelihood import chain
from diffjax.diffusion.likelihood.bound import Bound, to_nats, vlb_continuous
from diffjax.diffusion.predict import x_0_of
from diffjax.diffusion.process import diffuse, mean_of_each
from diffjax.evaluation.measure import Numbers
from diffjax.tasks import sampling
from diffjax.tasks.conditions import shrink
from diffjax.tasks.denoising import Denoising, decoded
from diffjax.tasks.task import Columns, Params

# Ends of the bins of logsnr, from noise to clean.
EDGES = (-12.0, -8.0, -4.0, 0.0, 4.0, 8.0, 12.0)
# Where bounds end in logsnr: at 13 the noise is a sixth of the step between two 8-bit levels.
ENDS = (4.0, 6.0, 8.0, 10.0, 13.0)
# Levels at which a bound asks the network, for each example.
TIMES = 16
BITS = "bits_per_dim_to_"
# Ends of bounds, and those before them.
Ends: TypeAlias = tuple[Array, Array]


@dataclass(frozen=True)
class NoiseLevels:
    """|v - v_hat|^2 = |x_0 - x_0_hat|^2 / sigma^2 in each bin of logsnr, as a mean over dimensions.

    It does not depend on what the network predicts or how training weights levels, so different
    runs can be compared. Each example has one level in each bin, drawn from its key; NaN if the
    schedule does not reach it.
    """

    edges: tuple[float, ...] = EDGES

    def __call__(self, task: Denoising, params: Params, batch: Columns, keys: PRNGKeys) -> Numbers:
        """`loss_logsnr_LOW_HIGH` for each bin."""
        x_0 = task.clean(batch)
        denoise = denoiser_of(task, params, batch, keys)
        low, high = ends_of(task, params)
        key_level, key_eps = rng.split(rng.stream(keys, "levels"), 2)
        share = jax.scipy.special.ndtr(rng.normal(key_level, x_0.shape[:1]))  # uniform

        def body(_: None, one):
            bottom, top, key = one
            logsnr_t = bottom + (top - bottom) * share
            x_t = diffuse(x_0, rng.normal(key, x_0.shape), logsnr_t)
            error = mean_of_each(jnp.square(x_0 - x_0_of(denoise(x_t, logsnr_t))))
            trained = (low <= logsnr_t) & (logsnr_t <= high)
            return None, jnp.where(trained, error * jnp.exp(jax.nn.softplus(logsnr_t)), jnp.nan)

        bins = (jnp.array(self.edges[:-1]), jnp.array(self.edges[1:]))
        bodies = (*bins, rng.split(key_eps, len(self.edges) - 1))
        _, errors = jax.lax.scan(body, None, bodies)
        return dict(zip(self.names(), errors, strict=True))

    def names(self) -> list[str]:
        """The names of the bins, from noise to clean."""
        ends = zip(self.edges[:-1], self.edges[1:], strict=True)
        return [f"loss_logsnr_{low:g}_{high:g}" for low, high in ends]

    def missing(self, task: Denoising) -> list[str]:
        """The bins that the task's schedule does not reach; none for a learned schedule."""
        if task.learning.learned_schedule:
            return []
        low, high = (float(task.schedule(jnp.float32(u))) for u in (1.0, 0.0))
        ends = zip(self.names(), self.edges[:-1], self.edges[1:], strict=True)
        return [name for name, bottom, top in ends if top <= low or bottom >= high]


@dataclass(frozen=True)
class Bits:
    """The bound of infinitely many steps on -log2 p(x | conditions), per dimension.

    Kingma et al. 2021, eq. 17, from the noise end of the task's schedule up to each of `ends` in
    logsnr, where a Gaussian decodes the rest; `times` levels are drawn for each example, one in
    each equal slice. All are bounds, so the lowest holds. It ends early for a network that predicts
    x_0, whose error counts e^logsnr-fold. An end beyond that of the schedule is the schedule's.
    """

    ends: tuple[float, ...] = ENDS
    times: int = TIMES

    def __call__(self, task: Denoising, params: Params, batch: Columns, keys: PRNGKeys) -> Numbers:
        """`bits_per_dim_to_END` for each end; NaN if the end before it was that of the schedule."""
        column = batch[task.of]
        denoise, x_0 = denoiser_of(task, params, batch, keys), decoded(column)
        eight_bit = column.dtype == jnp.uint8

        def bits(end: Ends) -> PerExample:
            high = up_to(task, params, end)
            return bound_of(task, params, denoise, x_0, keys, high, self.times, eight_bit).total

        totals = jax.lax.map(bits, each_of(self.ends))
        return {f"{BITS}{end:g}": total for end, total in zip(self.ends, totals, strict=True)}


@dataclass(frozen=True)
class CascadeBits:
    """The bound of a whole cascade, in bits per dimension of the largest picture.

    -log p(x) <= the sum of the stages' bounds in nats, each given the true smaller picture; see
    `diffusion/likelihood/chain.py`. Small pictures are rounded to 8 bits, as in a PNG. The bound of
    each stage may have the end at which it is lowest.
    """

    ends: tuple[float, ...] = ENDS
    times: int = TIMES

    def __call__(
        self,
        task: tuple[Denoising, ...],
        params: tuple[Params, ...],
        batch: Columns,
        keys: PRNGKeys,
    ) -> Numbers:
        """`STAGE_bits_per_dim_to_END`: the share of each stage, for each end."""
        x = decoded(batch[task[-1].of])
        shrinks = [small_of(one) for one in task[1:]]

        def shares(end: Ends) -> tuple[PerExample, ...]:
            def nats_of(one: Denoising, own: Params) -> chain.StageNats:
                def nats(x_0: Data, low_res: Reshaped | None, keys: PRNGKeys) -> PerExample:
                    denoise = denoiser_of(one, own, {**batch, one.of: x_0}, keys, low_res)
                    high = up_to(one, own, end)
                    bound = bound_of(one, own, denoise, x_0, keys, high, self.times, True)
                    return to_nats(bound.total, x_0)

                return nats

            stages = list(map(nats_of, task, params))
            key = rng.stream(keys, "chain")
            return chain.cascade_bits_per_dim(stages, shrinks, x, key=key).stages

        found = jax.lax.map(shares, each_of(self.ends))
        return {
            f"{one.name}_{BITS}{end:g}": share
            for one, of_stage in zip(task, found, strict=True)
            for end, share in zip(self.ends, of_stage, strict=True)
        }


def lowest(numbers: Mapping[str, float], stage: str = "") -> tuple[float, float]:
    """The lowest of the bounds of `Bits`, or of a stage of `CascadeBits`, and its end.

    Both are NaN if no example has a bound, because the network's output is not finite.
    """
    prefix = f"{stage}_{BITS}" if stage else BITS
    found = [
        (value, float(name.removeprefix(prefix)))
        for name, value in numbers.items()
        if name.startswith(prefix)
    ]
    return min(found, default=(math.nan, math.nan))


def each_of(ends: tuple[float, ...]) -> Ends:
    """Each end with the end before it."""
    return jnp.array(ends), jnp.array((-jnp.inf, *ends[:-1]))


def up_to(task: Denoising, params: Params, end: Ends) -> Scalar:
    """The end of a bound: that of the schedule if it comes first, NaN if an earlier end had it."""
    _, high = ends_of(task, params)
    here, before = end
    return jnp.where(before < high, jnp.minimum(here, high), jnp.nan)


def denoiser_of(
    task: Denoising,
    params: Params,
    batch: Columns,
    keys: PRNGKeys,
    low_res: Reshaped | None = None,
) -> Denoiser:
    """The network as a denoiser with the conditions of sampling, without guidance.

    low_res: the smaller picture; None means the shrunk picture of the batch. A self-conditioned
    network gets no guess.
    """
    columns = dict(task.prompted(batch))
    if task.low_res:
        small = small_of(task)(decoded(batch[task.of]), keys).z if low_res is None else low_res
        columns["low_res"] = small
    told_keys = rng.stream(keys, "told")
    given = sampling.given_to(task, columns, told_keys, task.settings)
    return sampling.plain_denoiser(params, given, task)


def small_of(task: Denoising) -> chain.Shrink:
    """The picture of the stage before, rounded to 8 bits."""
    return chain.rounded(lambda x: shrink(x, task.factor))


def bound_of(
    task: Denoising,
    params: Params,
    denoise: Denoiser,
    x_0: Data,
    keys: PRNGKeys,
    high: Scalar,
    times: int,
    eight_bit: bool,
) -> Bound:
    """The continuous-time bound from the noise end of the schedule to `high`."""
    low, _ = ends_of(task, params)
    return vlb_continuous(
        denoise,
        x_0,
        key=rng.stream(keys, "bound"),
        logsnr_min=low,
        logsnr_max=high,
        num_times=times,
        eight_bit=eight_bit,
    )


def ends_of(task: Denoising, params: Params) -> tuple[Scalar, Scalar]:
    """The logsnr of pure noise and that of the clean end, as training visits them."""
    schedule = task.schedule_of(params)
    return schedule(jnp.float32(1.0)), schedule(jnp.float32(0.0))
