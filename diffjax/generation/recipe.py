"""The recipe of a picture: its prompt and seed, and its stages with their settings and checkpoints.

A recipe is written into the picture's metadata; `parse.py` reads it. It holds no path and no name
of a machine.
"""

import dataclasses
from collections.abc import Mapping

from diffjax.core.json_types import Json, JsonObject
from diffjax.tasks.settings import SampleSettings

FORMAT = 1
SAMPLE = "sample"
MAX_ALSO = 4
MAX_CANDIDATES = 1_000
MAX_LORAS = 16
LORA_WEIGHT = (-10.0, 10.0)  # both ends are allowed
# What can tell a decoder the vector of its picture.
TELLERS = ("prior", "text", "picture")
# The fields of a stage beside its settings.
ORIGIN = ("name", "size_px", "step", "average", "checkpoint")
# Those of an origin that are origins of other networks, if there are any.
GUIDES = ("guide", "classifier")
FROM_A_FILE = "file"
# Settings that did not exist when the first pictures were written. If a picture lacks them, it has
# their defaults.
LATER = (
    "guidance_rescale", "guidance_from", "guidance_to", "clip_guidance", "classifier_guidance",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Lora:
    """A LoRA file that was merged into a stage. digest: its sha256. weight: how much it counts."""

    digest: str
    weight: float


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a stage's parameters come from.

    step: the training step, None if unknown. average: its name, or "file". checkpoint: the sha256
    of the parameters and of the network's config. guide: the origin of the weaker version that
    guidance moved away from; None for none. loras: the files that were merged into the parameters
    of `checkpoint`. classifier: that of a classifier whose gradient guided; None for none.
    """

    name: str
    size_px: int
    step: int | None
    average: str
    checkpoint: str
    guide: "Origin | None" = None
    loras: tuple[Lora, ...] = ()
    classifier: "Origin | None" = None

    def by(self, guide: "Origin") -> "Origin":
        """The same parameters, guided by these."""
        return dataclasses.replace(self, guide=guide)


@dataclasses.dataclass(frozen=True)
class Chosen:
    """How a picture was chosen among candidates that differ in their seeds alone.

    seed: the one that was asked for. of: the number of candidates. clip: the sha256 of the CLIP
    that scored them. score: the cosine of picture and prompt, the highest of all.
    """

    seed: int
    of: int
    clip: str
    score: float


@dataclasses.dataclass(frozen=True)
class Told:
    """What told a decoder the vector of the picture.

    by: one of TELLERS. clip: the sha256 of the CLIP of the vectors. prior: its origin and settings.
    picture: the sha256 of the pixels of a given one.
    """

    by: str
    clip: str
    prior: tuple[Origin, SampleSettings] | None = None
    picture: str | None = None


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that a picture depends on. The last of `stages` made it.

    negative: the negative prompt, if any. encoder: the sha256 of the text encoder, None without
    text. made_with: the versions of "diffjax" and "jax", and the "platform"; only the last bits
    depend on these. label: the class; None for stages without a class condition. chosen: how it was
    chosen among candidates; no pixel depends on it. clip: the sha256 of the CLIP that guided.
    told: what told a decoder the vector of the picture; None if nothing did.
    """

    prompt: str
    seed: int
    stages: tuple[tuple[Origin, SampleSettings], ...]
    encoder: str | None
    made_with: Mapping[str, str]
    negative: str | None = None
    kind: str = SAMPLE
    label: int | None = None
    also: tuple[tuple[str, float], ...] = ()
    chosen: Chosen | None = None
    clip: str | None = None
    told: Told | None = None


def to_json(recipe: Recipe) -> JsonObject:
    """The recipe as JSON; the inverse of `parse.from_json`."""
    stages: list[Json] = [_stage_to_json(*stage) for stage in recipe.stages]
    return {
        "format": FORMAT,
        "kind": recipe.kind,
        "prompt": recipe.prompt,
        "negative": recipe.negative,
        "seed": recipe.seed,
        "stages": stages,
        "encoder": recipe.encoder,
        "made_with": dict(recipe.made_with),
        **({} if recipe.label is None else {"label": recipe.label}),
        **({"also": [[prompt, share] for prompt, share in recipe.also]} if recipe.also else {}),
        **({} if recipe.chosen is None else {"chosen": dataclasses.asdict(recipe.chosen)}),
        **({} if recipe.clip is None else {"clip": recipe.clip}),
        **({} if recipe.told is None else {"told": _told_to_json(recipe.told)}),
    }


def _stage_to_json(origin: Origin, settings: SampleSettings) -> JsonObject:
    return {**origin_to_json(origin), "settings": settings_to_json(settings)}


def _told_to_json(told: Told) -> JsonObject:
    prior: JsonObject = {} if told.prior is None else {"prior": _stage_to_json(*told.prior)}
    picture: JsonObject = {} if told.picture is None else {"picture": told.picture}
    return {"by": told.by, "clip": told.clip, **prior, **picture}


def origin_to_json(origin: Origin) -> JsonObject:
    """The origin as JSON, with its guides and its LoRA files if there are any."""
    plain: JsonObject = {name: getattr(origin, name) for name in ORIGIN}
    if origin.loras:
        plain["loras"] = [[one.digest, one.weight] for one in origin.loras]
    guides = {name: getattr(origin, name) for name in GUIDES}
    return plain | {name: origin_to_json(one) for name, one in guides.items() if one is not None}


def settings_to_json(settings: SampleSettings) -> JsonObject:
    """The settings as JSON, without those of LATER that have their defaults."""
    usual = SampleSettings()
    return {
        name: value
        for name, value in dataclasses.asdict(settings).items()
        if name not in LATER or value != getattr(usual, name)
    }
