import numpy as np
import pytest

from diffjax.logs import health


def losses(n, seed=0):
    return (0.1 + 0.01 * np.random.default_rng(seed).standard_normal(n)).tolist()


def test_a_loss_stands_at_chance_when_a_whole_window_of_losses_is_there():
    chance = 5.0
    at, below = [chance * 1.005] * health.WINDOW, [chance * 0.98] * health.WINDOW
    stands = lambda some: health.stands_at(  # noqa: E731
        health.observe(health.Health(), 1, some, [0.0] * len(some))[0], chance
    )
    assert stands(at)
    assert not stands(at[1:])  # the window is not full
    assert not stands(below)
    assert not stands(at[:90] + below[90:])


def test_only_a_loss_more_than_ten_deviations_above_the_median_is_a_spike():
    calm, spikes = health.observe(health.Health(), 1, losses(500), [0.0] * 500)
    assert spikes == []
    assert len(calm.recent) == health.WINDOW
    recent = np.array(calm.recent)
    deviation = 1.4826 * np.median(np.abs(recent - np.median(recent)))
    at = [float(np.median(recent) + k * deviation) for k in (9.9, 10.1)]
    assert health.observe(calm, 501, at[:1], [0.0])[1] == []
    seen, (spike,) = health.observe(calm, 501, at[1:], [0.0])
    assert (spike.step, spike.loss) == (501, at[1])
    assert spike.score == pytest.approx(10.1)
    assert seen.spikes == 1


def test_a_spike_does_not_hide_the_next_spikes():
    values = losses(100)
    values[50:60] = [5.0] * 10
    _, spikes = health.observe(health.Health(), 1, values, [0.0] * 100)
    assert [spike.step for spike in spikes] == list(range(51, 61))


def test_nothing_is_a_spike_before_there_are_enough_losses_to_compare_with():
    assert health.observe(health.Health(), 1, [0.1, 0.2] * 9 + [1e9], [0.0] * 19)[1] == []


def test_skipped_steps_are_counted_and_their_losses_are_ignored():
    nan = float("nan")
    values, bad = [0.1, nan, nan, 0.1, nan], [0.0, 1.0, 1.0, 0.0, 1.0]
    seen, _ = health.observe(health.Health(), 1, values, bad)
    assert (seen.bad_in_a_row, seen.skipped, seen.recent) == (1, 3, (0.1, 0.1))
    seen, _ = health.observe(seen, 6, [nan, float("inf")], [1.0, 1.0])
    assert (seen.bad_in_a_row, seen.skipped) == (3, 5)


def test_health_does_not_depend_on_how_the_steps_are_split_into_calls():
    values, bad = losses(90, seed=3), [0.0] * 90
    values[70], bad[30] = 3.0, 1.0
    whole, spikes = health.observe(health.Health(), 1, values, bad)
    part, found = health.Health(), []
    for start in range(0, 90, 13):
        saved = health.from_json(health.to_json(part))
        end = start + 13
        part, more = health.observe(saved, start + 1, values[start:end], bad[start:end])
        found += more
    assert (part, found) == (whole, spikes)
