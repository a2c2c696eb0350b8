"""Embeddings of captions on disk: computed once, looked up by the caption.

One safetensors file: `tokens` bfloat16 [total_tokens d] with `offsets` [n + 1], the captions' UTF-8
bytes end to end with theirs, and a header that says which encoder made it. Each caption is there
once, at its real length.
"""

import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
from absl import logging
from jaxtyping import Bool, Int, Shaped
from safetensors.numpy import save_file

from diffjax.text.encoder import TextEncoder

FORMAT = "diffjax-text-1"


@dataclasses.dataclass(frozen=True)
class Header:
    """Whose embeddings these are; two caches with equal headers agree on every caption."""

    encoder: str
    fingerprint: str
    width: int
    max_length: int

    def __str__(self) -> str:
        """As messages name it, on one line."""
        return (
            f"{self.encoder} ({self.fingerprint[:8]}, width {self.width}, "
            f"max_length {self.max_length})"
        )


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """A cache opened for reading. Tokens stay on disk until asked for; it pickles as its path."""

    path: Path
    header: Header
    tokens: Shaped[np.ndarray, "t d"] = dataclasses.field(repr=False)
    offsets: Int[np.ndarray, "m"] = dataclasses.field(repr=False)
    index: dict[str, int] = dataclasses.field(repr=False)

    def __getitem__(self, caption: str) -> Shaped[np.ndarray, "l d"]:
        """The caption's embeddings in bfloat16, without padding; an unknown one is a KeyError."""
        if caption not in self.index:
            raise KeyError(f"{self.path}: no caption {caption!r} among its {len(self)}")
        row = self.index[caption]
        return np.array(self.tokens[self.offsets[row] : self.offsets[row + 1]])

    def batch(
        self, captions: Sequence[str], length: int
    ) -> tuple[Shaped[np.ndarray, "b l d"], Bool[np.ndarray, "b l"]]:
        """(embeddings, mask) padded to `length` tokens; a longer caption is a ValueError."""
        rows = [self[caption] for caption in captions]
        longest = max((len(row) for row in rows), default=0)
        if longest > length:
            raise ValueError(f"{self.path}: length={length}, but a caption has {longest} tokens")
        out = np.zeros((len(rows), length, self.header.width), ml_dtypes.bfloat16)
        for i, row in enumerate(rows):
            out[i, : len(row)] = row
        lengths = np.array([len(row) for row in rows], int)
        return out, np.arange(length)[None, :] < lengths[:, None]

    def __contains__(self, caption: object) -> bool:
        """Whether the caption is there."""
        return caption in self.index

    def __len__(self) -> int:
        """How many captions."""
        return len(self.index)

    def __reduce__(self):
        """Workers open the file themselves; a memory map would be copied whole."""
        return open_cache, (self.path,)


def header_of(encoder: TextEncoder) -> Header:
    """What a cache made by `encoder` says of itself."""
    return Header(encoder.name, encoder.fingerprint, encoder.width, encoder.max_length)


def build(
    path: str | os.PathLike,
    encoder: TextEncoder,
    captions: Sequence[str],
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
    known: Embeddings | None = None,
) -> Embeddings:
    """Encodes the captions, each once, and writes `path` by a rename; `known` need not be redone.

    `progress(done, total)` is called after each batch. The tokens are held in memory until written.
    """
    unique = list(dict.fromkeys(captions))
    rows: dict[str, np.ndarray] = {c: known[c] for c in unique if known and c in known}
    # By length: a batch then holds little padding.
    fresh = sorted((c for c in unique if c not in rows), key=lambda c: (len(c.encode()), c))
    for start in range(0, len(fresh), batch_size):
        part = fresh[start : start + batch_size]
        embedded, mask = (np.asarray(x) for x in encoder.encode(part))
        for caption, row, length in zip(part, embedded, mask.sum(1), strict=True):
            rows[caption] = row[:length].astype(ml_dtypes.bfloat16)
        if progress:
            progress(start + len(part), len(fresh))
    _write(Path(path), header_of(encoder), {caption: rows[caption] for caption in unique})
    return open_cache(path)


def open_cache(path: str | os.PathLike, encoder: TextEncoder | None = None) -> Embeddings:
    """The cache at `path`, memory-mapped; not one, or not `encoder`'s, is a ValueError."""
    path = Path(path)
    try:
        raw, start = _read_header(path)
        header = Header(**json.loads(raw["__metadata__"]["header"]))
        arrays = {
            name: _map(path, start, raw[name])
            for name in ("tokens", "offsets", "captions", "caption_offsets")
        }
    except FileNotFoundError:
        raise ValueError(f"{path}: no such embeddings cache") from None
    except (ValueError, KeyError, TypeError, OverflowError, OSError) as error:
        raise ValueError(f"{path}: not an embeddings cache ({type(error).__name__})") from None
    if encoder is not None and header != header_of(encoder):
        raise ValueError(f"{path} holds embeddings of {header}, want {header_of(encoder)}")
    text = arrays["captions"].tobytes()
    names = [text[a:b].decode() for a, b in itertools.pairwise(arrays["caption_offsets"])]
    index = {name: i for i, name in enumerate(names)}
    return Embeddings(path, header, arrays["tokens"], np.array(arrays["offsets"]), index)


def ensure(
    path: str | os.PathLike,
    encoder: TextEncoder,
    captions: Sequence[str],
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Embeddings:
    """The cache at `path`, made to hold all `captions` of this `encoder`.

    It is left alone when it does already, extended when captions are missing, and made anew, with
    a warning, when it is another encoder's.
    """
    if not Path(path).exists():
        return build(path, encoder, captions, batch_size, progress)
    known = open_cache(path)
    if known.header != header_of(encoder):
        logging.warning("%s held embeddings of %s: made anew", path, known.header)
        return build(path, encoder, captions, batch_size, progress)
    if all(caption in known for caption in captions):
        return known
    return build(path, encoder, [*known.index, *captions], batch_size, progress, known)


def _write(path: Path, header: Header, rows: dict[str, np.ndarray]) -> None:
    names = [caption.encode() for caption in rows]
    none = np.zeros((0, header.width), ml_dtypes.bfloat16)
    arrays = {
        "tokens": np.concatenate([none, *rows.values()]),
        "offsets": np.cumsum([0, *(len(row) for row in rows.values())], dtype=np.int64),
        "captions": np.frombuffer(b"".join(names), np.uint8),
        "caption_offsets": np.cumsum([0, *(len(name) for name in names)], dtype=np.int64),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        metadata = {"format": FORMAT, "header": json.dumps(dataclasses.asdict(header))}
        save_file(arrays, temporary, metadata=metadata)
        temporary.chmod(0o644)  # safetensors leaves it readable by its owner alone
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_header(path: Path) -> tuple[dict, int]:
    """(names, shapes and places of the arrays; where the data starts), as safetensors has it."""
    with open(path, "rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError("header longer than the file")
        raw = json.loads(stream.read(size))
    if raw["__metadata__"]["format"] != FORMAT:
        raise ValueError(f"format is not {FORMAT}")
    return raw, 8 + size


def _map(path: Path, start: int, place: dict) -> np.ndarray:
    dtype = {"BF16": ml_dtypes.bfloat16, "I64": np.int64, "U8": np.uint8}[place["dtype"]]
    first, last = place["data_offsets"]
    if start + last > path.stat().st_size:
        raise ValueError("file cut short")
    if first == last:
        return np.zeros(place["shape"], dtype)
    raw = np.memmap(path, np.uint8, "r", start + first, (last - first,))
    return raw.view(dtype).reshape(place["shape"])
