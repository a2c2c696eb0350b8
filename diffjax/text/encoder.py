"""Captions to embeddings: tokenizer and T5 behind one call, with few compiled shapes."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from diffjax.text import tokenizer, weights
from diffjax.text.t5 import T5Encoder

# Names of checkpoints that ship inside this package.
SHIPPED = {"t5-nano": Path(__file__).parent / "t5_nano"}
LENGTH_STEP = 16
HUB_FILES = ("*.json", "*.safetensors", "spiece.model")


@dataclasses.dataclass(frozen=True)
class TextEncoder:
    """A frozen T5 encoder with its tokenizer.

    `fingerprint` is the sha256 of config, weights and tokenizer, by which embeddings on disk tell
    whose they are. Lengths are rounded up to multiples of 16 tokens and batches too: a handful of
    compiled programs serve every call.
    """

    name: str
    width: int
    max_length: int
    fingerprint: str
    dtype: Any
    tokens: tokenizer.Tokenizer = dataclasses.field(repr=False)
    params: Any = dataclasses.field(repr=False, compare=False)
    apply: Any = dataclasses.field(repr=False, compare=False)

    def encode(
        self, captions: Sequence[str], length: int | None = None
    ) -> tuple[Float[Array, "b l d"], Bool[Array, "b l"]]:
        """(embeddings, mask) of the captions; l is the least multiple of 16 that holds them all.

        `length` asks for that l instead, the same whatever the captions. Rows are zero where the
        mask is False. An empty caption is its eos alone.
        """
        ids, mask = self.tokenize(captions, length)
        fill = ((0, _round_up(len(ids)) - len(ids)), (0, 0))
        embedded = self.apply(self.params, np.pad(ids, fill), np.pad(mask, fill))
        return embedded[: len(ids)], jnp.asarray(mask)

    def tokenize(
        self, captions: Sequence[str], length: int | None = None
    ) -> tuple[Int[np.ndarray, "b l"], Bool[np.ndarray, "b l"]]:
        """(ids, mask), padded with 0 to the common length that `encode` uses."""
        if isinstance(captions, str):
            raise ValueError(f"captions={captions!r} is one string, want a list of strings")
        limit = min(self.max_length, length or self.max_length)
        rows = [self.tokens.ids(caption, limit) for caption in captions]
        if length is None:
            longest = max((len(row) for row in rows), default=1)
            length = min(-(-longest // LENGTH_STEP) * LENGTH_STEP, self.max_length)
        ids = np.full((len(rows), length), tokenizer.PAD, np.int32)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        lengths = np.array([len(row) for row in rows], int)
        return ids, np.arange(length)[None, :] < lengths[:, None]


def load_encoder(
    path_or_name: str | os.PathLike, max_length: int = 96, dtype: DTypeLike = jnp.float32
) -> TextEncoder:
    """The encoder of a folder in Hugging Face's layout, of "t5-nano", or of a name on its hub.

    `max_length` counts tokens, eos included; matrices multiply in `dtype` and the embeddings have
    it. The name of a folder is its last part.
    """
    folder = resolve(path_or_name)
    config, params = weights.load(folder)
    if max_length < 1:
        raise ValueError(f"max_length={max_length}, want at least 1")
    model = T5Encoder(config, dtype)
    shipped = str(path_or_name) in SHIPPED or not Path(path_or_name).exists()
    return TextEncoder(
        name=str(path_or_name) if shipped else folder.resolve().name,
        width=config.d_model,
        max_length=max_length,
        fingerprint=fingerprint(folder),
        dtype=jnp.dtype(dtype),
        tokens=tokenizer.load(folder),
        params=jax.device_put(params),
        apply=jax.jit(lambda params, ids, mask: model.apply({"params": params}, ids, mask)),
    )


def resolve(path_or_name: str | os.PathLike) -> Path:
    """The folder of a path or a name; an unknown name is asked of huggingface_hub if installed."""
    name = str(path_or_name)
    if name in SHIPPED:
        return SHIPPED[name]
    if Path(name).is_dir():
        return Path(name)
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError(
            f"text encoder {name!r} is neither a folder nor one of {sorted(SHIPPED)}; to fetch it "
            "from the Hugging Face hub, pip install huggingface_hub"
        ) from None
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # the hub's errors share no base class
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"text encoder {name!r} is neither a folder nor one of {sorted(SHIPPED)}, and the "
            f"Hugging Face hub did not give it: {reason}"
        ) from None


def _round_up(rows: int) -> int:
    """The next power of two up to 64, then multiples of 64: few shapes, little waste."""
    return 1 << max(rows - 1, 0).bit_length() if rows <= 64 else -(-rows // 64) * 64


def fingerprint(folder: Path) -> str:
    """sha256 over config, tokenizer and weights, in this order."""
    digest = hashlib.sha256()
    for file in [folder / weights.CONFIG, *tokenizer.files(folder), *weights.weight_files(folder)]:
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
