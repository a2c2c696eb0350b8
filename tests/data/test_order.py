"""In which order records come, and whose turn it is in a mixture."""

import pickle
from fractions import Fraction

import grain
import pytest

from diffjax.data.chance import Chance
from diffjax.data.order import endless, seed_of_draws, turn_of
from diffjax.data.sources.fake import Shapes
from diffjax.data.sources.mixture import Mixture


def by_grain(source, seed):
    """The same order and draws by Grain's own transformations, as older runs had them."""
    if isinstance(source, Mixture):
        first, second = (
            grain.MapDataset.source(range(start, start + len(part))).seed(seed + i).shuffle()
            for i, (start, part) in enumerate(zip(source.first_indices, source.parts, strict=True))
        )
        shares = [
            Fraction(weight) * len(part)
            for weight, part in zip(source.weights, source.parts, strict=True)
        ]
        return Turns([first.repeat(), second.repeat()], [x / sum(shares) for x in shares]).seed(
            seed
        )
    return grain.MapDataset.source(range(len(source))).seed(seed).shuffle().repeat()


class Turns(grain.MapDataset):
    def __init__(self, parts, shares):
        super().__init__(parts)
        self.shares = shares

    def __len__(self):
        return len(self._parents[0])

    def __getitem__(self, index):
        part, inside = turn_of(index, self.shares)
        return self._parents[part][inside]


def drawn(generator):
    return generator.random(), generator.integers(1000), generator.integers(1, 50, 5).tolist()


@pytest.mark.parametrize(
    "source",
    [Shapes(300, 8), Shapes(70_000, 8), Mixture([Shapes(200, 8), Shapes(900, 8)], [2, 1])],
    ids=["small", "large", "mixture"],
)
@pytest.mark.parametrize("seed", [0, 12_345])
def test_order_and_draws_are_those_of_grain(source, seed):
    expected = by_grain(source, seed).random_map(lambda index, rng: (int(index), *drawn(rng)))
    order, chance = pickle.loads(
        pickle.dumps((endless(source, seed), Chance(seed_of_draws(source, seed))))
    )
    for place in (0, 1, 299, 300, 123_456, 10**9 + 7):
        assert (order(place), *drawn(chance.at(place))) == expected[place]


def test_a_generator_does_not_remember_what_was_drawn_before():
    chance = Chance(5)
    fresh = [drawn(Chance(5).at(place)) for place in (3, 4, 3)]
    assert [drawn(chance.at(place)) for place in (3, 4, 3)] == fresh
    assert fresh[0] == fresh[2] != fresh[1]


@pytest.mark.parametrize("shares", [(1,), (1, 1), (3, 1), (1, 3), (2, 5, 1), (1, 1, 1, 7)])
def test_parts_take_turns_evenly_and_each_goes_through_its_own_one_by_one(shares):
    parts = [Fraction(share, sum(shares)) for share in shares]
    count = [0] * len(parts)
    for place in range(20 * sum(shares)):
        part, inside = turn_of(place, parts)
        assert inside == count[part]
        count[part] += 1
        for had, share in zip(count, parts, strict=True):
            assert abs(had - (place + 1) * share) < len(shares)
    assert count == [20 * share for share in shares]


def test_a_far_place_costs_no_walk_to_it():
    shares = [Fraction(2, 3), Fraction(1, 3)]
    assert turn_of(3 * 10**15, shares) == (1, 10**15)
    assert turn_of(3 * 10**15 + 1, shares) == (0, 2 * 10**15)
