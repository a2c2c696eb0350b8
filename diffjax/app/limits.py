"""What a visitor may ask for, checked here whatever the page's own controls let through.

Values come as JSON has them, from anyone. Every refusal is a `Refused` of one line for the visitor.
"""

import dataclasses
import math
import secrets
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from diffjax.generation import recipe
from diffjax.generation.jobs import Job
from diffjax.images import read

MAX_PICTURES = 4
MAX_STEPS = 250
MAX_GUIDANCE = 30
MAX_PIXELS = 16_000_000
MAX_LAYERS = 8
# Each other value is another program, which has to be compiled.
GUIDANCE_STEP = 0.5


class Refused(ValueError):
    """One line that tells a visitor what was asked for and what is allowed."""


@dataclasses.dataclass(frozen=True)
class Wish:
    """Pictures to be made. guidance and steps are those of the first stage."""

    jobs: tuple[Job, ...]
    guidance: float
    steps: int


@dataclasses.dataclass(frozen=True)
class Painting:
    """A picture and where it is to be painted anew."""

    picture: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]


def wish(
    prompt: Any,
    negative: Any = "",
    new_seed: Any = False,
    seed: Any = 0,
    guidance: Any = 1,
    steps: Any = 32,
    count: Any = 1,
) -> Wish:
    """What is asked for, in the order of the page's controls.

    new_seed: draw one in place of `seed`; further pictures have the seeds after it. An empty
    negative prompt is none.

    Raises:
      Refused: a value of another type or out of range.
    """
    prompt = _prompt("prompt", prompt)
    _require(bool(prompt), "prompt", "say what to draw")
    against = _prompt("negative prompt", "" if negative is None else negative)
    num = _whole("number of pictures", count, 1, MAX_PICTURES)
    weight = _number("guidance", guidance, 0, MAX_GUIDANCE)
    _require(
        (weight / GUIDANCE_STEP).is_integer(),
        "guidance",
        f"{weight:g} is no step of {GUIDANCE_STEP}",
    )
    _require(
        not against or weight != 1, "negative prompt", "does nothing at guidance 1, which is off"
    )
    _require(isinstance(new_seed, bool), "new seed", "want true or false")
    last = recipe.MAX_SEED - num + 1
    first = secrets.randbelow(last + 1) if new_seed else _whole("seed", seed, 0, last)
    return Wish(
        jobs=tuple(Job(prompt, first + i, against or None) for i in range(num)),
        guidance=weight,
        steps=_whole("steps", steps, 1, MAX_STEPS),
    )


def painting(value: Any, folder: Path) -> Painting:
    """What the editor of the page sends: files of a background and of layers painted over it.

    Painted anew is what any layer covers by half or more. `folder` is the one that uploads go to;
    headers are looked at before anything is decoded.

    Raises:
      Refused: no picture, none painted, a file from elsewhere, too large, or no picture at all.
    """
    known = isinstance(value, dict) and isinstance(value.get("layers") or [], list)
    _require(known, "picture", "want what the page's editor sends")
    _require(value.get("background") is not None, "picture", "upload one, or take the last one")
    layers = value.get("layers") or []
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
    except ValueError as error:  # of `pictures`, and begins with a path, which is ours
        raise Refused(f"picture: {str(error).partition(': ')[2]}") from None
    _require(picture.shape[:2] == mask.shape, "picture", "is turned by its EXIF; upload it again")
    _require(bool(mask.any()), "picture", "paint over what is to be drawn anew")
    return Painting(picture, mask)


def _covered(path: Path, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Where a layer, whose header has been looked at, is not more transparent than opaque."""
    try:
        with Image.open(path, formats=("PNG", "WEBP")) as layer:
            alpha = np.asarray(layer.convert("RGBA"))[..., 3]
    except Exception:  # Pillow's readers share no base
        raise Refused("picture: a damaged layer; reload the page") from None
    _require(alpha.shape == shape, "picture", "has a layer of another size")
    return alpha > 127


def _uploaded(file: Any, folder: Path) -> Path:
    """The path of a file that was uploaded, and lies in `folder`."""
    given = file.get("path") if isinstance(file, dict) else None
    _require(isinstance(given, str) and "\0" not in given, "picture", "want an uploaded file")
    path = Path(str(given)).resolve()
    inside = path.is_relative_to(folder.resolve()) and path.is_file()
    _require(inside, "picture", "is no longer here; upload it again")
    return path


def _prompt(name: str, value: Any) -> str:
    _require(isinstance(value, str), name, "want a text")
    wrong = recipe.prompt_fault(value)
    _require(not wrong, name, wrong)
    return value.strip()


def _whole(name: str, value: Any, low: int, high: int) -> int:
    wrong = f"want a whole number from {low} to {high}"
    number = _finite(value)
    _require(number.is_integer() and low <= number <= high, name, wrong)
    return int(number)


def _number(name: str, value: Any, low: float, high: float) -> float:
    number = _finite(value)
    _require(low <= number <= high, name, f"want a number from {low} to {high}")
    return number


def _finite(value: Any) -> float:
    """The number, or NaN, which is in no range, for what is none; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan


def _require(holds: bool, name: str, what: str) -> None:
    if not holds:
        raise Refused(f"{name}: {what}")
