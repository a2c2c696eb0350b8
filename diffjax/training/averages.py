"""Moving averages of the parameters, which have names such as "decay_0.9999" and "power_0.1".

decay_D: the exponential average with decay D, which warms up. power_S: the power-function average
with relative width S (Karras et al. 2023, "Analyzing and Improving the Training Dynamics of
Diffusion Models", sec. 3.1). From several of these, `diffjax.ema` makes other widths after
training.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffjax.training.profiles import WIDEST, gamma_of

# Step t, from 0 -> the weight of the parameters that step t makes; the old average has the rest.
WeightAt: TypeAlias = Callable[[Int[Array, "..."]], Float[Array, "..."]]
Averages: TypeAlias = Mapping[str, WeightAt]


def parse(names: Iterable[str]) -> dict[str, WeightAt]:
    """The averages of these names, in their order.

    Raises:
      ValueError: a name is neither decay_D with 0 <= D < 1 nor power_S with 0 < S <= 0.2886, or
        occurs twice.
    """
    averages: dict[str, WeightAt] = {}
    for name in names:
        if name in averages:
            raise ValueError(f"{name} is named twice")
        averages[name] = _parse(name)
    return averages


def width_of(name: str) -> float | None:
    """The relative width of a power-function average, by its name; None for other averages."""
    kind, value = _split(name)
    return value if kind == "power" and 0 < value <= WIDEST else None


def _split(name: str) -> tuple[str, float]:
    kind, _, text = name.partition("_")
    # the pattern is strict, because the name becomes the name of a folder
    return kind, float(text) if re.fullmatch(r"\d*\.?\d+(e-\d+)?", text) else math.nan


def _parse(name: str) -> WeightAt:
    kind, value = _split(name)
    if kind == "decay" and 0 <= value < 1:
        return decay(value)
    if kind == "power" and 0 < value <= WIDEST:
        return power(value)
    raise ValueError(
        f"{name} is not an average: want decay_D with 0 <= D < 1, as decay_0.9999, or power_S with "
        f"a relative width 0 < S <= {math.floor(WIDEST * 1e4) / 1e4}, as power_0.1"
    )


def decay(value: float) -> WeightAt:
    """1 - min(decay, (1 + t) / (10 + t)): the average forgets its random start."""
    # computed as the complement, since float32 resolves small numbers better than those near 1
    return lambda step: jnp.maximum(1.0 - value, 9.0 / (10.0 + step.astype(jnp.float32)))


def power(sigma_rel: float) -> WeightAt:
    """1 - (1 - 1 / n)^(gamma + 1), n = t + 1 steps made (Karras et al. 2023, sec. 3.1)."""
    exponent = gamma_of(sigma_rel) + 1

    def weight_at(step):
        # log1p and expm1, because float32 may not resolve 1 - 1 / n. At n = 1 the weight is 1.
        return -jnp.expm1(exponent * jnp.log1p(-1.0 / (step.astype(jnp.float32) + 1.0)))

    return weight_at


def step_towards(average: Any, params: Any, weight: Float[Array, ""]) -> Any:
    """average + weight (params - average) for every leaf, in the average's float32."""
    # not (1 - w) a + w p: float32 rounds 1 - w, and the two weights would not add up to 1
    return jax.tree.map(lambda a, p: a + weight * (p.astype(a.dtype) - a), average, params)
