"""The text: T5 embeddings of captions, computed on the spot or read from a cache on disk."""

from diffjax.text import cache
from diffjax.text.cache import Embeddings
from diffjax.text.condition import drop_text, mask_from_length, null_text
from diffjax.text.encoder import TextEncoder, load_encoder

__all__ = [
    "Embeddings",
    "TextEncoder",
    "cache",
    "drop_text",
    "load_encoder",
    "mask_from_length",
    "null_text",
]
