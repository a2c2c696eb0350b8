"""Turns text into token ids with ByT5's bytes, a tokenizer.json, or a SentencePiece model.

The ids are those of transformers. So the name of a special token in a text, such as "</s>" or
"<extra_id_0>", becomes that token. A tokenizer.json and the spiece.model that it was made from
differ for rare texts, in transformers too: only the former takes U+0085 for a blank, and only the
latter always composes letters with combining marks.
"""

import dataclasses
import functools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Protocol, runtime_checkable

from absl import logging

from diffjax.core.json_types import JsonObject
from diffjax.encoders.unreadable import describe_file, read_downloaded_json

PAD, EOS, UNK = 0, 1, 2
JSON, SENTENCEPIECE, CONFIG = "tokenizer.json", "spiece.model", "tokenizer_config.json"
ADDED = "added_tokens.json"
# The files that the ids depend on.
FILES = (CONFIG, ADDED, JSON, SENTENCEPIECE)
# ByT5's vocabulary: pad, eos and unk, then the 256 bytes, then 125 sentinels.
BYTE_OFFSET, BYTE_SENTINELS = 3, 125
SENTINELS = 100
SPECIAL = {"<pad>": PAD, "</s>": EOS, "<unk>": UNK}


@runtime_checkable
class Tokenizer(Protocol):
    """Turns text into at most `max_length` ids, the last of which is eos (1); pad is always 0."""

    def ids(self, text: str, max_length: int) -> list[int]:
        """The ids of `text`. A text too long is cut before its eos; `CutCounter` counts it."""
        ...


class CutCounter:
    """Cuts captions that are too long, counts them, and warns at the 1st, 10th, 100th and so on."""

    def __init__(self) -> None:
        self.captions = 0

    def __call__(self, ids: list[int], max_length: int, text: str) -> list[int]:
        """`ids` without eos -> at most `max_length` ids with eos."""
        if max_length < 1:
            raise ValueError(f"max_length={max_length}: it must be at least 1, for the eos")
        if len(ids) < max_length:
            return [*ids, EOS]
        self.note(len(ids) + 1, max_length, text)
        return [*ids[: max_length - 1], EOS]

    def note(self, length: int, max_length: int, text: str) -> None:
        """Counts a caption of `length` tokens, which is cut to `max_length`."""
        self.captions += 1
        if str(self.captions).strip("0") == "1":
            logging.warning(
                "%d caption(s) cut to max_length=%d tokens so far; this one has %d: %.60r",
                self.captions, max_length, length, text,
            )  # fmt: skip


@runtime_checkable
class Encoding(Protocol):
    """The result of the package `tokenizers` for one text."""

    ids: list[int]


@runtime_checkable
class JsonBackend(Protocol):
    """The part of `tokenizers.Tokenizer` that is used here."""

    def encode(self, text: str, *, add_special_tokens: bool) -> Encoding:
        """The pieces of a text."""


@runtime_checkable
class PieceBackend(Protocol):
    """The part of `sentencepiece.SentencePieceProcessor` that is used here."""

    def encode(self, text: str, /) -> list[int]:
        """The ids of the pieces of a text."""


@dataclasses.dataclass(frozen=True)
class ByteTokenizer:
    """ByT5 (Xue et al. 2022): the id of a UTF-8 byte is the byte + 3."""

    sentinels: int = BYTE_SENTINELS
    cut: CutCounter = dataclasses.field(default_factory=CutCounter, compare=False)

    def ids(self, text: str, max_length: int) -> list[int]:
        """One id per byte, then eos, unless the text itself ends with eos."""
        if "<" not in text:
            return self.cut([byte + BYTE_OFFSET for byte in text.encode()], max_length, text)
        first = BYTE_OFFSET + 256
        special = SPECIAL | {f"<extra_id_{i}>": first + i for i in range(self.sentinels)}
        ids: list[int] = []
        strip = False  # pad, eos and unk absorb the blanks around them, sentinels do not
        for part, token in _split(text, special):
            part = part.lstrip() if strip else part
            strip = token is not None and token in SPECIAL.values()
            part = part.rstrip() if strip else part
            ids += [byte + BYTE_OFFSET for byte in part.encode()]
            ids += [] if token is None else [token]
        return self.cut(ids[:-1] if ids[-1:] == [EOS] else ids, max_length, text)


@dataclasses.dataclass(frozen=True)
class JsonTokenizer:
    """A Hugging Face tokenizer.json, run by the package `tokenizers`."""

    backend: JsonBackend
    cut: CutCounter = dataclasses.field(default_factory=CutCounter, compare=False)

    def ids(self, text: str, max_length: int) -> list[int]:
        """The ids of the pieces, then eos."""
        text.encode()  # half a surrogate pair raises a ValueError here instead of a crash below
        return self.cut(self.backend.encode(text, add_special_tokens=False).ids, max_length, text)


@dataclasses.dataclass(frozen=True)
class SentencePieceTokenizer:
    """A spiece.model, run by the package `sentencepiece`, and the special tokens outside of it."""

    backend: PieceBackend
    special: Mapping[str, int]
    cut: CutCounter = dataclasses.field(default_factory=CutCounter, compare=False)

    def ids(self, text: str, max_length: int) -> list[int]:
        """The ids of the pieces, then eos. The text after a special token starts a new word."""
        text.encode()
        ids: list[int] = []
        for part, token in _split(text, self.special):
            ids += self.backend.encode(part)
            ids += [] if token is None else [token]
        return self.cut(ids, max_length, text)


def load(path: str | os.PathLike) -> Tokenizer:
    """The tokenizer of a checkpoint folder: from tokenizer.json or spiece.model, or ByT5's bytes.

    `"tokenizer_class": "ByT5Tokenizer"` in tokenizer_config.json or config.json means bytes.

    Raises:
      ValueError: a package is missing, a file is damaged, or the folder has no tokenizer. The
        message is one line that says what to do.
    """
    folder = Path(path)
    names = ("config.json", CONFIG)
    config, settings = (
        read_downloaded_json(folder / n) if (folder / n).exists() else {} for n in names
    )
    if "ByT5Tokenizer" in (config.get("tokenizer_class"), settings.get("tokenizer_class")):
        return ByteTokenizer(_num_sentinels(folder, settings, BYTE_SENTINELS))
    missing = ""
    if (folder / JSON).exists():
        try:
            import tokenizers
        except ImportError:
            missing = _install(folder / JSON, "tokenizers")
        else:
            return _load_json(tokenizers, folder / JSON)
    if (folder / SENTENCEPIECE).exists():
        try:
            import sentencepiece
        except ImportError:
            missing = missing or _install(folder / SENTENCEPIECE, "sentencepiece")
        else:
            return _load_sentencepiece(sentencepiece, folder, settings)
    raise ValueError(missing or f"{folder}: no {JSON}, no {SENTENCEPIECE}, no ByT5Tokenizer")


def files(path: str | os.PathLike) -> list[Path]:
    """The files of a checkpoint folder that the ids depend on, in a fixed order."""
    return [Path(path) / name for name in FILES if (Path(path) / name).exists()]


def _load_json(tokenizers: ModuleType, file: Path) -> JsonTokenizer:
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the package raises plain Exceptions
        raise ValueError(
            f"{file}: not a tokenizer ({error!s:.80}): {describe_file(file)}"
        ) from None
    backend.no_truncation()
    backend.no_padding()
    _check_eos(file, backend.token_to_id("</s>"))
    return JsonTokenizer(backend)


def _load_sentencepiece(
    sentencepiece: ModuleType, folder: Path, settings: JsonObject
) -> SentencePieceTokenizer:
    file = folder / SENTENCEPIECE
    try:
        backend = sentencepiece.SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError):
        raise ValueError(f"{file}: not a SentencePiece model: {describe_file(file)}") from None
    _check_eos(file, backend.eos_id())
    special = {name: backend.piece_to_id(name) for name in SPECIAL}
    # T5's sentinels are in reverse order: <extra_id_0> is the last.
    count = _num_sentinels(folder, settings, SENTINELS)
    special |= {f"<extra_id_{i}>": len(backend) + count - 1 - i for i in range(count)}
    added = settings.get("added_tokens_decoder")
    for token, content in added.items() if isinstance(added, dict) else ():
        special[str(content["content"] if isinstance(content, dict) else content)] = int(token)
    if (folder / ADDED).exists():
        added = read_downloaded_json(folder / ADDED)
        special |= {name: token for name, token in added.items() if isinstance(token, int)}
    return SentencePieceTokenizer(backend, special)


def _split(text: str, special: Mapping[str, int]) -> Iterator[tuple[str, int | None]]:
    """(the text before a special token, its id) for each, and at the end (the rest, None)."""
    start = 0
    for found in _pattern_of(tuple(special)).finditer(text):
        yield text[start : found.start()], special[found.group()]
        start = found.end()
    yield text[start:], None


@functools.lru_cache(maxsize=8)
def _pattern_of(names: tuple[str, ...]) -> re.Pattern:
    """A pattern that matches any of the names, and the longest of several that match."""
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))))


def _num_sentinels(folder: Path, settings: JsonObject, default: int) -> int:
    count = settings.get("extra_ids", default)
    if not isinstance(count, int) or count < 0:
        raise ValueError(f"{folder / CONFIG}: extra_ids={count!r}, want a whole number")
    return count


def _check_eos(file: Path, eos: int | None) -> None:
    if eos != EOS:
        raise ValueError(f"{file}: the id of </s> is {eos}, want {EOS}: not a tokenizer of T5")


def _install(file: Path, package: str) -> str:
    return f"{file} needs the package {package}: pip install {package}"
