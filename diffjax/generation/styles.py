"""Prompts without a style get one, where training saw the same things in several."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from diffjax.data.record import clean
from diffjax.generation.jobs import Job


def styled(jobs: Sequence[Job], styles: Mapping[str, str]) -> list[Job]:
    """The jobs with the prompts that are told to the network: those of `with_style`."""
    return [
        dataclasses.replace(job, prompt=with_style(job.prompt, job.seed, styles)) for job in jobs
    ]


def with_style(prompt: str, seed: int, styles: Mapping[str, str]) -> str:
    """The prompt in one of the styles, if it names none: the seeds take turns.

    A stage that has seen two drawings of everything makes of a prompt that fits both something in
    between. A blank prompt stays blank.

    styles: of each name what is said with it, with {} in the place of the prompt.
    """
    words = set(re.findall(r"\w+", prompt.casefold()))
    if not styles or not clean(prompt) or words & set(styles):
        return prompt
    return list(styles.values())[seed % len(styles)].replace("{}", prompt.strip())
