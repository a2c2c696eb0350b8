"""Finds the merges of a tokenizer: those of the emoji captions, OpenAI's, or a file of the user."""

import functools
import gzip
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from diffjax.encoders import hub
from diffjax.encoders.clip.bpe import MOST_MERGES, BytePairs, Merge, from_merges
from diffjax.encoders.unreadable import cannot_read, describe_file

# 1,024 merges learned from the captions of the emoji data set; part of this package.
EMOJI = "emoji"
# OpenAI's 48,894 merges, found in the package open_clip or on the hub.
NUM_OPENAI = MOST_MERGES + 2 * 256 + 2
OPENAI, ON_THE_HUB = "openai", "openai/clip-vit-base-patch32"
# The names of OpenAI's file in its own package and open_clip's, and in Hugging Face's folders.
FILES = ("merges.txt", "bpe_simple_vocab_16e6.txt.gz")


def load(name: str) -> BytePairs:
    """The tokenizer called "emoji" or "openai", or that of a file of merges or a folder with one.

    Raises:
      ValueError: there is none, or the file is damaged; one line that says what to do.
    """
    file = find(name)
    return _loaded(file, file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _loaded(file: Path, changed_ns: int) -> BytePairs:
    """The tokenizer of a file; read again only after it has changed."""
    return from_merges(read(file))


def find(name: str, files: Sequence[str] = FILES) -> Path:
    """The file of merges that `name` means; "openai" may download it.

    files: the names that it may have in a folder.

    Raises:
      ValueError: there is no such file.
    """
    if name == EMOJI:
        return Path(__file__).parent / "emoji_merges.txt"
    if name == OPENAI:
        return _openai()
    path = Path(os.path.expanduser(name))
    for file in (path, *(path / known for known in files)):
        if file.is_file():
            return file
    raise ValueError(
        f"vocabulary {name!r} is neither {EMOJI!r} nor {OPENAI!r}, nor a file of merges, nor a "
        f"folder with {' or '.join(files)}"
    )


def read(file: Path, most: int = MOST_MERGES) -> list[Merge]:
    """The first merges of a file, which has a header and two units in each further line.

    Raises:
      ValueError: it cannot be read, or a line has another form.
    """
    try:
        data = file.read_bytes()
        text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise cannot_read(file, error) from None
        raise ValueError(f"{file}: not a file of merges: {describe_file(file)}") from None
    merges: list[Merge] = []
    for number, line in enumerate(text.split("\n")[1 : most + 1], start=2):
        match line.split():
            case [first, second]:
                merges.append((first, second))
            case []:
                continue
            case _:
                raise ValueError(f"{file}, line {number}: {line[:40]!r}, want two units")
    if not merges:
        raise ValueError(f"{file}: holds no merges: {describe_file(file)}")
    return merges


def _openai() -> Path:
    found = importlib.util.find_spec("open_clip")  # looks for the package without running it
    for folder in (found.submodule_search_locations or ()) if found else ():
        if (file := Path(folder) / FILES[1]).is_file():
            return file
    try:
        return hub.fetch_file(ON_THE_HUB, FILES[0])
    except ValueError as error:
        raise ValueError(
            f"vocabulary {OPENAI!r}: pip install open-clip-torch, which has it, or name a file: "
            f"{error}"
        ) from None
