"""Optimisers and learning rates, by name."""

import functools
from typing import TypeAlias

import optax

Optimiser: TypeAlias = optax.GradientTransformation
Rate: TypeAlias = optax.Schedule

OPTIMISERS = ("adam", "adamw", "adafactor")
DECAYS = ("constant", "cosine", "cooldown")
COOLDOWN = 0.2  # of all steps


# Kept by value, so that equal options give the same object and share a compiled step.
@functools.lru_cache(maxsize=64)
def learning_rate(
    peak: float, *, warmup_steps: int, num_steps: int, decay: str = "constant"
) -> optax.Schedule:
    """0 -> peak over `warmup_steps`, then by `decay`.

    constant: the peak. cosine: half a cosine, 0 at `num_steps`. cooldown: the peak, and over the
    last fifth linearly down to 0 (Hägele et al. 2024, "Scaling Laws and Compute-Optimal Training
    Beyond Fixed Training Durations"): a run at a constant rate may be ended this way at any time.
    """
    warmup = optax.linear_schedule(0.0, peak, max(warmup_steps, 1))
    rest_steps = max(num_steps - warmup_steps, 1)
    cooldown_steps = min(round(COOLDOWN * num_steps), rest_steps)
    rest = {
        "constant": lambda: optax.constant_schedule(peak),
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
) -> optax.GradientTransformation:
    """Adam or Adafactor as Imagen used them (app. F); clip_norm 0 means no clipping."""
    tx = {
        "adam": lambda: optax.adam(rate, b1, b2, eps),
        "adamw": lambda: optax.adamw(rate, b1, b2, eps, weight_decay=weight_decay),
        "adafactor": lambda: optax.adafactor(rate),
    }[name]()
    return optax.chain(optax.clip_by_global_norm(clip_norm), tx) if clip_norm else tx
