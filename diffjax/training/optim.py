"""Optimisers and learning rates, by name."""

import functools
import re
from typing import NamedTuple, TypeAlias

import optax
from jaxtyping import PyTree

from diffjax.core import trees

Optimiser: TypeAlias = optax.GradientTransformation
Rate: TypeAlias = optax.Schedule


class Group(NamedTuple):
    """Options of parameters whose paths match `pattern`; `rate` scales their learning rate."""

    pattern: str
    rate: float = 1.0
    weight_decay: float | None = None


OPTIMISERS = ("adam", "adamw", "adafactor")
DECAYS = ("constant", "cosine", "cooldown", "linear")
COOLDOWN = 0.2  # the share of all steps that a cooldown takes


# Cached, so that equal options give the same object, and equal runs share a compiled step.
@functools.lru_cache(maxsize=64)
def learning_rate(
    peak: float, *, warmup_steps: int, num_steps: int, decay: str = "constant"
) -> optax.Schedule:
    """A learning rate that rises from 0 to `peak` in `warmup_steps` and then follows `decay`.

    constant: stays at the peak. cosine: falls by half a cosine to 0 at `num_steps`. linear: falls
    straight to 0 there. cooldown: stays
    at the peak, and falls linearly to 0 over the last fifth of the steps, so that a run at a
    constant rate can be ended at any time (Hägele et al. 2024, "Scaling Laws and Compute-Optimal
    Training Beyond Fixed Training Durations").
    """
    warmup = optax.linear_schedule(0.0, peak, max(warmup_steps, 1))
    rest_steps = max(num_steps - warmup_steps, 1)
    cooldown_steps = min(round(COOLDOWN * num_steps), rest_steps)
    rest = {
        "constant": lambda: optax.constant_schedule(peak),
        "linear": lambda: optax.linear_schedule(peak, 0.0, rest_steps),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest_steps),
        "cooldown": lambda: optax.linear_schedule(
            peak, 0.0, max(cooldown_steps, 1), rest_steps - cooldown_steps
        ),
    }[decay]()
    return optax.join_schedules([warmup, rest], [warmup_steps])


@functools.lru_cache(maxsize=64)
def optimiser(
    name: str,
    rate: optax.Schedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
    groups: tuple[Group, ...] = (),
) -> optax.GradientTransformation:
    """Adam or Adafactor as Imagen used them (app. F).

    clip_norm: the largest norm of all gradients together; 0 means no clipping. groups: options of
    some parameters by path; the first group that matches counts.
    """
    make = functools.partial(_one, name, rate, b1=b1, b2=b2, eps=eps)
    tx = make(weight_decay=weight_decay)
    if groups:
        own = {
            group.pattern: make(
                scale=group.rate,
                weight_decay=weight_decay if group.weight_decay is None else group.weight_decay,
            )
            for group in groups
        }
        tx = optax.multi_transform({**own, "": tx}, functools.partial(labels, groups))
    return optax.chain(optax.clip_by_global_norm(clip_norm), tx) if clip_norm else tx


def labels(groups: tuple[Group, ...], params: PyTree) -> PyTree[str]:
    """For each parameter, the pattern of the first group that matches its whole path, or ""."""

    def label(path: str, leaf: object) -> str:
        found = (group.pattern for group in groups if re.fullmatch(group.pattern, path))
        return next(found, "")

    return trees.map_named(label, params)


def parse_group(text: str) -> Group:
    """Parses a group such as "PATTERN rate=0.1 weight_decay=0".

    Raises:
      ValueError: the text has another form or an option that does not exist.
    """
    pattern, *options = text.split()
    try:
        re.compile(pattern)
        values = {key: float(value) for key, _, value in (one.partition("=") for one in options)}
    except (re.error, ValueError) as error:
        raise ValueError(
            f"{text!r}: want PATTERN rate=NUMBER weight_decay=NUMBER: {error}"
        ) from None
    unknown = values.keys() - {"rate", "weight_decay"}
    if unknown or min(values.values(), default=0.0) < 0:
        raise ValueError(f"{text!r}: want rate and weight_decay alone, at least 0")
    return Group(pattern, values.get("rate", 1.0), values.get("weight_decay"))


def _one(
    name: str, rate: Rate, *, b1: float, b2: float, eps: float, weight_decay: float,
    scale: float = 1.0,
) -> Optimiser:  # fmt: skip
    own = rate if scale == 1 else lambda step: scale * rate(step)
    return {
        "adam": lambda: optax.adam(own, b1, b2, eps),
        "adamw": lambda: optax.adamw(own, b1, b2, eps, weight_decay=weight_decay),
        "adafactor": lambda: optax.adafactor(own),
    }[name]()
