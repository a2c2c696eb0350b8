"""Discrete tables: T steps of beta and of log SNR, made in float64 NumPy and cast at the end.

Index i holds step i + 1 of a chain x_0 -> x_1 -> ... -> x_T, so tables run from clean to noise.
A float32 cumulative product of 1 - beta would lose the first steps, whose noise is small.
"""

from collections.abc import Sequence
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from diffjax.core.types import Schedule
from diffjax.diffusion.made import by_value

Table: TypeAlias = Float[np.ndarray, " T"]
# Which steps to keep: a count, a count for each of several sections, "10,15,20" or "ddim25".
Sections: TypeAlias = int | str | Sequence[int]

# The log SNR of a table where the signal is exactly zero, so that all stays finite. The signal's
# amplitude is then 3e-7; the step before lies near -20 in a thousand steps, well above.
TERMINAL_LOGSNR = -30.0


def linear_betas(beta_min: float = 1e-4, beta_max: float = 0.02, num_steps: int = 1000) -> Table:
    """beta_t linear in t from beta_min to beta_max  (Ho et al. 2020, sec. 4)."""
    _check_range(beta_min, beta_max, num_steps)
    return np.linspace(beta_min, beta_max, num_steps)


def quadratic_betas(
    beta_min: float = 0.00085, beta_max: float = 0.012, num_steps: int = 1000
) -> Table:
    """sqrt(beta_t) linear in t, known as scaled linear too  (Rombach et al. 2022).

    The defaults are those of Stable Diffusion.
    """
    _check_range(beta_min, beta_max, num_steps)
    return np.linspace(np.sqrt(beta_min), np.sqrt(beta_max), num_steps) ** 2


def cosine_betas(num_steps: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> Table:
    """beta_t = min(1 - f(t) / f(t - 1), 0.999), f(t) = cos^2((t/T + s) / (1 + s) pi/2).

    Nichol & Dhariwal 2021, eq. 17. The difference is taken as cos^2 a - cos^2 b =
    sin(b + a) sin(b - a), which keeps all digits of the first, small betas.
    """
    if num_steps < 2:
        raise ValueError(f"num_steps={num_steps}: at least 2")
    if not (s > 0 and 0 < max_beta < 1):
        raise ValueError(f"s={s}, max_beta={max_beta}: allowed are s > 0 and 0 < max_beta < 1")
    angle = (np.arange(num_steps + 1) / num_steps + s) / (1 + s) * np.pi / 2
    before, after = angle[:-1], angle[1:]
    betas = np.sin(after + before) * np.sin(after - before) / np.cos(before) ** 2
    return np.minimum(betas, max_beta)


def log_alpha_bar(betas: Table) -> Table:
    """log alpha_bar_t = sum over s <= t of log(1 - beta_s); -inf where a last beta is 1.

    Raises:
      ValueError: names the first beta outside (0, 1); the last alone may be 1.
    """
    betas = np.asarray(betas, np.float64)
    bad = ~((betas > 0) & (betas < 1))
    bad[-1] &= betas[-1] != 1
    if bad.any():
        i = int(np.argmax(bad))
        raise ValueError(f"betas[{i}]={betas[i]}: allowed are 0 < beta < 1, and 1 at the end")
    with np.errstate(divide="ignore"):
        return np.cumsum(np.log1p(-betas))


def logsnr_table(betas: Table) -> Table:
    """log(alpha_bar_t / (1 - alpha_bar_t)), alpha_bar_t = prod(1 - beta_s).

    A terminal SNR of zero reads TERMINAL_LOGSNR rather than -inf.
    """
    log_alpha = log_alpha_bar(betas)
    logsnrs = log_alpha - np.log(-np.expm1(log_alpha))
    if np.isneginf(logsnrs[-1]):
        logsnrs[-1] = TERMINAL_LOGSNR
    if not np.all(np.diff(logsnrs) < 0):
        raise ValueError(f"betas reach logsnr {logsnrs[-2]} before the floor {TERMINAL_LOGSNR}")
    return logsnrs


def zero_terminal_snr(betas: Table) -> Table:
    """betas of sqrt(alpha_bar)' = (a_t - a_T) a_1 / (a_1 - a_T), a = sqrt(alpha_bar).

    Lin et al. 2023, algorithm 1: a_1 stays, a_T becomes 0, so the last beta is 1. Sampling then
    starts from noise alone, and the network must predict v or x_0: from eps no x_0 follows there.
    """
    log_alpha = log_alpha_bar(betas)
    if len(log_alpha) < 2 or np.isneginf(log_alpha[-1]):
        return np.asarray(betas, np.float64)
    # (a_t - a_T) / (a_1 - a_T) with a_T taken out of both
    above = np.expm1((log_alpha - log_alpha[-1]) / 2)
    with np.errstate(divide="ignore"):
        return _betas(log_alpha[0] + 2 * np.log(above / above[0]))


def posterior_variances(betas: Table) -> Table:
    """beta~_t = beta_t (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)  (Ho et al. 2020, eq. 7).

    The first is 0: x_0 is known from x_0.
    """
    noise = -np.expm1(log_alpha_bar(betas))  # 1 - alpha_bar_t
    return np.asarray(betas) * np.append(0.0, noise[:-1]) / noise


def posterior_log_variances(betas: Table) -> Table:
    """log beta~_t, where the first, log 0, takes the second's value (Nichol & Dhariwal 2021).

    The last step's x_0 is decoded without noise, so its variance matters to the decoder alone.
    """
    if len(betas) < 2:
        raise ValueError(f"betas of {len(betas)} steps: at least 2, the first takes the second's")
    log_variances = np.log(posterior_variances(betas)[1:])
    return np.append(log_variances[0], log_variances)


def kept_steps(num_steps: int, sections: Sections) -> Int[np.ndarray, " k"]:
    """Rising indices of those of T steps that a shorter chain keeps  (Nichol & Dhariwal 2021).

    An int n, or "n": n steps spread evenly, the first and the last among them. A list or
    "10,15,20": T is cut into as many equal sections, and each is spread so. "ddim25": the fixed
    stride of DDIM (Song et al. 2021), from step 0, which never sees the last one.

    Raises:
      ValueError: names the sections; no such stride, or more steps than there are.
    """
    if isinstance(sections, str) and sections.startswith("ddim"):
        count = _count(sections.removeprefix("ddim"), sections)
        for stride in range(1, num_steps + 1):
            if len(range(0, num_steps, stride)) == count:
                return np.arange(0, num_steps, stride)
        raise ValueError(f"sections={sections!r}: no whole stride takes {count} of {num_steps}")
    if isinstance(sections, int):
        counts = [sections]
    elif isinstance(sections, str):
        counts = [_count(part, sections) for part in sections.split(",")]
    else:
        counts = list(sections)
    if not counts or len(counts) > num_steps:
        raise ValueError(f"sections={sections!r}: between 1 and {num_steps} sections")
    kept = []
    for section, count in zip(
        np.array_split(np.arange(num_steps), len(counts)), counts, strict=True
    ):
        if not 1 <= count <= len(section):
            raise ValueError(f"sections={sections!r}: {count} of a section of {len(section)} steps")
        kept.append(section[np.rint(np.linspace(0, len(section) - 1, count)).astype(int)])
    return np.concatenate(kept)


def respaced(betas: Table, sections: Sections) -> Float[np.ndarray, " k"]:
    """beta'_i = 1 - alpha_bar_{S_i} / alpha_bar_{S_{i-1}} on the kept steps S.

    Nichol & Dhariwal 2021, eq. 19: the shorter chain has the same noise at the steps it keeps.
    """
    return _betas(log_alpha_bar(betas)[kept_steps(len(betas), sections)])


@by_value
def discrete(logsnrs: Table) -> Schedule:
    """logsnr(u), through the table's step i at u = i / (T - 1) and straight between two steps.

    u = 0 is the first step, u = 1 the last.
    """
    if len(logsnrs) < 2:
        raise ValueError(f"logsnrs of {len(logsnrs)} steps: at least 2")
    last = len(logsnrs) - 1
    values, gaps = (x.astype(np.float32) for x in (logsnrs, np.diff(logsnrs)))

    def logsnr(u):
        place = jnp.asarray(u, jnp.float32) * last
        i = jnp.clip(place.astype(jnp.int32), 0, last - 1)
        return jnp.asarray(values)[i] + (place - i) * jnp.asarray(gaps)[i]

    return logsnr


@by_value
def staircase(logsnrs: Table) -> Schedule:
    """logsnr(u), the table's step floor(u T): of uniform u each of the T steps is equally likely.

    So training visits these steps alone, as that of a chain does (Ho et al. 2020, alg. 1).
    """
    values = np.asarray(logsnrs, np.float32)

    def logsnr(u):
        i = jnp.floor(jnp.asarray(u, jnp.float32) * len(values)).astype(jnp.int32)
        return jnp.asarray(values)[jnp.clip(i, 0, len(values) - 1)]

    return logsnr


@by_value
def steps_of(logsnrs: Table, scale: float = 1.0) -> Schedule:
    """scale i(logsnr), i the inverse of the table: i at its step i, and straight between two steps.

    Outside of the table it is the nearest end. For networks that are told the step of a chain.
    """
    rising = -np.asarray(logsnrs, np.float32)
    steps = np.float32(scale) * np.arange(len(rising), dtype=np.float32)
    return lambda logsnr: jnp.interp(-logsnr, jnp.asarray(rising), jnp.asarray(steps))


def _betas(log_alpha: Table) -> Table:
    """1 - alpha_bar_t / alpha_bar_{t-1}."""
    return -np.expm1(np.diff(log_alpha, prepend=0.0))


def _check_range(beta_min: float, beta_max: float, num_steps: int) -> None:
    if not 0 < beta_min <= beta_max < 1:
        raise ValueError(
            f"beta_min={beta_min}, beta_max={beta_max}: allowed are 0 < beta_min <= beta_max < 1"
        )
    if num_steps < 2:
        raise ValueError(f"num_steps={num_steps}: at least 2")


def _count(text: str, sections: str) -> int:
    if not text.strip().isdecimal():
        raise ValueError(f"sections={sections!r}: a count, counts as '10,15,20', or 'ddim25'")
    return int(text)
