"""The noise of a config: its schedule, and how noise levels are drawn in training."""

import functools
import inspect

from ml_collections import ConfigDict

from diffjax.core.errors import require
from diffjax.core.types import Schedule
from diffjax.diffusion import schedule
from diffjax.diffusion.sampling.spacing import TABLE_STEPS
from diffjax.diffusion.table import TERMINAL_LOGSNR
from diffjax.diffusion.training.times import TIMES, Importance, TimeSampler, logit_normal

IMPORTANCE, LOGIT_NORMAL = "importance", "logit_normal"
# The schedules that are tables of steps.
ON_TABLES = ("linear", "quadratic", "discrete_cosine")
# The fewest steps of their chains, with betas below 1.
FEWEST = {"linear": 21, "quadratic": 13}
# The schedules whose ends, logsnr_min and logsnr_max, can be chosen.
WITH_ENDS = ("cosine", "sigmoid", "flow", "uniform", "edm")
# The schedules that come to noise alone if they are not cut off before; tables are rescaled so.
WITH_ZERO_SNR = ("linear", "quadratic", "discrete_cosine", "cosine", "sigmoid", "flow")


def schedule_of(config: ConfigDict) -> Schedule:
    """The noise schedule of the picture that is learned."""
    name, shift = config.diffusion.schedule, config.diffusion.shift
    low, high = config.diffusion.logsnr_min, config.diffusion.logsnr_max
    require(low < high, "diffusion.logsnr_min", low, f"must be below logsnr_max, {high}")
    require(shift > 0, "diffusion.shift", shift, "must be above 0; 1 is none")
    zero_snr = config.diffusion.zero_snr
    require(
        not zero_snr or name in WITH_ZERO_SNR,
        "diffusion.zero_snr",
        zero_snr,
        f"{name} ends where logsnr_min says; allowed with schedule {', '.join(WITH_ZERO_SNR)}",
    )
    if name not in WITH_ENDS:
        return schedule_named(name, shift, zero_snr=zero_snr, num_steps=num_steps_of(config))
    return schedule_named(name, shift, (TERMINAL_LOGSNR if zero_snr else low, high))


def num_steps_of(config: ConfigDict) -> int:
    """T of the schedule's table: `diffusion.num_levels` of a discrete chain, else 1000."""
    if not config.diffusion.discrete:
        return TABLE_STEPS
    name, count = config.diffusion.schedule, config.diffusion.num_levels
    allowed = f"needs a schedule with a table: {', '.join(ON_TABLES)}"
    require(name in ON_TABLES, "diffusion.discrete", True, f"{allowed}; here is {name}")
    fewest = FEWEST.get(name, 2)
    what = f"at least {fewest} for a discrete {name} chain, whose last beta is 20 / num_levels"
    require(count >= fewest, "diffusion.num_levels", count, what)
    return int(count)


@functools.lru_cache(maxsize=64)
def schedule_named(
    name: str,
    shift: float = 1.0,
    ends: tuple[float, float] | None = None,
    zero_snr: bool = False,
    num_steps: int = TABLE_STEPS,
) -> Schedule:
    """A cached schedule: equal values give the same object, so equal configs give equal tasks."""
    options: dict[str, float] = {}
    if ends is not None:
        options = dict(zip(("logsnr_min", "logsnr_max"), ends, strict=True))
    if zero_snr:
        options["zero_snr"] = True
    if num_steps != TABLE_STEPS:
        options["num_steps"] = num_steps
        usual = inspect.signature(schedule.SCHEDULES[name]).parameters
        # a chain of other steps has the same noise in all (Nichol & Dhariwal 2021)
        scaled = {key: TABLE_STEPS / num_steps * usual[key].default
                  for key in ("beta_min", "beta_max") if key in usual}  # fmt: skip
        options |= scaled
    made = schedule.SCHEDULES[name](**options)
    return made if shift == 1 else schedule.shifted(made, shift)


def times_of(config: ConfigDict) -> TimeSampler | Importance:
    """How noise levels are drawn; by importance, the bins of its history are `num_levels`."""
    name = config.diffusion.times
    if name == LOGIT_NORMAL:
        return logit_normal(config.diffusion.times_mean, config.diffusion.times_std)
    return Importance(config.diffusion.num_levels) if name == IMPORTANCE else TIMES[name]
