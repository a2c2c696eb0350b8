"""Which times a batch is trained at: samplers (key, b) -> u, and the weight of each.

A loss is E over u ~ U(0, 1). Drawn from another density p, each example is weighted by 1 / p(u)
and the expectation stays what it was; only the variance changes. `logit_normal` alone has weights
of 1: there the density is meant to weight the loss.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffjax.core.types import PRNGKey


class Times(NamedTuple):
    """u in [0, 1], and the weight 1 / p(u) of each."""

    u: Float[Array, " b"]
    weight: Float[Array, " b"]


TimeSampler: TypeAlias = Callable[[PRNGKey, int], Times]


def uniform(key: PRNGKey, num: int) -> Times:
    """u_i ~ U(0, 1), each on its own."""
    return Times(jax.random.uniform(key, (num,)), jnp.ones(num))


def stratified(key: PRNGKey, num: int) -> Times:
    """u_i = (u_0 + i / b) mod 1, u_0 ~ U(0, 1)  (Kingma et al. 2021, app. I).

    Each u_i is uniform, and together they cover [0, 1] evenly: the variance over times all but
    vanishes.
    """
    u_0 = jax.random.uniform(key)
    return Times(jnp.mod(u_0 + jnp.arange(num) / num, 1.0), jnp.ones(num))


TIMES: dict[str, TimeSampler] = {"uniform": uniform, "stratified": stratified}


@dataclass(frozen=True)
class LogitNormal:
    """See `logit_normal`."""

    mean: float
    std: float

    def __call__(self, key: PRNGKey, num: int) -> Times:
        """u = 1 / (1 + exp(-(mean + std z))), and weights of 1."""
        z = jax.random.normal(key, (num,))
        return Times(jax.nn.sigmoid(self.mean + self.std * z), jnp.ones(num))


def logit_normal(mean: float = 0.0, std: float = 1.0) -> LogitNormal:
    """log(u / (1 - u)) ~ N(mean, std^2), each of weight 1  (Esser et al. 2024, sec. 3.1).

    So the loss counts a level by this density, which is the paper's way of weighting flows: most
    in the middle, where neither the data nor the noise is nearly known. A positive mean moves it
    towards noise. On the schedule `flow` u is the time t of the straight path, but for the ends
    that it leaves out. Samplers go down the schedule as it is.

    Raises:
      ValueError: names the argument.
    """
    if not (math.isfinite(mean) and 0 < std < math.inf):
        raise ValueError(f"mean={mean}, std={std}: both finite, and std above 0")
    return LogitNormal(mean, std)


def discrete(num_steps: int, times: TimeSampler = uniform) -> TimeSampler:
    """u in {1, ..., T} / T, T = num_steps: each draw of `times` goes up to the next of them.

    So E[weight f(u)] is the mean of f over the T steps, whatever `times` is.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps}: at least 1")

    def sampler(key: PRNGKey, num: int) -> Times:
        u, weight = times(key, num)
        return Times((bin_of(u, num_steps) + 1) / num_steps, weight)

    return sampler


def bin_of(u: Float[Array, " b"], num_bins: int) -> Int[Array, " b"]:
    """floor(u n), and n - 1 at u = 1: which of n equal bins of [0, 1] holds u."""
    return jnp.clip(jnp.floor(u * num_bins).astype(jnp.int32), 0, num_bins - 1)


class History(NamedTuple):
    """The last losses seen in each of n bins of u, as a ring; arrays, to be kept with the state."""

    losses: Float[Array, "n memory"]
    counts: Int[Array, " n"]


def empty_history(num_bins: int, memory: int = 10) -> History:
    """No loss seen yet. The paper keeps the last 10 of each of its T steps."""
    if num_bins < 1 or memory < 1:
        raise ValueError(f"num_bins={num_bins}, memory={memory}: at least 1 each")
    return History(jnp.zeros((num_bins, memory)), jnp.zeros(num_bins, jnp.int32))


def record(history: History, u: Float[Array, " b"], losses: Float[Array, " b"]) -> History:
    """The history with a batch's losses (per example, unweighted) entered at their times.

    A loss that is not finite is left out.
    """
    num_bins, memory = history.losses.shape
    losses = jax.lax.stop_gradient(losses)
    # a loss that is left out gets the number of a bin that does not exist
    which = jnp.where(jnp.isfinite(losses), bin_of(u, num_bins), num_bins)
    hits = which[:, None] == jnp.arange(num_bins)
    order = jnp.sum(jnp.cumsum(hits, axis=0) * hits, axis=1) - 1  # among those of its bin
    total = jnp.sum(hits, axis=0)
    # of more than `memory` losses in one bin only the last stay: no two go to the same place
    stays = total[which] - order <= memory
    row = jnp.where(stays, which, num_bins)
    slot = (history.counts[which] + order) % memory
    counts = history.counts + total
    # once full, only the place in the ring matters: a count that never overflows
    counts = jnp.where(counts < memory, counts, memory + counts % memory)
    return History(history.losses.at[row, slot].set(losses, mode="drop"), counts)


def importance(history: History, uniform_share: float = 0.001) -> TimeSampler:
    """p(u) proportional to sqrt(E[L^2]) of u's bin  (Nichol & Dhariwal 2021, sec. 3.3).

    Uniform until every bin is full. A small share of p is uniform, so that a bin that once had
    no loss is seen again and 1 / p stays below 1 / uniform_share.
    """
    if not 0 < uniform_share <= 1:
        raise ValueError(f"uniform_share={uniform_share}: above 0 and at most 1")

    def sampler(key: PRNGKey, num: int) -> Times:
        p = bin_probabilities(history, uniform_share)
        key_bin, key_u = jax.random.split(key)
        which = jax.random.categorical(key_bin, jnp.log(p), shape=(num,))
        u = (which + jax.random.uniform(key_u, (num,))) / p.shape[0]
        return Times(u, 1.0 / (p.shape[0] * p[which]))

    return sampler


@dataclass(frozen=True)
class Importance:
    """`importance`, for whoever keeps the history from step to step: values, not arrays.

    num_bins, memory: of the history. uniform_share: see `importance`.
    """

    num_bins: int
    memory: int = 10
    uniform_share: float = 0.001

    def first(self) -> History:
        """The history before the first step."""
        return empty_history(self.num_bins, self.memory)

    def given(self, history: History | None) -> TimeSampler:
        """The sampler of this history; `uniform` without one."""
        return uniform if history is None else importance(history, self.uniform_share)


def bin_probabilities(history: History, uniform_share: float) -> Float[Array, " n"]:
    """The probability of each bin: see `importance`."""
    num_bins, memory = history.losses.shape
    even = jnp.full(num_bins, 1.0 / num_bins)
    size = jnp.sqrt(jnp.mean(jnp.square(history.losses), axis=1))
    total = jnp.sum(size)
    shares = size / jnp.where(total > 0, total, 1.0)
    ready = jnp.all(history.counts >= memory) & (total > 0)
    return jnp.where(ready, (1.0 - uniform_share) * shares + uniform_share * even, even)
