"""From words to ids: ByT5's bytes, a tokenizer.json, or a SentencePiece model."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from absl import logging

PAD, EOS = 0, 1
JSON, SENTENCEPIECE, CONFIG = "tokenizer.json", "spiece.model", "tokenizer_config.json"
# In ByT5's vocabulary pad, eos and unk come before the 256 bytes.
BYTE_OFFSET = 3


@runtime_checkable
class Tokenizer(Protocol):
    """Text to at most `max_length` ids, the last of which is eos (1); pad is 0 in all of T5."""

    def ids(self, text: str, max_length: int) -> list[int]:
        """The ids of `text`. What does not fit is cut before the eos, and counted by `Cut`."""
        ...


class Cut:
    """Counts the captions that were cut; says so at the 1st, 10th, 100th ... and never hides it."""

    def __init__(self) -> None:
        self.captions = 0

    def __call__(self, ids: list[int], max_length: int, text: str) -> list[int]:
        """`ids` without eos -> at most max_length ids with it."""
        if max_length < 1:
            raise ValueError(f"max_length={max_length}: an eos needs at least 1")
        if len(ids) < max_length:
            return [*ids, EOS]
        self.captions += 1
        if str(self.captions).strip("0") == "1":
            logging.warning(
                "%d caption(s) cut to max_length=%d tokens so far; this one has %d: %.60r",
                self.captions, max_length, len(ids) + 1, text,
            )  # fmt: skip
        return [*ids[: max_length - 1], EOS]


@dataclasses.dataclass(frozen=True)
class ByteTokenizer:
    """ByT5 (Xue et al. 2022): the id of a UTF-8 byte is the byte + 3."""

    cut: Cut = dataclasses.field(default_factory=Cut, compare=False)

    def ids(self, text: str, max_length: int) -> list[int]:
        """One id per byte, then eos."""
        return self.cut([byte + BYTE_OFFSET for byte in text.encode()], max_length, text)


@dataclasses.dataclass(frozen=True)
class JsonTokenizer:
    """A Hugging Face tokenizer.json, run by the package `tokenizers`."""

    backend: Any
    cut: Cut = dataclasses.field(default_factory=Cut, compare=False)

    def ids(self, text: str, max_length: int) -> list[int]:
        """The pieces' ids, then eos."""
        return self.cut(self.backend.encode(text, add_special_tokens=False).ids, max_length, text)


@dataclasses.dataclass(frozen=True)
class SentencePieceTokenizer:
    """A spiece.model, run by the package `sentencepiece`."""

    backend: Any
    cut: Cut = dataclasses.field(default_factory=Cut, compare=False)

    def ids(self, text: str, max_length: int) -> list[int]:
        """The pieces' ids, then eos."""
        return self.cut(self.backend.encode(text), max_length, text)


def load(path: str | os.PathLike) -> Tokenizer:
    """The tokenizer of a checkpoint folder: tokenizer.json, spiece.model or ByT5's bytes.

    `"tokenizer_class": "ByT5Tokenizer"` in tokenizer_config.json or config.json means bytes.
    A package that is missing, or a folder with none of these, is a ValueError that says what to do.
    """
    folder = Path(path)
    for name in (CONFIG, "config.json"):
        if (folder / name).exists():
            raw = json.loads((folder / name).read_text(encoding="utf-8"))
            if raw.get("tokenizer_class") == "ByT5Tokenizer":
                return ByteTokenizer()
    missing = ""
    if (folder / JSON).exists():
        try:
            import tokenizers
        except ImportError:
            missing = _install(folder / JSON, "tokenizers")
        else:
            backend = tokenizers.Tokenizer.from_file(str(folder / JSON))
            backend.no_truncation()
            backend.no_padding()
            return JsonTokenizer(backend)
    if (folder / SENTENCEPIECE).exists():
        try:
            import sentencepiece
        except ImportError:
            missing = missing or _install(folder / SENTENCEPIECE, "sentencepiece")
        else:
            model = str(folder / SENTENCEPIECE)
            return SentencePieceTokenizer(sentencepiece.SentencePieceProcessor(model_file=model))
    raise ValueError(missing or f"{folder}: no {JSON}, no {SENTENCEPIECE}, no ByT5Tokenizer")


def _install(file: Path, package: str) -> str:
    return f"{file} needs the package {package}: pip install {package}"


def files(path: str | os.PathLike) -> list[Path]:
    """The files of a checkpoint folder that decide the ids, in a fixed order."""
    candidates = (Path(path) / name for name in (CONFIG, JSON, SENTENCEPIECE))
    return [file for file in candidates if file.exists()]
