"""Whose a cache is: the encoder that fills it, the header that names it, and its usual folder."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float

from diffjax.encoders.cache.records import FLOAT16, STORAGES
from diffjax.encoders.cache.shards import Header


@runtime_checkable
class Encoder(Protocol):
    """What a cache needs of an encoder. fingerprint: marks the cache, so no other one fills it."""

    @property
    def name(self) -> str:
        """Its name, for people."""
        ...

    @property
    def fingerprint(self) -> str:
        """Equal for encoders that make the same of the same captions."""
        ...

    @property
    def width(self) -> int:
        """The width d of its embeddings."""
        ...

    @property
    def max_length(self) -> int:
        """The most tokens of a caption."""
        ...

    def encode(
        self, captions: Sequence[str], length: int | None = None
    ) -> tuple[Float[Array, "b l d"], Bool[Array, "b l"]]:
        """(embeddings, mask) of captions."""
        ...


def header_of(encoder: Encoder, storage: str = "bfloat16") -> Header:
    """The header of a cache made by `encoder`."""
    if storage not in (*STORAGES, FLOAT16):
        raise ValueError(f"storage={storage!r}, want one of {', '.join(STORAGES)}")
    return Header(encoder.name, encoder.fingerprint, encoder.width, encoder.max_length, storage)


def default_folder(encoder: Encoder) -> Path:
    """The folder of this encoder's cache if none is named.

    It is below $DIFFJAX_CACHE_DIR, or else below diffjax in the user's cache folder.
    """
    return users_folder() / f"{encoder.name}-{encoder.fingerprint[:8]}-{encoder.max_length}"


def users_folder() -> Path:
    """Where this user's caches lie."""
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("DIFFJAX_CACHE_DIR", f"{base}/diffjax")).expanduser()
