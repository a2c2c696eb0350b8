"""Reads the JSON files of a checkpoint folder, and says what is wrong with an unreadable file."""

import re
from pathlib import Path

from diffjax.core.files import parse_json
from diffjax.core.json_types import JsonObject

TORCH_WEIGHTS = "pytorch_model.bin"


def read_downloaded_json(file: Path) -> JsonObject:
    """The JSON object in a file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be read or holds no JSON object; the message names the file.
    """
    try:
        value = parse_json(file.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise cannot_read(file, error) from None
    except ValueError as error:  # neither JSON nor text
        raise ValueError(f"{file}: not JSON ({first_line(error)}): {describe_file(file)}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{file}: holds a JSON {type(value).__name__}, want an object")
    return value


def describe_file(file: Path) -> str:
    """What an unreadable file seems to be, judged by its first bytes, and what to do about it."""
    try:
        with open(file, "rb") as stream:
            head = stream.read(512)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if head.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer, run `git lfs pull` in its folder"
    if head.lstrip().startswith(b"<"):
        return "it is a web page, download the file itself (a gated model needs a login first)"
    # The second byte of a pickle is its protocol. A safetensors file may begin with the same bytes,
    # as its length; its ninth byte is {.
    pickled = re.match(rb"\x80[\x02-\x05][^\0]", head) and head[8:9] != b"{"
    if (pickled or head.startswith(b"PK\x03\x04")) and file.suffix != ".bin":
        return (
            f"it is a pickle of PyTorch, which may run code: rename it to {TORCH_WEIGHTS}, so that "
            "only its tensors are read, or convert it with transformers' save_pretrained"
        )
    return "it is empty, download it again" if not head else "damaged or cut short, download again"


def cannot_read(file: Path, error: OSError) -> ValueError:
    """The error for a file that the operating system does not let us read."""
    return ValueError(
        f"{file}: cannot be read ({error.strerror or first_line(error)}): check its mode"
    )


def first_line(error: Exception) -> str:
    """The first line of an error's text, cut to a readable length."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
