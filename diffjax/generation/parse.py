"""Reads the recipe in a picture's metadata. It may be a stranger's, so every field is checked."""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path

from diffjax.core.limits import MAX_SEED
from diffjax.generation.fields import fields_of, require, whole_number, word
from diffjax.generation.recipe import (
    FORMAT,
    GUIDES,
    LATER,
    LORA_WEIGHT,
    MAX_ALSO,
    MAX_CANDIDATES,
    MAX_LORAS,
    ORIGIN,
    SAMPLE,
    TELLERS,
    Chosen,
    Lora,
    Origin,
    Recipe,
    Told,
)
from diffjax.images import png
from diffjax.tasks.settings import SHARE, SampleSettings, fault, faults

MAX_PROMPT_CHARACTERS = 10_000
MAX_STAGES = 8
MAX_LABEL = 2**24
# Fields that are there only if they have a value.
OPTIONAL = ("label", "also", "chosen", "clip", "told")


def from_json(value: object) -> Recipe:
    """The recipe of a picture that `diffjax.sample` made.

    Raises:
      ValueError: a field is missing, unknown, of the wrong type or out of range, or the picture is
        of another kind, such as an edited one.
    """
    if isinstance(value, dict) and "kind" in value:
        only = f"{str(value['kind'])[:40]!r}, only pictures of diffjax.sample can be made again"
        require(value["kind"] == SAMPLE, "kind", only)
    known = ("format", "kind", "prompt", "negative", "seed", "stages", "encoder", "made_with")
    fields = fields_of(value, "metadata", known, OPTIONAL)
    whole_number(fields["format"], "format", FORMAT, FORMAT)
    stages = fields["stages"]
    if not isinstance(stages, list) or not 0 < len(stages) <= MAX_STAGES:
        raise ValueError(f"stages: want a list of 1 to {MAX_STAGES}")
    made_with = fields_of(fields["made_with"], "made_with", ("diffjax", "jax", "platform"))
    negative, encoder, label = fields["negative"], fields["encoder"], fields.get("label")
    clip = fields.get("clip")
    recipe = Recipe(
        prompt=_prompt(fields["prompt"], "prompt"),
        negative=None if negative is None else _prompt(negative, "negative"),
        seed=whole_number(fields["seed"], "seed", 0, MAX_SEED),
        stages=tuple(_stage(stage, f"stages[{i}]") for i, stage in enumerate(stages)),
        encoder=None if encoder is None else word(encoder, "encoder", "[0-9a-f]{64}"),
        label=None if label is None else whole_number(label, "label", 0, MAX_LABEL),
        also=_also(fields.get("also", [])),
        chosen=None if fields.get("chosen") is None else _chosen(fields["chosen"]),
        clip=None if clip is None else word(clip, "clip", "[0-9a-f]{64}"),
        told=None if fields.get("told") is None else _told(fields["told"]),
        made_with={
            name: word(made_with[name], f"made_with.{name}", r"[\w.+-]{1,40}") for name in made_with
        },
    )
    said = recipe.prompt or recipe.negative is not None or recipe.also
    what = "want a text like [0-9a-f]{64}, as there is a prompt"
    require(recipe.encoder is not None or not said, "encoder", what)
    guided = any(settings.clip_guidance for _, settings in recipe.stages)
    require(guided == (recipe.clip is not None), "clip", "want one if and only if one guided")
    sizes = [origin.size_px for origin, _ in recipe.stages]
    growing = all(a < b for a, b in itertools.pairwise(sizes))
    require(growing, "stages", f"sizes {sizes}, want them to grow")
    return recipe


def read(path: Path) -> Recipe:
    """The recipe in the metadata of a picture of `diffjax.sample`; the pixels are not read.

    Raises:
      ValueError: there is no recipe, it is damaged, or it does not fit the size of the picture.
    """
    size, found = png.read_size(path), png.read_metadata(path)
    if found is None:
        raise ValueError(f"{path}: its metadata do not say what it was made of")
    recipe = from_json(found)
    side = recipe.stages[-1][0].size_px
    if size != (side, side):
        raise ValueError(f"{path}: is {size[0]} x {size[1]} px and says {side} x {side}")
    return recipe


def _stage(value: object, where: str, least_px: int = 1) -> tuple[Origin, SampleSettings]:
    """A stage; a prior makes no pictures, so least_px is 0 for it."""
    fields = fields_of(value, where, (*ORIGIN, "settings"), (*GUIDES, "loras"))
    guide, classifier = (
        None
        if fields.get(name) is None
        else _origin(fields_of(fields[name], f"{where}.{name}", ORIGIN), f"{where}.{name}")
        for name in GUIDES
    )
    origin = dataclasses.replace(
        _origin(fields, where, least_px),
        loras=_loras(fields, where),
        guide=guide,
        classifier=classifier,
    )
    names = [field.name for field in dataclasses.fields(SampleSettings)]
    stated = fields["settings"]
    if isinstance(stated, dict):
        stated = {**{name: getattr(SampleSettings(), name) for name in LATER}, **stated}
    given = fields_of(stated, f"{where}.settings", names)
    for name, setting in given.items():
        plain = isinstance(setting, str | int | float)
        wrong = fault(name, setting) if plain else "want a word or a number"
        require(not wrong, f"{where}.settings.{name}", wrong)
    like = SampleSettings()
    settings = SampleSettings(**{n: type(getattr(like, n))(x) for n, x in given.items()})
    for wrong in faults(settings).values():
        raise ValueError(f"{where}.settings: {wrong}")
    fits = bool(settings.classifier_guidance) == (origin.classifier is not None)
    require(fits, f"{where}.classifier", "want one if and only if one guided")
    return origin, settings


def _origin(fields: Mapping[str, object], where: str, least_px: int = 1) -> Origin:
    step = fields["step"]
    return Origin(
        name=word(fields["name"], f"{where}.name", r"[\w.-]{1,40}"),
        size_px=whole_number(fields["size_px"], f"{where}.size_px", least_px, 8192),
        step=None if step is None else whole_number(step, f"{where}.step", 0, 2**53),
        average=word(fields["average"], f"{where}.average", r"(?!.*\.safetensors$)[\w.-]{1,80}"),
        checkpoint=word(fields["checkpoint"], f"{where}.checkpoint", "[0-9a-f]{64}"),
    )


def _loras(fields: Mapping[str, object], where: str) -> tuple[Lora, ...]:
    found = fields.get("loras", [])
    if not isinstance(found, list) or len(found) > MAX_LORAS:
        raise ValueError(f"{where}.loras: want a list of at most {MAX_LORAS}")
    pairs = all(isinstance(pair, list) and len(pair) == 2 for pair in found)
    require(pairs, f"{where}.loras", "want pairs of a sha256 and a weight")
    low, high = LORA_WEIGHT
    for _, weight in found:
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        wrong = f"want weights from {low:g} to {high:g}"
        require(number and low <= weight <= high, f"{where}.loras", wrong)
    pattern = "[0-9a-f]{64}"
    return tuple(Lora(word(name, f"{where}.loras", pattern), float(x)) for name, x in found)


def _also(value: object) -> tuple[tuple[str, float], ...]:
    """The further prompts of a composed picture with their shares."""
    if not isinstance(value, list) or len(value) > MAX_ALSO:
        raise ValueError(f"also: want a list of at most {MAX_ALSO}")
    pairs = all(isinstance(pair, list) and len(pair) == 2 for pair in value)
    require(pairs, "also", "want pairs of a prompt and a share")
    low, high = SHARE
    for _, share in value:
        number = isinstance(share, int | float) and not isinstance(share, bool)
        wrong = f"want shares from {low:g} to {high:g}"
        require(number and low <= share <= high, "also", wrong)
    return tuple((_prompt(prompt, "also"), float(share)) for prompt, share in value)


def _chosen(value: object) -> Chosen:
    fields = fields_of(value, "chosen", [field.name for field in dataclasses.fields(Chosen)])
    score = fields["score"]
    if isinstance(score, bool) or not isinstance(score, int | float) or not -1 <= score <= 1:
        raise ValueError("chosen.score: want a number from -1 to 1")
    return Chosen(
        seed=whole_number(fields["seed"], "chosen.seed", 0, MAX_SEED),
        of=whole_number(fields["of"], "chosen.of", 2, MAX_CANDIDATES),
        clip=word(fields["clip"], "chosen.clip", "[0-9a-f]{64}"),
        score=float(score),
    )


def _told(value: object) -> Told:
    fields = fields_of(value, "told", ("by", "clip"), ("prior", "picture"))
    by, clip = fields["by"], word(fields["clip"], "told.clip", "[0-9a-f]{64}")
    require(isinstance(by, str) and by in TELLERS, "told.by", f"want one of {', '.join(TELLERS)}")
    prior, picture = fields.get("prior"), fields.get("picture")
    for name, part in (("prior", prior), ("picture", picture)):
        require((part is not None) == (by == name), f"told.{name}", f"want one if by is {name}")
    digest = None if picture is None else word(picture, "told.picture", "[0-9a-f]{64}")
    made = None if prior is None else _stage(prior, "told.prior", least_px=0)
    return Told(str(by), clip, made, digest)


def _prompt(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: want a text")
    wrong = prompt_fault(value)
    require(not wrong, where, wrong)
    return value


def prompt_fault(prompt: str) -> str:
    """What is wrong with a prompt, or "" if nothing is."""
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        return f"{len(prompt)} characters, at most {MAX_PROMPT_CHARACTERS}"
    try:
        prompt.encode()
    except UnicodeEncodeError:
        return "not valid Unicode"
    return ""
