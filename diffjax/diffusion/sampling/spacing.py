"""Spacings: which noise levels a sampler visits, as rungs of log SNR from noise down to clean.

A first-order sampler evaluates the network once at each rung but the last, so `num_steps` is the
number of its evaluations and a ladder has `num_steps` + 1 rungs. The last is +inf, the clean
image: the answer is x_0_hat of the last evaluation, with no noise left in it. Drop it, or say
clean=False where that is an argument, for a ladder of finite noise (inversion, likelihood).
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffjax.core.types import Schedule
from diffjax.diffusion.table import Sections, Table, kept_steps

Rungs: TypeAlias = Float[Array, " n"]


def uniform(schedule: Schedule, num_steps: int, clean: bool = True) -> Rungs:
    """logsnr(1 - i / n), i = 0 .. n: uniform in u, the schedule's own pace.

    The schedule may be traced, hence learned. clean=False ends at logsnr(0) instead of +inf.
    """
    _check_steps(num_steps)
    return _ended(schedule(jnp.asarray(np.linspace(1, 0, num_steps + 1), jnp.float32)), clean)


def uniform_logsnr(schedule: Schedule, num_steps: int, clean: bool = True) -> Rungs:
    """logsnr_i straight from logsnr(1) to logsnr(0)  (Lu et al. 2022).

    Their lambda is logsnr / 2. As `uniform` otherwise; of the schedule only the ends count.
    """
    _check_steps(num_steps)
    ends = schedule(jnp.array([1.0, 0.0]))
    share = jnp.asarray(np.linspace(0, 1, num_steps + 1), jnp.float32)
    return _ended((1.0 - share) * ends[0] + share * ends[1], clean)


def karras(
    num_steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Rungs:
    """sigma_i = (max^(1/rho) + i / (n - 1) (min^(1/rho) - max^(1/rho)))^rho, i = 0 .. n - 1.

    Karras et al. 2022, eq. 5, and then sigma_n = 0: logsnr = -2 ln sigma. A single step is at
    sigma_max.
    """
    _check_steps(num_steps)
    if not (0 < sigma_min < sigma_max and rho > 0):
        raise ValueError(
            f"sigma_min={sigma_min}, sigma_max={sigma_max}, rho={rho}: "
            "allowed are 0 < sigma_min < sigma_max and rho > 0"
        )
    root = np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), num_steps)
    return _to_clean(-2 * rho * np.log(root))


def karras_of(schedule: Schedule, num_steps: int, rho: float = 7.0) -> Rungs:
    """`karras` between the schedule's own ends, sigma = e^(-logsnr / 2); not for a traced one."""
    noise, clean = _values(schedule, np.array([1.0, 0.0]))
    return karras(num_steps, np.exp(-clean / 2), np.exp(-noise / 2), rho)


def trailing(logsnrs: Table, num_steps: int) -> Rungs:
    """Steps round(T - i T / n) of 1 .. T, i = 0 .. n - 1  (Lin et al. 2023, table 2).

    Starts at T, where training has its noise: the spacing to use on a table.
    """
    steps = len(logsnrs)
    _check_steps(num_steps, steps)
    return at_steps(logsnrs, _nearest(steps - np.arange(num_steps) * steps / num_steps) - 1)


def leading(logsnrs: Table, num_steps: int) -> Rungs:
    """Steps 1 + i floor(T / n) of 1 .. T, i = n - 1 .. 0  (Lin et al. 2023, table 2).

    Never visits T unless n = T, so the first x_t handed to the network has more noise than it is
    told. For comparison with others' samplers; prefer `trailing`.
    """
    _check_steps(num_steps, len(logsnrs))
    return at_steps(logsnrs, np.arange(num_steps)[::-1] * (len(logsnrs) // num_steps))


def linspace(logsnrs: Table, num_steps: int) -> Rungs:
    """Steps round(linspace(T, 1, n)) of 1 .. T  (Lin et al. 2023, table 2)."""
    _check_steps(num_steps, len(logsnrs))
    return at_steps(logsnrs, _nearest(np.linspace(len(logsnrs) - 1, 0, num_steps)))


def leading_1(logsnrs: Table, num_steps: int) -> Rungs:
    """Steps 2 + i floor(T / n) of 1 .. T, i = n - 1 .. 0, and then step 1 instead of +inf.

    How Stable Diffusion samples with DDIM: diffusers' "leading" with steps_offset=1 and
    set_alpha_to_one=False. A little noise is left at the end. With n = T the step T comes twice.
    """
    steps = len(logsnrs)
    _check_steps(num_steps, steps)
    kept = 1 + np.arange(num_steps)[::-1] * (steps // num_steps)
    return at_steps(logsnrs, np.append(np.minimum(kept, steps - 1), 0))[:-1]


def leading_inner(logsnrs: Table, num_steps: int) -> Rungs:
    """Steps 2 + i floor(T / (n + 1)) of 1 .. T, i = n .. 1.

    diffusers' "leading" of DPM-Solver++ and UniPC with steps_offset=1. As `leading_1` if n = T.
    """
    steps = len(logsnrs)
    _check_steps(num_steps, steps)
    kept = 1 + np.arange(1, num_steps + 1)[::-1] * max(steps // (num_steps + 1), 1)
    return at_steps(logsnrs, np.minimum(kept, steps - 1))


def linspace_inner(logsnrs: Table, num_steps: int) -> Rungs:
    """Steps round(linspace(T, 1, n + 1)) of 1 .. T without the last.

    diffusers' "linspace" of DPM-Solver++ and UniPC. With n = T one step comes twice.
    """
    _check_steps(num_steps, len(logsnrs))
    return at_steps(logsnrs, _nearest(np.linspace(len(logsnrs) - 1, 0, num_steps + 1))[:-1])


def respaced(logsnrs: Table, sections: Sections) -> Rungs:
    """The steps that `table.kept_steps` keeps  (Nichol & Dhariwal 2021, sec. 4).

    The rungs of the chain whose betas are `table.respaced(betas, sections)`.
    """
    return at_steps(logsnrs, kept_steps(len(logsnrs), sections)[::-1])


def fifths(logsnrs: Table, num_steps: int = 27) -> Rungs:
    """10, 10, 3, 2 and 2 of 27 steps in the fifths of the table  (Nichol et al. 2022, app. B.2).

    Other numbers are shared out alike, with a step at least in each fifth; if there are too few
    steps or too many for that, they are `linspace`. The noisiest step is the last but two, as in
    GLIDE's code, if it is not kept already.
    """
    steps = len(logsnrs)
    _check_steps(num_steps, steps)
    ends = np.rint(np.cumsum(FIFTHS) * num_steps / sum(FIFTHS)).astype(int)
    counts = np.maximum(np.diff(ends, prepend=0), 1)
    while counts.sum() > num_steps:
        counts[np.argmax(counts)] -= 1
    if num_steps < len(FIFTHS) or counts.max() > steps // len(FIFTHS):
        return linspace(logsnrs, num_steps)
    kept = kept_steps(steps, counts.tolist())[::-1].copy()
    kept[0] = max(steps - 3, kept[1] + 1)
    return at_steps(logsnrs, kept)


def explicit(logsnrs: Sequence[float] | Float[np.ndarray, " k"], clean: bool = True) -> Rungs:
    """The given log SNRs, from noise up; +inf is put at the end unless it is there, or not clean.

    Raises:
      ValueError: names the index that does not rise, in float32, or is not finite before the end.
    """
    rungs = np.asarray(logsnrs, np.float32)
    if rungs.ndim != 1 or not rungs.size:
        raise ValueError(f"logsnrs of shape {rungs.shape}: a list of at least one")
    for i, rung in enumerate(rungs):
        if not (np.isfinite(rung) or (np.isposinf(rung) and 0 < i == rungs.size - 1)):
            raise ValueError(f"logsnrs[{i}]={rung}: must be finite, and may be +inf at the end")
        if i and not rung > rungs[i - 1]:
            raise ValueError(f"logsnrs[{i}]={rung}: must lie above logsnrs[{i - 1}]={rungs[i - 1]}")
    if clean and not np.isposinf(rungs[-1]):
        rungs = np.append(rungs, np.float32(np.inf))
    if rungs.size < 2:
        raise ValueError(f"logsnrs={logsnrs}: at least two rungs")
    return jnp.asarray(rungs)


def at_steps(logsnrs: Table, steps: Int[np.ndarray, " k"]) -> Rungs:
    """The rungs at these falling indices of a table, and then +inf."""
    return _to_clean(np.asarray(logsnrs, np.float64)[steps])


def on_grid(schedule: Schedule, num_steps: int = 0) -> Table:
    """The schedule's logsnr at u = i / (T - 1), i = 0 .. T - 1: a table for the spacings above.

    num_steps: T; 0 for `table_steps`.
    """
    return _values(schedule, np.linspace(0, 1, num_steps or table_steps(schedule)))


# The spacings made for tables read other schedules at so many steps, and can keep no more of them.
TABLE_STEPS = 1000


def table_steps(schedule: Schedule) -> int:
    """T of a schedule that is a table of T steps; TABLE_STEPS for others."""
    made = dict(getattr(schedule, "arguments", ()))
    return int(made.get("num_steps", TABLE_STEPS))


# The share of the steps in each fifth of a chain, the first of which has the least noise.
FIFTHS = (10, 10, 3, 2, 2)
ON_A_TABLE = (
    "trailing", "leading", "linspace", "leading_1", "leading_inner", "linspace_inner", "fifths"
)  # fmt: skip
# The spacings whose last rung is not the clean end.
NOT_CLEAN = ("leading_1",)
# The spacings that also take a traced schedule, such as a learned one.
TRACEABLE = ("uniform", "logsnr")
# By name for a schedule.
SPACINGS: dict[str, Callable[[Schedule, int], Rungs]] = {
    "uniform": uniform,
    "logsnr": uniform_logsnr,
    "karras": karras_of,
    "trailing": lambda schedule, num_steps: trailing(on_grid(schedule), num_steps),
    "leading": lambda schedule, num_steps: leading(on_grid(schedule), num_steps),
    "linspace": lambda schedule, num_steps: linspace(on_grid(schedule), num_steps),
    "leading_1": lambda schedule, num_steps: leading_1(on_grid(schedule), num_steps),
    "leading_inner": lambda schedule, num_steps: leading_inner(on_grid(schedule), num_steps),
    "linspace_inner": lambda schedule, num_steps: linspace_inner(on_grid(schedule), num_steps),
    "fifths": lambda schedule, num_steps: fifths(on_grid(schedule), num_steps),
}


def _values(schedule: Schedule, u: Table) -> Table:
    """The schedule's values as numbers, also while a caller is being traced."""
    with jax.ensure_compile_time_eval():
        return np.asarray(schedule(jnp.asarray(u, jnp.float32)), np.float64)


def _ended(rungs: Rungs, clean: bool) -> Rungs:
    return rungs.at[-1].set(jnp.inf) if clean else rungs


def _to_clean(logsnrs: Table) -> Rungs:
    return jnp.asarray(np.append(logsnrs, np.inf), jnp.float32)


def _nearest(places: Float[np.ndarray, " k"]) -> Int[np.ndarray, " k"]:
    return np.rint(places).astype(int)


def _check_steps(num_steps: int, most: int | None = None) -> None:
    if num_steps < 1 or (most is not None and num_steps > most):
        allowed = "at least 1" if most is None else f"between 1 and the table's {most}"
        raise ValueError(f"num_steps={num_steps}: {allowed}")
