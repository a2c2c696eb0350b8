"""The settings with which a denoising task is sampled, and the values that are allowed."""

import math
from dataclasses import dataclass, fields

from diffjax.diffusion.sampling.sampler import SAMPLERS, by_name
from diffjax.diffusion.sampling.spacing import ON_A_TABLE, SPACINGS

THRESHOLDS = ("dynamic", "static", "none")


@dataclass(frozen=True)
class SampleSettings:
    """How one stage is sampled.

    noise: gamma of ddpm, eta of ddim and dpmpp_2m_sde, churn of euler and heun. guidance_weight: 1
    is off. percentile: of the dynamic threshold, in percent. aug_level: the noise on the small
    picture, in u. guidance_rescale: phi against over-exposure (Lin et al. 2023), 0 is off.
    guidance_from, guidance_to: guidance is on between these log SNRs (Kynkäänniemi et al. 2024).
    clip_guidance: the scale of guidance by a CLIP, 0 is off (Nichol et al. 2022, sec. 2.4).
    classifier_guidance: that of guidance by a classifier (Dhariwal & Nichol 2021, sec. 4).
    """

    num_steps: int = 32
    sampler: str = "ddpm"
    spacing: str = "uniform"
    noise: float = 0.0
    guidance_weight: float = 1.0
    threshold: str = "dynamic"
    percentile: float = 99.5
    aug_level: float = 0.1
    guidance_rescale: float = 0.0
    guidance_from: float = -100.0
    guidance_to: float = 100.0
    clip_guidance: float = 0.0
    classifier_guidance: float = 0.0


# This table is used for configs, flags, the page and the metadata of pictures.
LIMITS: dict[str, tuple[float, float]] = {
    "num_steps": (1, 10_000),
    "noise": (0, 1),
    "guidance_weight": (0, 1_000),
    "percentile": (1, 100),
    "aug_level": (0, 1),
    "guidance_rescale": (0, 1),
    "guidance_from": (-100, 100),
    "guidance_to": (-100, 100),
    "clip_guidance": (0, 1_000),
    "classifier_guidance": (0, 1_000),
}
# How much a further prompt of a composed picture counts beside the first, which counts 1.
SHARE = (-10.0, 10.0)
CHOICES: dict[str, tuple[str, ...]] = {
    "sampler": tuple(SAMPLERS),
    "spacing": tuple(SPACINGS),
    "threshold": THRESHOLDS,
}


def fault(name: str, value: object) -> str:
    """If `value` is not allowed for the field `name`, a text that says what is; else ""."""
    if name in CHOICES:
        return "" if value in CHOICES[name] else f"allowed: {', '.join(CHOICES[name])}"
    low, high = LIMITS[name]
    whole = name == "num_steps"
    kinds = (int,) if whole else (int, float)
    what = "a whole number" if whole else "a number"
    if isinstance(value, bool) or not isinstance(value, kinds):
        return f"{what} from {low} to {high}"
    return "" if low <= value <= high and math.isfinite(value) else f"{what} from {low} to {high}"


def faults(settings: SampleSettings, table_steps: int = 10_000) -> dict[str, str]:
    """For each field with a wrong value, a text that says what is allowed; {} if all are right.

    table_steps: those of the schedule, see `spacing.table_steps`; the most there may be if it is
    not known.
    """
    found = {
        field.name: fault(field.name, getattr(settings, field.name)) for field in fields(settings)
    }
    found = {name: wrong for name, wrong in found.items() if wrong}
    if found:
        return found
    if settings.spacing in ON_A_TABLE and settings.num_steps > table_steps:
        return {"num_steps": f"at most {table_steps} with spacing {settings.spacing}"}
    if settings.guidance_from > settings.guidance_to:
        return {"guidance_from": f"at most guidance_to, {settings.guidance_to:g}"}
    try:
        by_name(settings.sampler, settings.noise)
    except ValueError as error:
        return {"noise": str(error)}
    return {}
