"""Checks the fields of JSON objects that strangers may have written.

`where` names the field in messages.
"""

import re
from collections.abc import Sequence


def fields_of(
    value: object, where: str, names: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, object]:
    """The fields of a JSON object: these `names`, perhaps the `optional` ones, and no others.

    Raises:
      ValueError: it is no object, or has other fields.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where}: want an object")
    missing = [name for name in names if name not in value]
    require(not missing, where, f"lacks {', '.join(missing)}")
    more = [name for name in value if name not in names and name not in optional]
    require(not more, where, f"want no more than {', '.join((*names, *optional))}")
    return value


def whole_number(value: object, where: str, low: int, high: int) -> int:
    """The value, a whole number from low to high.

    Raises:
      ValueError: it is something else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        want = f"want {low}" if low == high else f"want a number from {low} to {high}"
        raise ValueError(f"{where}: {want}")
    return value


def word(value: object, where: str, pattern: str) -> str:
    """The value, a text that a pattern describes, in which letters are those of ASCII.

    Raises:
      ValueError: it is something else.
    """
    if not isinstance(value, str) or re.fullmatch(pattern, value, re.ASCII) is None:
        raise ValueError(f"{where}: want a text like {pattern}")
    return value


def require(holds: bool, where: str, what: str) -> None:
    """Checks that something holds.

    Raises:
      ValueError: it does not; says where and what.
    """
    if not holds:
        raise ValueError(f"{where}: {what}")
