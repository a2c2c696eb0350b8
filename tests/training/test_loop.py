"""The loop, driven as a user would, with something going wrong in it."""

import os
import re
import signal
import time

import numpy as np
import pytest

from diffjax import checkpoint
from diffjax.core import signals
from diffjax.core.trees import named_leaves
from diffjax.devices import mesh
from diffjax.logs import goodput, journal, writer
from diffjax.training import loop, preview
from tests import runs
from tests.tiny_t5 import save_tiny

FLAGS = ("train.num_steps=7", "train.log_every=3", "train.save_every=99", "train.keep=99",
         "train.sample_every=0", "train.max_bad_steps=3", "text.drop=0.0")  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("t5"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


def saved(workdir, step):
    """The arrays of a checkpoint by name, and its position."""
    state, position = checkpoint.read(workdir / "checkpoints" / str(step))
    return named_leaves(state), position


def poison(monkeypatch, is_bad):
    """The text of those batches (counted from 1) is no number."""
    put, sent = mesh.to_devices, []

    def poisoned(batch, sharding):
        sent.append(1)
        if is_bad(len(sent)):
            batch = {**batch, "text": np.full_like(batch["text"], np.nan)}
        return put(batch, sharding)

    monkeypatch.setattr(mesh, "to_devices", poisoned)


def stop_after(monkeypatch, count):
    """SIGTERM while step `count` of a process is under way."""
    add, added = journal.Journal.add, []

    def interrupted(self, metrics):
        add(self, metrics)
        added.append(1)
        if len(added) == count:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(journal.Journal, "add", interrupted)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, encoder):
    workdir = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.getbasetemp() / "cache"
        patch.setenv("DIFFJAX_CACHE_DIR", str(cache))
        assert runs.run(workdir, encoder, *FLAGS) == 0
    return workdir


def test_cut_short_twice_a_run_ends_with_the_digest_and_lines_of_one_that_was_not(
    whole, tmp_path, encoder, monkeypatch, capsys
):
    """Once because its time is up, once by a signal; a line for each three steps is due at none."""
    os.link(whole / "config.json", tmp_path / "reader")  # who reads it has the old one to the end
    assert runs.run(whole, encoder, *FLAGS) == 0  # nothing is left to do, but to say the digest
    assert not (whole / "config.json").samefile(tmp_path / "reader")
    expected = runs.digest(capsys.readouterr().out)
    assert runs.run(tmp_path, encoder, *FLAGS, "train.max_seconds=0.001") == 0
    out = capsys.readouterr().out
    assert "stopped after train.max_seconds = 0.001 at step 1, saved in" in out
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        assert runs.run(tmp_path, encoder, *FLAGS) == 143
    said = capsys.readouterr()
    assert "resuming from step 1" in said.out
    assert f"stopped at step 5, saved in {tmp_path}; run again to go on" in said.err
    assert runs.run(tmp_path, encoder, *FLAGS) == 0
    out = capsys.readouterr().out
    assert "resuming from step 5" in out
    assert runs.digest(out) == expected
    assert runs.lines(tmp_path) == runs.lines(whole)
    assert [line["step"] for line in runs.lines(whole)] == [3, 6, 7]
    spent = dict(re.findall(r"^  (\w+) +([\d.]+) s", out, re.M))
    assert spent.keys() == goodput.MEANING.keys()
    assert float(spent["step"]) > 0


def test_one_bad_batch_is_skipped_counted_and_never_saved(tmp_path, encoder, monkeypatch, capsys):
    """And the writer of events fails all the while."""

    def broken(self, step, scalars):
        raise OSError("gone")

    poison(monkeypatch, lambda count: count == 4)
    monkeypatch.setattr(writer.EventWriter, "write_scalars", broken)
    assert runs.run(tmp_path, encoder, *FLAGS) == 0
    said = capsys.readouterr()
    assert said.out.count("steps skipped") == 1
    assert said.err.count("TensorBoard writer failed") == 1
    assert [(line["step"], line["skipped"]) for line in runs.lines(tmp_path)] == [
        (3, 0.0), (6, 1.0), (7, 0.0),
    ]  # fmt: skip
    arrays, position = saved(tmp_path, 7)
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert position["log"]["health"]["skipped"] == 1
    assert position["log"]["health"]["bad_in_a_row"] == 0


@pytest.mark.slow
def test_a_bad_batch_moves_no_parameter(tmp_path, encoder, monkeypatch):
    """Every step is saved: that of the bad batch, too."""
    poison(monkeypatch, lambda count: count == 4)
    assert runs.run(tmp_path, encoder, *FLAGS, "train.save_every=1") == 0
    (before, _), (after, _), (later, _) = (saved(tmp_path, step) for step in (3, 4, 5))
    moved = {name for name in before if np.any(before[name] != after[name])}
    assert {name for name in moved if not name.startswith("ema_params")} == {"step"}
    assert any(np.any(after[name] != later[name]) for name in after if name.startswith("params"))


def test_bad_batches_without_end_stop_the_run_and_leave_finite_checkpoints(
    tmp_path, encoder, monkeypatch, capsys
):
    """At the first line of the log with as many in a row as max_bad_steps, 3, says."""
    poison(monkeypatch, lambda count: count > 3)
    assert runs.run(tmp_path, encoder, *FLAGS, "train.save_every=5") == 4
    (error,) = capsys.readouterr().err.splitlines()
    assert "steps 4 to 6" in error
    assert "goes on from step 5" in error
    assert "lower optim.learning_rate (0.001)" in error
    assert [path.name for path in (tmp_path / "checkpoints").glob("[0-9]*")] == ["5"]
    arrays, _ = saved(tmp_path, 5)
    assert all(np.isfinite(array).all() for array in arrays.values())


@pytest.mark.slow
def test_parameters_that_are_not_finite_are_never_saved(tmp_path, encoder, capsys):
    """Here the gradients are finite, and the learning rate is none that float32 can hold."""
    flags = [*FLAGS, "train.save_every=1", "optim.learning_rate=1e39"]
    assert runs.run(tmp_path, encoder, *flags) == 4
    assert "after step 1 is not finite, and was not saved" in capsys.readouterr().err
    assert list((tmp_path / "checkpoints").glob("[0-9]*")) == []


def test_a_signal_while_pictures_are_made_saves_the_step_from_beside(
    tmp_path, encoder, monkeypatch, capsys
):
    """Here the process may not end, so what would end it is looked at."""
    left, shown = [], {}
    watched = lambda: signals.signals(signals.Watch(left.append))  # noqa: E731
    monkeypatch.setattr(loop, "signals", watched)

    def sampled(self, step, params):
        shown.update({k: np.asarray(x) for k, x in named_leaves(params).items()})
        signal.raise_signal(signal.SIGTERM)
        while not left:
            time.sleep(0.01)

    monkeypatch.setattr(preview.Preview, "__call__", sampled)
    flags = [*FLAGS, "train.save_every=0", "train.sample_every=4"]
    assert runs.run(tmp_path, encoder, *flags) == 143
    assert left[0] == 143
    assert "stopped at step 4, saved" in capsys.readouterr().err
    arrays, position = saved(tmp_path, 4)
    assert arrays["step"] == 4
    for name, array in shown.items():  # pictures are made with the average, not the parameters
        np.testing.assert_array_equal(array, arrays[f"ema_params/decay_0.999/{name}"])
    assert any(np.any(array != arrays[f"params/{name}"]) for name, array in shown.items())
    assert position["data"] == {"next_example": 32}
