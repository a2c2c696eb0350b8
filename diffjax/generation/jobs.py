"""Reads from flags which pictures to make, and how each stage is to be sampled."""

import argparse
import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path

from diffjax.core.errors import ConfigError, require
from diffjax.core.limits import MAX_SEED
from diffjax.generation import parse
from diffjax.tasks.conditions import Class
from diffjax.tasks.settings import CHOICES, SampleSettings, fault, faults

MAX_PICTURES = 100_000
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
NO_CLASS = "none"  # the value of --class for no class
# The flags of the sampling settings: the field of SampleSettings, its type and a help text.
SETTINGS = {
    "--steps": ("num_steps", int, "sampling steps"),
    "--guidance": ("guidance_weight", float, "guidance weight, 1 is off"),
    "--sampler": ("sampler", str, "sampler: " + ", ".join(CHOICES["sampler"])),
    "--noise": ("noise", float, "noise that a sampler adds: its gamma, eta or churn, 0 to 1"),
    "--spacing": ("spacing", str, "noise levels: " + ", ".join(CHOICES["spacing"])),
    "--threshold": ("threshold", str, "of x_0: " + ", ".join(CHOICES["threshold"])),
    "--percentile": ("percentile", float, "of the dynamic threshold, in percent"),
    "--guidance-rescale": ("guidance_rescale", float, "against over-exposure, 0 to 1; 0 is off"),
    "--guidance-from": ("guidance_from", float, "guidance is off at log SNRs below this"),
    "--guidance-to": ("guidance_to", float, "guidance is off at log SNRs above this"),
    "--aug-level": ("aug_level", float, "noise on the small picture, 0 to 1"),
}
# Those of commands that can load critics.
BY_CRITICS = {
    "--clip-guidance": ("clip_guidance", float, "guidance by --clip, for instance 1; 0 is off"),
    "--classifier-guidance": (
        "classifier_guidance",
        float,
        "guidance by a classifier of --guide-by, for instance 1; 0 is off",
    ),
}


@dataclasses.dataclass(frozen=True)
class Job:
    """A picture to be made.

    negative: the negative prompt, None for none. label: the class, or the number of classes for no
    class; None for stages without a class condition. also: further prompts of a composed picture,
    each with its weight beside `prompt`.
    """

    prompt: str
    seed: int
    negative: str | None = None
    label: int | None = None
    also: tuple[tuple[str, float], ...] = ()


def add_settings(flags: argparse.ArgumentParser, critics: bool = False) -> None:
    """Adds the flags of SETTINGS; each takes one value for all stages, or one per stage.

    critics: also those of BY_CRITICS.
    """
    for flag, (_, _, what) in (SETTINGS | (BY_CRITICS if critics else {})).items():
        flags.add_argument(flag, help=f"{what}; or one per stage, with commas")


def all_jobs(
    prompts: Sequence[str],
    seeds: Sequence[int],
    negative: str | None = None,
    labels: Sequence[int | None] = (None,),
    also: tuple[tuple[str, float], ...] = (),
) -> list[Job]:
    """A job for every prompt, class and seed; the seeds of a prompt follow each other.

    Raises:
      ConfigError: there are too many.
    """
    count = len(prompts) * len(labels) * len(seeds)
    require(count <= MAX_PICTURES, "--seeds", count, f"pictures in a run: at most {MAX_PICTURES}")
    return [
        Job(prompt, seed, negative, label, also)
        for prompt in prompts
        for label in labels
        for seed in seeds
    ]


def read_prompts(given: Sequence[str], file: Path | None) -> list[str]:
    """The prompts of the command line, then those of the file, one a line; blank lines are skipped.

    Raises:
      ConfigError: there is no such file, it is not UTF-8, or a prompt is too long or a picture.
    """
    prompts = [check_prompt("--prompt", prompt) for prompt in given]
    for prompt in prompts:
        is_picture = prompt.lower().endswith(PICTURES) and Path(prompt).is_file()
        what = "is a picture, where a prompt is meant; diffjax.edit changes pictures"
        require(not is_picture, "--prompt", prompt, what)
    if file:
        require(file.is_file(), "--prompts", str(file), "no such file")
        try:
            text = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ConfigError(
                "--prompts", str(file), f"is not UTF-8 at byte {error.start}"
            ) from None
        lines = [line.strip() for line in text.split("\n")]
        prompts += [check_prompt("--prompts", line) for line in lines if line]
    return prompts


def check_prompt(flag: str, prompt: str) -> str:
    """Returns the prompt.

    Raises:
      ConfigError: it is too long, or not valid Unicode.
    """
    wrong = parse.prompt_fault(prompt)
    require(not wrong, flag, prompt[:40], wrong)
    return prompt


def parse_seeds(text: str) -> list[int]:
    """The seeds of "3", "0,5" or "0-7", or of several of these with commas.

    Raises:
      ConfigError: the text has another form, or a number is not allowed.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        try:
            span = range(int(first), int(last if dash else first) + 1)
        except ValueError:
            span = range(0)
        require(
            0 < len(span) <= MAX_PICTURES and span[-1] <= MAX_SEED,
            "--seeds",
            text,
            f"numbers from 0 to {MAX_SEED}, as 3 or 0,5 or 0-7",
        )
        seeds += span
    return seeds


def parse_classes(text: str, classes: Class) -> list[int]:
    """The labels of classes by name or number, of "none", or of several such as "3,7" or "0-9".

    Raises:
      ConfigError: there is no such class; the message has the most similar names.
    """
    known = {name.casefold(): i for i, name in enumerate(classes.names)}
    known |= {NO_CLASS: classes.num} if classes.null else {}
    if text.strip().casefold() in known:  # a name may have commas
        return [known[text.strip().casefold()]]
    labels: list[int] = []
    for part in (part.strip().casefold() for part in text.split(",")):
        first, dash, last = part.partition("-")
        if part in known:
            labels.append(known[part])
            continue
        ends = (first, last) if dash else (first,)
        numbers = all(end.isdecimal() and len(end) < 10 for end in ends)
        span = range(int(first), int(last if dash else first) + 1) if numbers else range(0)
        close = difflib.get_close_matches(part, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        named = f"a name such as {classes.names[0]}, " if classes.names else ""
        allowed = f"{hint}a number from 0 to {classes.num - 1}"
        if classes.null:
            allowed = f"{allowed}, {named}or {NO_CLASS}"
        else:
            allowed = f"{allowed}{', or ' * bool(named)}{named.removesuffix(', ')}"
        require(bool(span) and span[-1] < classes.num, "--class", text[:80], allowed)
        labels += span
    return labels


def name_of(label: int, classes: Class) -> str:
    """The name of a class, or "class 7" if it has none."""
    if label == classes.num:
        return "no class"
    return classes.names[label] if label < len(classes.names) else f"class {label}"


def settings_of(
    flags: argparse.Namespace, defaults: Sequence[SampleSettings]
) -> list[SampleSettings]:
    """The settings of each stage: its defaults, changed by the flags.

    Raises:
      ConfigError: a value is not allowed, or the number of values is not that of the stages.
    """
    settings = list(defaults)
    every = SETTINGS | BY_CRITICS
    for flag, (name, kind, _) in every.items():
        text = getattr(flags, flag[2:].replace("-", "_"), None)
        if text is not None:
            values = per_stage(flag, name, text, kind, len(settings))
            settings = [
                dataclasses.replace(one, **{name: value})
                for one, value in zip(settings, values, strict=True)
            ]
    flag_of = {field: flag for flag, (field, _, _) in every.items()}
    for one in settings:
        for name, wrong in faults(one).items():
            raise ConfigError(flag_of[name], getattr(one, name), wrong)
    return settings


def per_stage(flag: str, name: str, text: str, kind: type, count: int) -> list:
    """A value of the setting `name` for each of `count` stages; `text` has one for all or each."""
    try:
        values = [kind(part.strip()) for part in text.split(",")]
    except ValueError:
        values = []
    wrong = next(filter(None, (fault(name, value) for value in values or [None])), "")
    if not wrong and len(values) not in (1, count):
        wrong = f"one value, or {count} with commas"
    require(not wrong, flag, text, wrong)
    return values * count if len(values) == 1 else values
