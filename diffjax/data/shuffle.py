"""The permutations of Grain, by which records are shuffled, at less cost for small data sets.

Grain encrypts a place with four rounds of the cipher Simon, and again until the result is below
`count` (https://arxiv.org/abs/1404.4337; cycle walking: Black and Rogaway, 2002). Its blocks have
at least 16 bits, so a place of a few hundred is encrypted 65,536 / count times. Here all 65,536
values are encrypted at once, and the walks of a whole epoch take 16 steps together.
"""

import functools

import numpy as np
from grain.experimental import index_shuffle
from jaxtyping import UInt16, UInt32

BLOCK = 2**16  # the values of Grain's smallest block
ROUNDS = 4


def shuffled(place: int, count: int, seed: int) -> int:
    """Where the number `place` of [0, count) goes; seed in [0, 2^32) chooses the permutation."""
    if count > BLOCK:
        return index_shuffle(place, max_index=count - 1, seed=seed, rounds=ROUNDS)
    return int(_permutation(count, seed)[place])


@functools.lru_cache(maxsize=8)
def _permutation(count: int, seed: int) -> UInt16[np.ndarray, " n"]:
    """`shuffled` of every place of an epoch; a batch asks for those of one or two epochs."""
    values = np.arange(BLOCK, dtype=np.uint16)
    once = _encrypted(values, seed)
    # A value that is small enough stays; the others jump 1, 2, 4, ... steps of the walk at a time.
    jump = np.where(values < count, values, once)
    ends = once[:count]
    while ends.max() >= count:
        ends, jump = jump[ends], jump[jump]
    return ends


def _encrypted(values: UInt16[np.ndarray, " n"], seed: int) -> UInt16[np.ndarray, " n"]:
    """Simon with words of 8 bits: (x, y) -> (y ^ f(x) ^ key, x), round by round."""
    left, right = (values >> 8).astype(np.uint8), values.astype(np.uint8)
    for key in seed_words(seed, ROUNDS).astype(np.uint8):
        left, right = right, left ^ _mixed(right) ^ key
    return left.astype(np.uint16) << 8 | right


def _mixed(word: np.ndarray) -> np.ndarray:
    """f(x) = (x <<< 1) & (x <<< 8) ^ (x <<< 2); of 8 bits, x <<< 8 is x itself."""
    return ((word << 1 | word >> 7) & word) ^ (word << 2 | word >> 6)


def seed_words(seed: int, count: int) -> UInt32[np.ndarray, " n"]:
    """C++'s `std::seed_seq{seed}.generate`: `count` words of 32 bits, for count in [4, 6].

    [rand.util.seedseq] of the standard, for one seed and s = 1, t = 1, p = (n - 1) / 2.
    """
    first = (count - 1) // 2
    second = first + 1
    words = [0x8B8B8B8B] * count
    for k in range(count):
        there = words[k] ^ words[(k + first) % count] ^ words[k - 1]
        added = _low(1664525 * (there ^ there >> 27))
        more = _low(added + (1 if k == 0 else k + seed if k == 1 else k))
        words[(k + first) % count] = _low(words[(k + first) % count] + added)
        words[(k + second) % count] = _low(words[(k + second) % count] + more)
        words[k] = more
    for k in range(count):
        there = _low(words[k] + words[(k + first) % count] + words[k - 1])
        flipped = _low(1566083941 * (there ^ there >> 27))
        less = _low(flipped - k)
        words[(k + first) % count] ^= flipped
        words[(k + second) % count] ^= less
        words[k] = less
    return np.array(words, np.uint32)


def _low(number: int) -> int:
    """Its last 32 bits."""
    return number & 0xFFFFFFFF
