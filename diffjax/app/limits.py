"""Checks the requests of the page's visitors.

A request may come from a program and not from the page's own controls, so every value is treated
as untrusted JSON. A refusal is a `Refused`, whose message is one line for the visitor.
"""

import dataclasses
import math
import secrets
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from diffjax.core.limits import MAX_SEED
from diffjax.generation import parse
from diffjax.generation.jobs import Job
from diffjax.images import read
from diffjax.tasks.conditions import Class

MAX_PICTURES = 4  # of a prompt or a class
MAX_OF_CLASSES = 16  # of several classes together
MAX_STEPS = 250
MAX_GUIDANCE = 30  # and the largest scale of guidance by a classifier
MAX_PIXELS = 16_000_000
MAX_LAYERS = 8
# Each new value of the guidance weight needs another compiled program, so there are few of them.
GUIDANCE_STEP = 0.5


class Refused(ValueError):
    """A request that is not allowed; the message is one line that tells the visitor why."""


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


@dataclasses.dataclass(frozen=True)
class Painting:
    """A picture, and a mask that is True where it is to be painted anew."""

    picture: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]


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
    wanted, labels = _prompt("prompt", prompt) if told.text else "", _labels(prompt, told)
    _require(bool(wanted) or not told.text, "prompt", "say what to draw")
    against = _prompt("negative prompt", "" if negative is None else negative)
    _require(not against or told.text, "negative prompt", "this model takes no text")
    num = _whole("number of pictures", count, 1, MAX_PICTURES)
    many = f"{len(labels)} classes of {num} each are more than {MAX_OF_CLASSES}"
    _require(len(labels) * num <= MAX_OF_CLASSES, "number of pictures", many)
    weight = _weight("guidance", guidance)
    _require(told.weighed or weight == 1, "guidance", "this model has none, which is 1")
    by_classifier = _weight("classifier guidance", scale)
    _require(told.scaled or not by_classifier, "classifier guidance", "there is no classifier")
    alone = "0 is off, and the classifier alone knows the classes"
    _require(bool(by_classifier) or not told.must_scale, "classifier guidance", alone)
    _require(
        not against or weight != 1, "negative prompt", "does nothing at guidance 1, which is off"
    )
    _require(isinstance(new_seed, bool), "new seed", "want true or false")
    last = MAX_SEED - num + 1
    first = secrets.randbelow(last + 1) if new_seed else _whole("seed", seed, 0, last)
    return Wish(
        jobs=tuple(
            Job(wanted, first + i, against or None, label) for label in labels for i in range(num)
        ),
        guidance=weight,
        steps=_whole("steps", steps, 1, told.steps),
        scale=by_classifier,
    )


def switch(name: str, value: object) -> bool:
    """Checks the value of a checkbox.

    Raises:
      Refused: it is neither true nor false.
    """
    if not isinstance(value, bool):
        raise Refused(f"{name}: want true or false")
    return value


def painting(value: object, folder: Path) -> Painting:
    """Reads what the page's editor sends: the files of a background and of layers painted over it.

    A pixel is painted anew if any layer is at least half opaque there. `folder` is where uploads
    are kept. The headers of all files are checked before any file is decoded.

    Raises:
      Refused: there is no picture, nothing is painted, or a file is from another folder, too large
        or not a picture.
    """
    layers = (value.get("layers") or []) if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(layers, list):
        raise Refused("picture: want what the page's editor sends")
    _require(value.get("background") is not None, "picture", "upload one, or take the last one")
    _require(len(layers) <= MAX_LAYERS, "picture", f"has more than {MAX_LAYERS} layers")
    paths = [_uploaded(file, folder) for file in (value["background"], *layers)]
    try:
        sizes = [read.read_size(path, MAX_PIXELS) for path in paths]
        height, width = sizes[0]
        same = all(size == sizes[0] for size in sizes)
        _require(same, "picture", f"is {width} x {height} px, and what is painted is not")
        picture = read.read(paths[0], MAX_PIXELS)
        mask = np.zeros((height, width), bool)
        for path in paths[1:]:
            mask |= _covered(path, (height, width))
    except Refused:
        raise
    except ValueError as error:  # of `images.read`: it begins with a path, which we do not show
        raise Refused(f"picture: {str(error).partition(': ')[2]}") from None
    _require(picture.shape[:2] == mask.shape, "picture", "is turned by its EXIF; upload it again")
    _require(bool(mask.any()), "picture", "paint over what is to be drawn anew")
    return Painting(picture, mask)


def _covered(path: Path, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Where a layer is at least half opaque; its header has been checked before."""
    try:
        with Image.open(path, formats=("PNG", "WEBP")) as layer:
            alpha = np.asarray(layer.convert("RGBA"))[..., 3]
    except Exception:  # Pillow's readers have no common base class of errors
        raise Refused("picture: a damaged layer; reload the page") from None
    _require(alpha.shape == shape, "picture", "has a layer of another size")
    return alpha > 127


def _uploaded(file: object, folder: Path) -> Path:
    """The path of an uploaded file, which must lie in `folder`."""
    given = file.get("path") if isinstance(file, dict) else None
    _require(isinstance(given, str) and "\0" not in given, "picture", "want an uploaded file")
    path = Path(str(given)).resolve()
    inside = path.is_relative_to(folder.resolve()) and path.is_file()
    _require(inside, "picture", "is no longer here; upload it again")
    return path


def _prompt(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise Refused(f"{name}: want a text")
    wrong = parse.prompt_fault(value)
    _require(not wrong, name, wrong)
    return value.strip()


def _labels(value: object, told: Told) -> tuple[int | None, ...]:
    """The classes of a list of their numbers; (None,) if the models are told none."""
    if told.text or told.classes is None:
        return (None,)
    last = told.classes.num - (not told.classes.null)
    _require(isinstance(value, list) and bool(value), "class", "choose at least one")
    assert isinstance(value, list)
    _require(len(value) <= MAX_OF_CLASSES, "class", f"at most {MAX_OF_CLASSES} at a time")
    labels = [_whole("class", one, 0, last) for one in value]
    _require(len(set(labels)) == len(labels), "class", "is chosen twice")
    return tuple(labels)


def _weight(name: str, value: object) -> float:
    weight = _number(name, value, 0, MAX_GUIDANCE)
    wrong = f"{weight:g} is not a multiple of {GUIDANCE_STEP}"
    _require((weight / GUIDANCE_STEP).is_integer(), name, wrong)
    return weight


def _whole(name: str, value: object, low: int, high: int) -> int:
    wrong = f"want a whole number from {low} to {high}"
    number = _finite(value)
    _require(number.is_integer() and low <= number <= high, name, wrong)
    return int(number)


def _number(name: str, value: object, low: float, high: float) -> float:
    number = _finite(value)
    _require(low <= number <= high, name, f"want a number from {low} to {high}")
    return number


def _finite(value: object) -> float:
    """The value if it is a finite number, else NaN, which lies in no range; a bool is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan


def _require(holds: bool, name: str, what: str) -> None:
    if not holds:
        raise Refused(f"{name}: {what}")
