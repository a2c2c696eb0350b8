"""An encoder without a network: embeddings are random numbers, seeded by the caption."""

import hashlib

import numpy as np

from diffjax.encoders.t5 import TextEncoder


class Stub(TextEncoder):
    """One token per word and one for the end; `asked` lists the captions that were encoded."""

    def __init__(self, name="stub", fingerprint="0123456789abcdef", width=8, max_length=16):
        fields = dict(name=name, fingerprint=fingerprint, width=width, max_length=max_length)
        for key, value in {**fields, "asked": []}.items():
            object.__setattr__(self, key, value)

    def encode(self, captions, length=None):
        self.asked.extend(captions)
        rows = [self.row(caption) for caption in captions]
        length = length or max(map(len, rows))
        padded = np.zeros((len(rows), length, self.width), np.float32)
        for i, row in enumerate(rows):
            padded[i, : len(row)] = row
        return padded, np.arange(length) < np.array([len(row) for row in rows])[:, None]

    def row(self, caption):
        seed = int.from_bytes(hashlib.sha256(caption.encode()).digest()[:8], "little")
        length = min(len(caption.split()) + 1, self.max_length)
        return np.random.default_rng(seed).standard_normal((length, self.width), np.float32)
