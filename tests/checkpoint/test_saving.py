import errno
import itertools
import json
import re
import resource
import threading
import time

import jax
import numpy as np
import pytest

from diffjax import checkpoint
from diffjax.checkpoint import manifest, orbax_parts, saving, steps
from diffjax.core import digest
from diffjax.core.errors import ConfigError, StorageError
from tests.checkpoint.states import POSITION, array_files, fill, flip, like, state


def names(path):
    return sorted(p.name for p in path.iterdir() if p.name != "run.json")


def test_the_newest_steps_and_every_fifth_are_kept(tmp_path):
    fill(tmp_path, *range(3, 13), keep=2, keep_every=5)
    assert names(tmp_path) == ["10", "11", "12", "5"]


def test_an_older_step_is_deleted_only_after_the_new_manifest_is_written(tmp_path, monkeypatch):
    removed, remove = [], steps.remove

    def watched(directory, step):
        removed.append(step)
        assert manifest.inspect(directory / str(step + 2), full=True).state == "good"
        remove(directory, step)

    monkeypatch.setattr(steps, "remove", watched)
    fill(tmp_path, 1, 2, 3, 4, keep=2)
    assert removed == [1, 2]


def test_a_damaged_step_does_not_count_as_kept(tmp_path):
    fill(tmp_path, 1, 2, 3)
    (tmp_path / "3/manifest.json").write_text("{}")
    fill(tmp_path, 4, keep=2)
    assert checkpoint.open_to_read(tmp_path).all_steps() == [2, 4]


def test_a_step_without_its_manifest_is_ignored_and_can_be_saved_again(tmp_path):
    fill(tmp_path, 1, 2)
    (tmp_path / "2/manifest.json").unlink()
    assert checkpoint.open_to_read(tmp_path).latest_step() == 1
    with checkpoint.open_dir(tmp_path, keep=3) as checkpoints:
        assert names(tmp_path) == ["1"]
        checkpoint.save(checkpoints, 2, state(2), POSITION)
        checkpoint.finish(checkpoints)
        assert checkpoints.latest_step() == 2
        restored, _ = checkpoint.restore(checkpoints, like())
    assert digest.digest_of(restored, {}) == digest.digest_of(state(2), {})


def test_the_only_step_is_kept_even_without_its_manifest(tmp_path):
    fill(tmp_path, 1)
    (tmp_path / "1/manifest.json").unlink()
    with checkpoint.open_dir(tmp_path, keep=1):
        assert names(tmp_path) == ["1"]


def test_a_step_found_corrupt_is_replaced_by_the_next_save_of_that_step(tmp_path):
    fill(tmp_path, 1, 2)
    flip(array_files(tmp_path / "2")[0])
    with checkpoint.open_dir(tmp_path, keep=3) as checkpoints:
        assert checkpoints.latest_step() == 2  # the sizes are right
        checkpoint.restore(checkpoints, like())
        assert checkpoints.latest_step() == 1  # the hashes are not
        checkpoint.save(checkpoints, 2, state(2), POSITION)
    assert [f.state for f in checkpoint.survey(tmp_path, full=True)] == ["good", "good"]


def test_saving_a_complete_step_again_changes_nothing(tmp_path):
    fill(tmp_path, 1)
    before = (tmp_path / "1").stat().st_ino
    fill(tmp_path, 1)
    assert (tmp_path / "1").stat().st_ino == before


def test_save_returns_before_the_manifest_is_written_and_finish_waits_for_it(tmp_path, monkeypatch):
    go, write = threading.Event(), manifest.write
    monkeypatch.setattr(manifest, "write", lambda *of: go.wait(60) and write(*of))
    checkpoints = checkpoint.open_dir(tmp_path)
    checkpoint.save(checkpoints, 1, state(1), POSITION)
    assert checkpoints.latest_step() is None
    go.set()
    checkpoint.finish(checkpoints)
    assert checkpoints.latest_step() == 1


def test_leftovers_of_a_killed_save_are_deleted_by_a_trainer_but_not_by_a_reader(tmp_path):
    fill(tmp_path, 1)
    left = ["2.orbax-checkpoint-tmp", "3.orbax-checkpoint-tmp-17", "0.removed-ab12"]
    for name in left:
        (tmp_path / name / "state").mkdir(parents=True)
    (tmp_path / "lost+found").mkdir()
    with checkpoint.open_to_read(tmp_path) as found:
        assert found.all_steps() == [1]
    assert set(left) < set(names(tmp_path))
    with checkpoint.open_dir(tmp_path):
        assert names(tmp_path) == ["1", "lost+found"]


def test_a_save_without_room_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    fill(tmp_path, 1)
    monkeypatch.setattr(saving, "free_bytes", lambda path: 1000)
    with (
        checkpoint.open_dir(tmp_path) as checkpoints,
        pytest.raises(
            StorageError, match=r"step 2 was not saved: .*full; 1 kB free, \d+ kB needed"
        ),
    ):
        checkpoint.save(checkpoints, 2, state(2), POSITION)
    assert names(tmp_path) == ["1"]


def test_a_disk_that_fills_up_while_writing_leaves_only_the_older_steps(tmp_path):
    """A limit on the file size acts as the full disk; random numbers cannot be compressed."""
    fill(tmp_path, 1)
    big = state(2, size=1 << 14)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints = checkpoint.open_dir(tmp_path)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
        checkpoint.save(checkpoints, 2, big, POSITION)
        with pytest.raises(StorageError, match=r"step 2 was not saved: .* free, .* needed"):
            checkpoint.finish(checkpoints)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["1"]
    checkpoint.save(checkpoints, 2, big, POSITION)  # with room again
    checkpoint.finish(checkpoints)
    assert [f.state for f in checkpoint.survey(tmp_path, full=True)] == ["good", "good"]


def test_a_failure_to_write_the_manifest_is_raised_once_by_the_next_save(tmp_path, monkeypatch):
    def full(*of):
        raise OSError(errno.ENOSPC, "No space left on device")

    with checkpoint.open_dir(tmp_path) as checkpoints:
        with monkeypatch.context() as patch:
            patch.setattr(manifest, "write", full)
            checkpoint.save(checkpoints, 1, state(1), POSITION)
            with pytest.raises(StorageError, match="step 1 was not saved: No space left"):
                checkpoint.save(checkpoints, 2, state(2), POSITION)
        assert names(tmp_path) == []
        checkpoint.save(checkpoints, 2, state(2), POSITION)
    assert checkpoints.all_steps() == [2]


def test_needed_bytes_is_an_upper_bound_of_the_size_on_disk(tmp_path):
    fill(tmp_path, 1)
    (found,) = checkpoint.survey(tmp_path)
    assert found.num_bytes <= checkpoint.needed_bytes(like())
    big = {"kernel": np.random.default_rng(0).normal(size=(1 << 12, 64)).astype(np.float32)}
    assert 1 << 20 <= checkpoint.needed_bytes(big) < 1.2 * (1 << 20)


def test_a_step_is_marked_as_one_that_gets_a_manifest(tmp_path):
    """The mark in orbax's file tells an interrupted save from a step older than manifests."""
    fill(tmp_path, 1)
    metadata = json.loads((tmp_path / "1/_CHECKPOINT_METADATA").read_text())
    assert metadata["custom_metadata"] == {"manifest": "diffjax-checkpoint-1"}


def test_saves_from_several_threads_run_one_after_the_other(tmp_path):
    checkpoints = checkpoint.open_dir(tmp_path, keep=9)
    threads = [
        threading.Thread(target=checkpoint.save, args=(checkpoints, step, state(step), POSITION))
        for step in (1, 2, 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    checkpoint.finish(checkpoints)
    assert [f.state for f in checkpoint.survey(tmp_path, full=True)] == ["good"] * 3


@pytest.mark.parametrize(
    ("listed", "keep", "keep_every", "gone"),
    [
        ("1 2 3 4", 3, 0, [1]),
        ("1 2 3 4", 0, 0, [1, 2, 3]),  # the newest always stays
        ("1 2c 3 4", 2, 0, [1, 2]),
        ("1 2 3 4c", 2, 0, [1]),  # no complete step is newer than 4
        ("1c 2i", 1, 0, []),
        ("1u 2u 3", 2, 0, [1]),
        ("2 4 5 6 7", 1, 2, [5]),
        ("0 10 11", 1, 10, []),
    ],
)
def test_steps_are_pruned_as_documented(listed, keep, keep_every, gone):
    states = {"": "good", "c": "corrupt", "i": "incomplete", "u": "unverified"}
    found = [
        manifest.StepReport(int(s.rstrip("ciu")), states[s.lstrip("0123456789")], "", 0, 0.0)
        for s in listed.split()
    ]
    assert steps.steps_to_prune(found, keep, keep_every) == gone


def test_a_state_donated_during_its_save_is_saved_correctly(tmp_path):
    """Training reuses the memory of a state for the next step while its save is running."""
    first = jax.device_put(state(1))
    want = digest.digest_of(first, {})
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
    with checkpoint.open_dir(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, 1, first, POSITION)
        overwrite(first)
        checkpoint.finish(checkpoints)
        restored, _ = checkpoint.restore(checkpoints, like())
    assert digest.digest_of(restored, {}) == want


def test_only_large_arrays_are_cut_into_parts_for_the_devices_that_hold_them(tmp_path, monkeypatch):
    """orbax cuts by `slice_in_dim`, a call for each device's part."""
    cut, slice_in_dim = [], jax.lax.slice_in_dim

    def noted(array, *args, **kwargs):
        cut.append(array.shape)
        return slice_in_dim(array, *args, **kwargs)

    monkeypatch.setattr(jax.lax, "slice_in_dim", noted)
    devices = jax.sharding.Mesh(jax.devices(), ("all",))
    everywhere = jax.sharding.NamedSharding(devices, jax.sharding.PartitionSpec())
    large = (
        len(jax.devices()),
        orbax_parts.SMALL_BYTES,
    )  # one byte a number: a part is just enough
    arrays = {"small": np.ones((64, 16), np.uint8), "large": np.ones(large, np.uint8)}
    with checkpoint.open_dir(tmp_path, keep=1) as checkpoints:
        checkpoint.save(checkpoints, 1, jax.device_put(arrays, everywhere), POSITION)
    assert set(cut) == {large}


def test_a_process_that_was_taken_over_writes_no_step_and_removes_none(tmp_path):
    def fence():
        raise ConfigError("workdir", "w", "process 7 took over")

    fill(tmp_path, 1)
    checkpoints = checkpoint.open_dir(tmp_path, keep=1, fence=fence)
    with pytest.raises(ConfigError, match="took over"):
        checkpoint.save(checkpoints, 2, state(2), POSITION)
    assert names(tmp_path) == ["1"]


def test_a_clock_that_is_set_forward_does_not_end_a_save(tmp_path, monkeypatch):
    """By half an hour each time it is asked: orbax gives a save 20 minutes."""
    times = itertools.count(time.time(), 1800.0)
    monkeypatch.setattr(time, "time", lambda: next(times))
    fill(tmp_path, 1, 2)
    assert checkpoint.open_to_read(tmp_path).all_steps() == [1, 2]


@pytest.mark.parametrize(
    ("why", "words"),
    [
        (OSError(errno.ENOSPC, "No space"), "No space left on device; .* make room and run again"),
        (ValueError("UNKNOWN: File too large [path]"), "File too large; .* make room"),
        (FileNotFoundError(2, "No such file"), "deleted while it was written; .* run again"),
        (TimeoutError("Timed out after 1500 s"), "the disk did not answer in time"),
    ],
)
def test_a_save_that_failed_names_its_true_cause_and_what_helps(why, words, tmp_path):
    assert re.search(words, str(saving._failed(tmp_path, 3, 1000, why)))


def test_a_workdir_that_was_moved_during_a_save_is_told_so(tmp_path):
    error = saving._failed(tmp_path / "moved/checkpoints", 3, 1000, FileNotFoundError())
    assert "the folder is gone; put the workdir back" in str(error)
    assert "room" not in str(error)
