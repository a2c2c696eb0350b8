"""The pictures that the flags ask for, and the jobs that make them with given stages."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from diffjax.core.errors import require
from diffjax.generation import jobs
from diffjax.generation.chain import Cascade
from diffjax.generation.jobs import Job
from diffjax.generation.styles import styled
from diffjax.tasks.settings import SHARE, SampleSettings


class Wanted(NamedTuple):
    """What the flags ask for, as far as it can be checked before the stages are known.

    classes: as they were written. label: the default class, if any. also: further prompts of each
    picture, with their weights. as_written: prompts without a style get none.
    """

    prompts: Sequence[str]
    seeds: Sequence[int]
    negative: str | None = None
    classes: Sequence[str] = ()
    label: int | None = None
    also: tuple[tuple[str, float], ...] = ()
    as_written: bool = False


def jobs_of(wanted: Wanted, stages: Cascade) -> list[Job]:
    """The jobs for these stages.

    Raises:
      ConfigError: there is a prompt or a class but the stages take none, one is missing, or there
        is no such class.
    """
    known, name = stages.classes, stages.stages[0].task.name
    instead = "give --class" if known else "give --seeds alone"
    texts = {
        "--prompt": next(iter(wanted.prompts), None),
        "--negative": wanted.negative,
        "--and": wanted.also[0][0] if wanted.also else None,
    }
    for flag, text in texts.items():
        fits = stages.encoder is not None or text is None
        require(fits, flag, str(text)[:40], f"{name} takes no text: {instead}")
    first = next(iter(wanted.classes), None)
    require(first is None or known is not None, "--class", first, f"{name} takes no class")
    labels: list[int | None] = [None]
    if known is not None:
        found = [label for text in wanted.classes for label in jobs.parse_classes(text, known)]
        labels = [*found] or [known.num if wanted.label is None else wanted.label]
        told = bool(found or wanted.prompts or wanted.label is not None)
        told = told if known.null else bool(found or wanted.label is not None)
        none = f", or {jobs.NO_CLASS}" if known.null else ""
        require(told, "--class", "", f"give one: 0 to {known.num - 1}{none}")
    elif stages.encoder is not None:
        what = "give at least one prompt, or --prompts FILE, or --like"
        require(bool(wanted.prompts), "--prompt", "", what)
    prompts = wanted.prompts or [""]
    made = jobs.all_jobs(prompts, wanted.seeds, wanted.negative, labels, wanted.also)
    return made if wanted.as_written else styled(made, stages.styles)


def check_guidance(
    wanted: Wanted, settings: Sequence[SampleSettings], guides: Sequence[object]
) -> None:
    """Checks that the flags of guidance have an effect and can be combined.

    guides: for each stage the weaker version that guides it, or None.

    Raises:
      ConfigError: they have no effect or cannot be combined; names the flag.
    """
    no_effect = "has no effect without guidance; give --guidance above 1"
    guided = [one for one, guide in zip(settings, guides, strict=True) if guide is not None]
    weighed = lambda some: any(one.guidance_weight != 1 for one in some)  # noqa: E731
    require(wanted.negative is None or weighed(settings), "--negative", wanted.negative, no_effect)
    if guided:
        require(weighed(guided), "--guide-by", len(guided), no_effect)
        away = "--negative" if wanted.negative is not None else "--and" if wanted.also else ""
        require(not away, away, "", "cannot be said beside --guide-by, which guides instead")
    if wanted.also:
        rescaled = max(one.guidance_rescale for one in settings)
        what = "must be 0 beside --and: a sum of several guesses has no one deviation to keep"
        require(not rescaled, "--guidance-rescale", rescaled, what)


def parse_also(text: str) -> tuple[str, float]:
    """ "a PROMPT" or "a PROMPT:SHARE" as the prompt and its share, 1 if none is said.

    Raises:
      ConfigError: the prompt is blank or too long, or the share is out of range.
    """
    prompt, colon, end = text.rpartition(":")
    share = _number(end) if colon else None
    if share is None:
        prompt, share = text, 1.0
    low, high = SHARE
    require(low <= share <= high, "--and", text[:80], f"a share from {low:g} to {high:g}")
    require(bool(prompt.strip()), "--and", text[:80], "want a prompt, or PROMPT:SHARE")
    return jobs.check_prompt("--and", prompt), share


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
