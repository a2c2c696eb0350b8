"""Checks single values of a visitor's request, each of which is untrusted JSON."""

import math
import secrets

from diffjax.generation import recipe


class Refused(ValueError):
    """A request that is not allowed; the message is one line that tells the visitor why."""


def require(holds: bool, name: str, what: str) -> None:
    """Refuses the request, if this does not hold of the value of this name.

    Raises:
      Refused: it does not.
    """
    if not holds:
        raise Refused(f"{name}: {what}")


def text(name: str, value: object) -> str:
    """A prompt, which may be empty, without blanks around it.

    Raises:
      Refused: it is no text, too long, or no valid Unicode.
    """
    if not isinstance(value, str):
        raise Refused(f"{name}: want a text")
    wrong = recipe.prompt_fault(value)
    require(not wrong, name, wrong)
    return value.strip()


def switch(name: str, value: object) -> bool:
    """Checks the value of a checkbox.

    Raises:
      Refused: it is neither true nor false.
    """
    if not isinstance(value, bool):
        raise Refused(f"{name}: want true or false")
    return value


def whole(name: str, value: object, low: int, high: int) -> int:
    """A whole number in these bounds.

    Raises:
      Refused: it is none.
    """
    number = _finite(value)
    wrong = f"want a whole number from {low} to {high}"
    require(number.is_integer() and low <= number <= high, name, wrong)
    return int(number)


def multiple(name: str, value: object, low: float, high: float, step: float) -> float:
    """A number in these bounds that is a multiple of `step`.

    Raises:
      Refused: it is none.
    """
    number = _finite(value)
    require(low <= number <= high, name, f"want a number from {low:g} to {high:g}")
    wrong = f"{number:g} is not a multiple of {step:g}"
    require((number / step).is_integer(), name, wrong)
    return number


def first_seed(new: object, value: object, num: int) -> int:
    """The first of `num` consecutive seeds. new: draw it at random in place of the value.

    Raises:
      Refused: one of both has the wrong type or is out of range.
    """
    require(isinstance(new, bool), "new seed", "want true or false")
    last = recipe.MAX_SEED - num + 1
    return secrets.randbelow(last + 1) if new else whole("seed", value, 0, last)


def _finite(value: object) -> float:
    """The value if it is a finite number, else NaN, which lies in no range; a bool is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan
