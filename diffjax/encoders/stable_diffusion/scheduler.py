"""scheduler_config.json of diffusers: the noise, what the network predicts, and how it is sampled.

What a sampler of diffusers is called here, and which of its spacings is which, is in `of_config`.
"""

from dataclasses import dataclass
from pathlib import Path

from diffjax.core.json_types import Json, JsonObject
from diffjax.core.types import Schedule
from diffjax.diffusion import schedule

# What diffusers calls the kinds of predictions.
KINDS = {"epsilon": "eps", "v_prediction": "v", "sample": "x_0"}
# The sampler for a class of diffusers and its noise.
SAMPLERS = {
    "DDIMScheduler": ("ddim", 0.0),
    "PNDMScheduler": ("pndm", 0.0),
    "DDPMScheduler": ("ddpm", 0.0),
    "EulerDiscreteScheduler": ("euler", 0.0),
    "EulerAncestralDiscreteScheduler": ("ddim", 1.0),
    "HeunDiscreteScheduler": ("heun", 0.0),
    "DPMSolverMultistepScheduler": ("dpmpp_2m", 0.0),
    "DPMSolverSinglestepScheduler": ("dpmpp_2s", 0.0),
    "UniPCMultistepScheduler": ("unipc", 0.0),
}
# Classes whose steps lie inside of n + 1 others, and whose default is linspace.
INNER = ("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler")
LINSPACE = (*INNER, "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
            "HeunDiscreteScheduler")  # fmt: skip
STEPS = 1000


@dataclass(frozen=True)
class Scheduler:
    """Of Stable Diffusion 1 by default. betas: "quadratic" is diffusers' "scaled_linear".

    predict: what the network predicts. sampler, noise, spacing: how it is sampled.
    """

    betas: str = "quadratic"
    beta_min: float = 0.00085
    beta_max: float = 0.012
    zero_snr: bool = False
    predict: str = "eps"
    sampler: str = "ddim"
    noise: float = 0.0
    spacing: str = "leading_1"

    def schedule(self) -> Schedule:
        """The noise schedule, of 1000 steps."""
        if self.betas == "discrete_cosine":
            return schedule.discrete_cosine(STEPS, zero_snr=self.zero_snr)
        make = {"quadratic": schedule.quadratic, "linear": schedule.linear}[self.betas]
        return make(self.beta_min, self.beta_max, STEPS, self.zero_snr)


def of_config(config: JsonObject, file: Path) -> Scheduler:
    """The settings of a scheduler_config.json. A class that is not in SAMPLERS becomes DDIM.

    Raises:
      ValueError: a value is not allowed; one line that names it.
    """
    names = {"scaled_linear": "quadratic", "linear": "linear", "squaredcos_cap_v2":
             "discrete_cosine"}  # fmt: skip
    betas = _one_of(config, "beta_schedule", "linear", names, file)
    predict = _one_of(config, "prediction_type", "epsilon", KINDS, file)
    for name, wanted in (("num_train_timesteps", STEPS), ("trained_betas", None)):
        if config.get(name, wanted) != wanted:
            raise ValueError(f"{file}: {name} is {str(config[name])[:40]}, want {wanted}")
    low, high = (_number(config.get(f"beta_{end}", usual), f"beta_{end}", file)
                 for end, usual in (("start", 1e-4), ("end", 0.02)))  # fmt: skip
    if not low <= high:
        raise ValueError(f"{file}: beta_start {low} is above beta_end {high}")
    kind = str(config.get("_class_name"))
    zero_snr = config.get("rescale_betas_zero_snr", False) is True
    sampler, noise = SAMPLERS.get(kind, ("ddim", 0.0))
    if zero_snr and sampler == "pndm":  # which takes means of noise, and there is nothing else
        sampler = "ddim"
    return Scheduler(
        betas=betas,
        beta_min=low,
        beta_max=high,
        zero_snr=zero_snr,
        predict=predict,
        sampler=sampler,
        noise=noise,
        spacing=spacing_of(config, kind, file),
    )


def spacing_of(config: JsonObject, kind: str, file: Path) -> str:
    """The name of a spacing; where diffusers leaves noise at the end, `leading_1` alone does."""
    if config.get("use_karras_sigmas") is True:
        return "karras"
    usual = "linspace" if kind in LINSPACE else "leading"
    known = {name: name for name in ("leading", "linspace", "trailing")}
    found = _one_of(config, "timestep_spacing", usual, known, file)
    if kind in INNER and found != "trailing":
        return f"{found}_inner"
    moved = config.get("steps_offset", 0) == 1 and kind not in LINSPACE
    return "leading_1" if found == "leading" and moved else found


def config_of(one: Scheduler) -> JsonObject:
    """The scheduler_config.json of DDIM."""
    theirs = {"quadratic": "scaled_linear", "linear": "linear", "discrete_cosine":
              "squaredcos_cap_v2"}  # fmt: skip
    return {
        "_class_name": "DDIMScheduler",
        "beta_schedule": theirs[one.betas],
        "beta_start": one.beta_min,
        "beta_end": one.beta_max,
        "num_train_timesteps": STEPS,
        "prediction_type": {ours: name for name, ours in KINDS.items()}[one.predict],
        "rescale_betas_zero_snr": one.zero_snr,
        "timestep_spacing": "trailing" if one.zero_snr else "leading",
        "steps_offset": 1,
        "set_alpha_to_one": False,
        "clip_sample": False,
        "trained_betas": None,
    }


def _one_of(
    config: JsonObject, name: str, default: str, allowed: dict[str, str], file: Path
) -> str:
    value = config.get(name, default)
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{file}: {name} is {str(value)[:40]!r}, want one of {', '.join(allowed)}")
    return allowed[value]


def _number(value: Json, name: str, file: Path) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1:
        raise ValueError(f"{file}: {name} is {value!r}, want a number between 0 and 1")
    return float(value)
