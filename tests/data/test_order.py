"""Whose turn it is in a mixture."""

from fractions import Fraction

import pytest

from diffjax.data.order import turn_of


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
