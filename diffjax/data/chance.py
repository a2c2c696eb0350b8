"""The random draws of examples: a generator for each, whatever was drawn for the others."""

import threading

import numpy as np


class Chance:
    """Generators that depend on a seed and on the number of an example. It pickles.

    They are those of Grain's `random_map`: Philox, whose key is made of the seed, at the counter
    (0, 0, 0, example). Each thread has one generator and sets it back, because that takes a fifth
    of the time of making one.
    """

    def __init__(self, seed: int):
        self._seed, self._own = seed, threading.local()

    def __reduce__(self) -> tuple[type["Chance"], tuple[int]]:
        """Another process makes generators of its own."""
        return Chance, (self._seed,)

    def at(self, example: int) -> np.random.Generator:
        """The generator of an example, as if nothing had been drawn; valid until the next call."""
        if not hasattr(self._own, "generator"):
            bits = np.random.Philox(self._seed)
            self._own.key = bits.state["state"]["key"]
            self._own.generator = np.random.Generator(bits)
        generator: np.random.Generator = self._own.generator
        generator.bit_generator.state = {
            "bit_generator": "Philox",
            "state": {"counter": np.array((0, 0, 0, example), np.uint64), "key": self._own.key},
            "buffer": (0, 0, 0, 0),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }
        return generator
