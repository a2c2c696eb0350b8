"""Shuffling agrees with Grain, by whose permutations older runs were trained."""

import numpy as np
import pytest
from grain.experimental import index_shuffle

from diffjax.data.shuffle import shuffled

SEEDS = (0, 1, 2**32 - 1, 3_141_592_653)


@pytest.mark.parametrize("count", [2, 100, 2048, 65_535, 65_536, 65_538, 1_000_000])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_place_goes_where_grain_sends_it(count, seed):
    for place in (0, 1, count // 3, count - 1):
        there = index_shuffle(place, max_index=count - 1, seed=seed, rounds=4)
        assert shuffled(place, count, seed) == there


@pytest.mark.parametrize("count", [1, 2, 7, 300])
def test_every_number_comes_once(count):
    for seed in SEEDS:
        there = [shuffled(place, count, seed) for place in range(count)]
        assert sorted(there) == list(range(count))


def test_seeds_differ_in_their_orders():
    orders = np.array([[shuffled(place, 300, seed) for place in range(300)] for seed in SEEDS])
    same = (orders[:, None] == orders[None]).mean(axis=-1)
    assert (same[~np.eye(len(SEEDS), dtype=bool)] < 0.05).all()
