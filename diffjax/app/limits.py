"""Checks the requests of the page's visitors.

A request may come from a program and not from the page's own controls, so every value is treated
as untrusted JSON. A refusal is a `Refused`, whose message is one line for the visitor.
"""

import dataclasses

from diffjax.app.values import first_seed, multiple, require, text, whole
from diffjax.generation.jobs import Job
from diffjax.tasks.conditions import Class

MAX_PICTURES = 4  # of a prompt or a class
MAX_OF_CLASSES = 16  # of several classes together
MAX_STEPS = 250
MAX_GUIDANCE = 30  # and the largest scale of guidance by a classifier
# Each new value of the guidance weight needs another compiled program, so there are few of them.
GUIDANCE_STEP = 0.5


@dataclasses.dataclass(frozen=True)
class Told:
    """What the models of a page are told, and what can be set.

    text: whether visitors write prompts. classes: those to choose from in place of prompts, None
    for none. weighed: whether there is classifier-free guidance. scaled: whether there is guidance
    by a classifier. must_scale: whether the classifier alone knows the classes. steps: the most.
    """

    text: bool = True
    classes: Class | None = None
    weighed: bool = True
    scaled: bool = False
    must_scale: bool = False
    steps: int = MAX_STEPS


TEXT = Told()


@dataclasses.dataclass(frozen=True)
class Wish:
    """The pictures that a visitor wants.

    guidance and steps are settings of the first stage; later stages keep their own. scale: of
    guidance by the classifier, at the stage that has one.
    """

    jobs: tuple[Job, ...]
    guidance: float
    steps: int
    scale: float = 0.0


def wish(
    prompt: object,
    negative: object = "",
    new_seed: object = False,
    seed: object = 0,
    guidance: object = 1,
    steps: object = 32,
    count: object = 1,
    scale: object = 0,
    *,
    told: Told = TEXT,
) -> Wish:
    """Checks a request; the arguments are in the order of the page's controls.

    prompt: or the list of the classes, by number, if the models are told classes. new_seed: draw
    the first seed at random in place of `seed`. Further pictures have the seeds that follow the
    first, and those of each class have the same ones. An empty negative prompt means that there is
    none.

    Raises:
      Refused: a value has the wrong type or is out of range.
    """
    wanted, labels = text("prompt", prompt) if told.text else "", _labels(prompt, told)
    require(bool(wanted) or not told.text, "prompt", "say what to draw")
    against = text("negative prompt", "" if negative is None else negative)
    require(not against or told.text, "negative prompt", "this model takes no text")
    num = whole("number of pictures", count, 1, MAX_PICTURES)
    many = f"{len(labels)} classes of {num} each are more than {MAX_OF_CLASSES}"
    require(len(labels) * num <= MAX_OF_CLASSES, "number of pictures", many)
    weight = _weight("guidance", guidance)
    require(told.weighed or weight == 1, "guidance", "this model has none, which is 1")
    by_classifier = _weight("classifier guidance", scale)
    require(told.scaled or not by_classifier, "classifier guidance", "there is no classifier")
    alone = "0 is off, and the classifier alone knows the classes"
    require(bool(by_classifier) or not told.must_scale, "classifier guidance", alone)
    require(
        not against or weight != 1, "negative prompt", "does nothing at guidance 1, which is off"
    )
    first = first_seed(new_seed, seed, num)
    return Wish(
        jobs=tuple(
            Job(wanted, first + i, against or None, label) for label in labels for i in range(num)
        ),
        guidance=weight,
        steps=whole("steps", steps, 1, told.steps),
        scale=by_classifier,
    )


def _labels(value: object, told: Told) -> tuple[int | None, ...]:
    """The classes of a list of their numbers; (None,) if the models are told none."""
    if told.text or told.classes is None:
        return (None,)
    last = told.classes.num - (not told.classes.null)
    require(isinstance(value, list) and bool(value), "class", "choose at least one")
    assert isinstance(value, list)
    require(len(value) <= MAX_OF_CLASSES, "class", f"at most {MAX_OF_CLASSES} at a time")
    labels = [whole("class", one, 0, last) for one in value]
    require(len(set(labels)) == len(labels), "class", "is chosen twice")
    return tuple(labels)


def _weight(name: str, value: object) -> float:
    return multiple(name, value, 0, MAX_GUIDANCE, GUIDANCE_STEP)
