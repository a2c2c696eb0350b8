import errno
import json
import resource
import threading

import jax
import numpy as np
import pytest

from diffjax import checkpoint
from diffjax.checkpoint import folder, manifest, saving
from diffjax.core import digest
from diffjax.core.errors import StorageError
from tests.checkpoint.states import POSITION, array_files, fill, flip, like, state


def names(path):
    return sorted(p.name for p in path.iterdir())


def test_the_newest_are_kept_and_every_fifth_for_good(tmp_path):
    fill(tmp_path, *range(3, 13), keep=2, keep_every=5)
    assert names(tmp_path) == ["10", "11", "12", "5"]


def test_an_older_step_goes_only_when_the_manifest_of_the_new_one_is_there(tmp_path, monkeypatch):
    removed, remove = [], folder.remove

    def watched(directory, step):
        removed.append(step)
        assert manifest.inspect(directory / str(step + 2), full=True).state == "good"
        remove(directory, step)

    monkeypatch.setattr(folder, "remove", watched)
    fill(tmp_path, 1, 2, 3, 4, keep=2)
    assert removed == [1, 2]


def test_a_step_that_is_damaged_does_not_count_as_kept(tmp_path):
    fill(tmp_path, 1, 2, 3)
    (tmp_path / "3/manifest.json").write_text("{}")
    fill(tmp_path, 4, keep=2)
    assert checkpoint.open_to_read(tmp_path).all_steps() == [2, 4]


def test_a_step_cut_off_before_its_manifest_does_not_count_and_can_be_saved_again(tmp_path):
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


def test_the_only_step_is_not_deleted_though_its_manifest_is_missing(tmp_path):
    fill(tmp_path, 1)
    (tmp_path / "1/manifest.json").unlink()
    with checkpoint.open_dir(tmp_path, keep=1):
        assert names(tmp_path) == ["1"]


def test_a_step_found_corrupt_is_written_again_when_the_run_comes_back_to_it(tmp_path):
    fill(tmp_path, 1, 2)
    flip(array_files(tmp_path / "2")[0])
    with checkpoint.open_dir(tmp_path, keep=3) as checkpoints:
        assert checkpoints.latest_step() == 2  # sizes do not tell
        checkpoint.restore(checkpoints, like())
        assert checkpoints.latest_step() == 1  # hashes do
        checkpoint.save(checkpoints, 2, state(2), POSITION)
    assert [f.state for f in checkpoint.survey(tmp_path, full=True)] == ["good", "good"]


def test_saving_a_step_that_is_there_changes_nothing(tmp_path):
    fill(tmp_path, 1)
    before = (tmp_path / "1").stat().st_ino
    fill(tmp_path, 1)
    assert (tmp_path / "1").stat().st_ino == before


def test_a_save_returns_before_the_manifest_is_made_and_finish_waits_for_it(tmp_path, monkeypatch):
    go, write = threading.Event(), manifest.write
    monkeypatch.setattr(manifest, "write", lambda path: go.wait(60) and write(path))
    checkpoints = checkpoint.open_dir(tmp_path)
    checkpoint.save(checkpoints, 1, state(1), POSITION)
    assert checkpoints.latest_step() is None
    go.set()
    checkpoint.finish(checkpoints)
    assert checkpoints.latest_step() == 1


def test_what_a_killed_save_left_is_swept_by_the_trainer_and_not_by_a_reader(tmp_path):
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


def test_no_room_is_said_before_anything_is_written(tmp_path, monkeypatch):
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


def test_a_disk_that_fills_up_while_writing_leaves_the_older_steps_and_no_rubbish(tmp_path):
    """A limit on the size of files stands in for the disk; random numbers do not compress."""
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
    checkpoint.save(checkpoints, 2, big, POSITION)  # room was made
    checkpoint.finish(checkpoints)
    assert [f.state for f in checkpoint.survey(tmp_path, full=True)] == ["good", "good"]


def test_a_manifest_that_cannot_be_written_is_told_at_the_next_save_once(tmp_path, monkeypatch):
    def full(path):
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


def test_what_a_checkpoint_needs_is_not_less_than_it_takes(tmp_path):
    fill(tmp_path, 1)
    (found,) = checkpoint.survey(tmp_path)
    assert found.num_bytes <= checkpoint.needed_bytes(like())
    big = {"kernel": np.random.default_rng(0).normal(size=(1 << 12, 64)).astype(np.float32)}
    assert 1 << 20 <= checkpoint.needed_bytes(big) < 1.2 * (1 << 20)


def test_orbax_can_be_told_which_steps_have_a_manifest(tmp_path):
    """By a mark in orbax's own file: a step of this version without a manifest was cut off."""
    fill(tmp_path, 1)
    metadata = json.loads((tmp_path / "1/_CHECKPOINT_METADATA").read_text())
    assert metadata["custom_metadata"] == {"manifest": "diffjax-checkpoint-1"}


def test_saves_from_two_threads_take_turns(tmp_path):
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
    ("steps", "keep", "keep_every", "gone"),
    [
        ("1 2 3 4", 3, 0, [1]),
        ("1 2 3 4", 0, 0, [1, 2, 3]),  # the newest always stays
        ("1 2c 3 4", 2, 0, [1, 2]),
        ("1 2 3 4c", 2, 0, [1]),  # nothing whole is newer than 4
        ("1c 2i", 1, 0, []),
        ("1u 2u 3", 2, 0, [1]),
        ("2 4 5 6 7", 1, 2, [5]),
        ("0 10 11", 1, 10, []),
    ],
)
def test_which_steps_go(steps, keep, keep_every, gone):
    states = {"": "good", "c": "corrupt", "i": "incomplete", "u": "unverified"}
    found = [
        manifest.Found(int(s.rstrip("ciu")), states[s.lstrip("0123456789")], "", 0, 0.0)
        for s in steps.split()
    ]
    assert folder.superseded(found, keep, keep_every) == gone


def test_a_donated_state_is_saved_as_it_was(tmp_path):
    """Training gives a state's memory to the next step while the save goes on."""
    first = jax.device_put(state(1))
    want = digest.digest_of(first, {})
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
    with checkpoint.open_dir(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, 1, first, POSITION)
        overwrite(first)
        checkpoint.finish(checkpoints)
        restored, _ = checkpoint.restore(checkpoints, like())
    assert digest.digest_of(restored, {}) == want
