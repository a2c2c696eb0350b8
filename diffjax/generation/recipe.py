"""What a picture was made of: prompt, seed, stages with their settings and checkpoints.

It goes into the picture's file and comes back from files of strangers, so every field is checked
on its way in. It holds no path and no name of a machine.
"""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffjax.core.json_types import JsonObject
from diffjax.images import png
from diffjax.tasks.settings import SampleSettings, fault, faults

FORMAT = 1
SAMPLE = "sample"
MAX_PROMPT_CHARACTERS = 10_000
MAX_SEED = 2**31 - 1
MAX_STAGES = 8
MAX_LABEL = 2**24
# What a picture says only where it is so.
OPTIONAL = ("label",)
FROM_A_FILE = "file"
# Settings that came after the first pictures were written; a picture without them has the defaults.
LATER = ("guidance_rescale", "guidance_from", "guidance_to")


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a stage's parameters come from.

    step: of the training, None if unknown. average: its name, or "file". checkpoint: the sha256
    of the parameters and of what the network is.
    """

    name: str
    size_px: int
    step: int | None
    average: str
    checkpoint: str


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that a picture depends on; the last of `stages` is the one that made it.

    negative: None for none. encoder: the sha256 of the text encoder, None where there is no text.
    made_with: the versions of "diffjax" and "jax" and the "platform", on which the last bits
    depend. label: the class; None for stages that are told none.
    """

    prompt: str
    seed: int
    stages: tuple[tuple[Origin, SampleSettings], ...]
    encoder: str | None
    made_with: Mapping[str, str]
    negative: str | None = None
    kind: str = SAMPLE
    label: int | None = None


def to_json(recipe: Recipe) -> dict[str, Any]:
    """As plain data; `from_json` gives the recipe back."""
    stages = [
        {**dataclasses.asdict(origin), "settings": settings_to_json(settings)}
        for origin, settings in recipe.stages
    ]
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
    }


def settings_to_json(settings: SampleSettings) -> JsonObject:
    """The settings; those that came later only where they say something."""
    usual = SampleSettings()
    return {
        name: value
        for name, value in dataclasses.asdict(settings).items()
        if name not in LATER or value != getattr(usual, name)
    }


def from_json(value: Any) -> Recipe:
    """The recipe of a picture that `diffjax.sample` made.

    Raises:
      ValueError: a field is missing, unknown, of another type or out of range; of another kind.
    """
    if isinstance(value, dict) and "kind" in value:
        only = f"{str(value['kind'])[:40]!r}, only pictures of diffjax.sample can be made again"
        _require(value["kind"] == SAMPLE, "kind", only)
    known = ("format", "kind", "prompt", "negative", "seed", "stages", "encoder", "made_with")
    fields = _fields(value, "metadata", known, OPTIONAL)
    _integer(fields["format"], "format", FORMAT, FORMAT)
    stages = fields["stages"]
    few = isinstance(stages, list) and 0 < len(stages) <= MAX_STAGES
    _require(few, "stages", f"want a list of 1 to {MAX_STAGES}")
    made_with = _fields(fields["made_with"], "made_with", ("diffjax", "jax", "platform"))
    negative, encoder, label = fields["negative"], fields["encoder"], fields.get("label")
    recipe = Recipe(
        prompt=_prompt(fields["prompt"], "prompt"),
        negative=None if negative is None else _prompt(negative, "negative"),
        seed=_integer(fields["seed"], "seed", 0, MAX_SEED),
        stages=tuple(_stage(stage, f"stages[{i}]") for i, stage in enumerate(stages)),
        encoder=None if encoder is None else _word(encoder, "encoder", "[0-9a-f]{64}"),
        label=None if label is None else _integer(label, "label", 0, MAX_LABEL),
        made_with={
            name: _word(made_with[name], f"made_with.{name}", r"[\w.+-]{1,40}")
            for name in made_with
        },
    )
    sizes = [origin.size_px for origin, _ in recipe.stages]
    growing = all(a < b for a, b in itertools.pairwise(sizes))
    _require(growing, "stages", f"sizes {sizes}, want them to grow")
    return recipe


def read(path: Path) -> Recipe:
    """The recipe that a picture of `diffjax.sample` holds; its pixels are not looked at.

    Raises:
      ValueError: it holds none, or one that is not as we write them or not of such a picture.
    """
    size, found = png.read_size(path), png.read_metadata(path)
    if found is None:
        raise ValueError(f"{path}: does not say what it was made of")
    recipe = from_json(found)
    side = recipe.stages[-1][0].size_px
    if size != (side, side):
        raise ValueError(f"{path}: is {size[0]} x {size[1]} px and says {side} x {side}")
    return recipe


def _stage(value: Any, where: str) -> tuple[Origin, SampleSettings]:
    fields = _fields(value, where, ("name", "size_px", "step", "average", "checkpoint", "settings"))
    step = fields["step"]
    origin = Origin(
        name=_word(fields["name"], f"{where}.name", r"[\w.-]{1,40}"),
        size_px=_integer(fields["size_px"], f"{where}.size_px", 1, 8192),
        step=None if step is None else _integer(step, f"{where}.step", 0, 2**53),
        average=_word(fields["average"], f"{where}.average", r"(?!.*\.safetensors$)[\w.-]{1,80}"),
        checkpoint=_word(fields["checkpoint"], f"{where}.checkpoint", "[0-9a-f]{64}"),
    )
    names = [field.name for field in dataclasses.fields(SampleSettings)]
    stated = fields["settings"]
    if isinstance(stated, dict):
        stated = {**{name: getattr(SampleSettings(), name) for name in LATER}, **stated}
    given = _fields(stated, f"{where}.settings", names)
    for name, setting in given.items():
        wrong = fault(name, setting) if _hashable(setting) else "want a word or a number"
        _require(not wrong, f"{where}.settings.{name}", wrong)
    like = SampleSettings()
    settings = SampleSettings(**{n: type(getattr(like, n))(x) for n, x in given.items()})
    for wrong in faults(settings).values():
        raise ValueError(f"{where}.settings: {wrong}")
    return origin, settings


def _fields(value: Any, where: str, names: Any, optional: Sequence[str] = ()) -> dict[str, Any]:
    """A JSON object with these fields, perhaps the optional ones, and no others."""
    _require(isinstance(value, dict), where, "want an object")
    missing = [name for name in names if name not in value]
    _require(not missing, where, f"lacks {', '.join(missing)}")
    more = [name for name in value if name not in names and name not in optional]
    _require(not more, where, f"want no more than {', '.join((*names, *optional))}")
    return value


def _prompt(value: Any, where: str) -> str:
    _require(isinstance(value, str), where, "want a text")
    wrong = prompt_fault(value)
    _require(not wrong, where, wrong)
    return value


def prompt_fault(prompt: str) -> str:
    """What is wrong with a prompt, or ""."""
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        return f"{len(prompt)} characters, at most {MAX_PROMPT_CHARACTERS}"
    try:
        prompt.encode()
    except UnicodeEncodeError:
        return "not valid Unicode"
    return ""


def _integer(value: Any, where: str, low: int, high: int) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    _require(whole, where, f"want {low}" if low == high else f"want a number from {low} to {high}")
    return value


def _word(value: Any, where: str, pattern: str) -> str:
    fits = isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII) is not None
    _require(fits, where, f"want a text like {pattern}")
    return value


def _hashable(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _require(holds: bool, where: str, what: str) -> None:
    if not holds:
        raise ValueError(f"{where}: {what}")
