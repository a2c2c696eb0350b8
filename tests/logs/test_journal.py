import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.logs import goodput, journal, readings, writer

NAMES = ("learning_rate", "loss", "nonfinite", "skipped")


class Lines(writer.Log):
    """Keeps the lines in memory instead of in a file."""

    def __init__(self):
        self.written = []

    def scalars(self, step, values):
        self.written.append(
            {"step": step} | {k: v for k, v in values.items() if not k.startswith("seconds_")}
        )


def measured(num_steps):
    """Metrics [steps metrics] of random steps; some of the losses are not finite."""
    rows = np.random.default_rng(0).random((num_steps, len(NAMES))).astype(np.float32)
    rows[:, 3] = 0.0
    rows[[4, 11, 12], 1], rows[[4, 11, 12], 3] = [np.nan, np.inf, np.nan], 1.0
    return rows


record = jax.jit(readings.record)


def begin(log, every, saved=None, chance=None):
    return journal.Journal(
        log, goodput.Goodput(clock=lambda: 0.0),
        no_readings=functools.partial(readings.no_readings, every), record=record,
        images_per_step=8, saved=saved, chance=chance,
    )  # fmt: skip


def go_on(ours, rows, first, last, every):
    """Add steps first + 1 ... last, and write a line at each multiple of `every`."""
    for number in range(first + 1, last + 1):
        values = jnp.asarray(rows[number - 1])
        ours.add(dict(zip(NAMES, values, strict=True)))
        if number % every == 0:
            ours.write(number, 100)
    return ours


@pytest.fixture(scope="module")
def whole():
    log = Lines()
    go_on(begin(log, 5), measured(20), 0, 20, 5)
    return log.written


def test_a_line_holds_the_mean_sum_maximum_or_last_value_of_its_steps(whole):
    rows = measured(20).astype(np.float64)
    assert [line["step"] for line in whole] == [5, 10, 15, 20]
    for i, line in enumerate(whole):
        rate, loss, bad, skipped = rows[5 * i : 5 * i + 5].T
        assert line["loss"] == pytest.approx(loss[np.isfinite(loss)].mean(), rel=1e-6)
        assert line["skipped"] == skipped.sum()
        assert line["nonfinite"] == bad.max()
        assert line["learning_rate"] == rate[-1]


@pytest.mark.parametrize("cut", [1, 4, 5, 8, 12, 19])
def test_a_run_interrupted_anywhere_writes_the_lines_of_an_uninterrupted_one(whole, cut):
    """The saved journal goes through JSON, as in a checkpoint."""
    log, rows = Lines(), measured(20)
    saved = json.loads(json.dumps(go_on(begin(log, 5), rows, 0, cut, 5).to_json()))
    ended = go_on(begin(log, 5, saved), rows, cut, 20, 5)
    assert log.written == whole
    assert ended.health.skipped == 3
    assert ended.health.bad_in_a_row == 0


def test_rows_saved_with_other_metrics_are_left_out_of_the_next_line():
    log, rows = Lines(), measured(20)
    saved = go_on(begin(Lines(), 5), rows, 0, 2, 5).to_json()
    go_on(begin(log, 5, {**saved, "names": ["a", "b", "c", "d"]}), rows, 2, 5, 5)
    assert log.written[0]["loss"] == pytest.approx(np.nanmean(rows[2:5, 1].astype(float)), rel=1e-6)


def test_a_line_says_when_the_loss_stands_at_that_of_guessing(capsys):
    """After a whole window of such losses, not before; other tasks have no such number."""
    rows = measured(300)
    rows[:, 1], rows[:, 3] = 5.0, 0.0
    log = Lines()
    go_on(begin(log, 100, chance=5.02), rows, 0, 300, 100)
    assert [line["at_chance"] for line in log.written] == [0.0, 1.0, 1.0]
    said = [line for line in capsys.readouterr().out.splitlines() if "guessing" in line]
    assert len(said) == 2
    assert "stands at 5.02, that of guessing, for 200 steps until step 200" in said[0]
    plain = Lines()
    go_on(begin(plain, 100), rows, 0, 100, 100)
    assert "at_chance" not in plain.written[0]
