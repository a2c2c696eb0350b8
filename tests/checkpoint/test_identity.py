"""A step folder that was renamed or copied is not taken for what it is not."""

import json
import shutil

import pytest

from diffjax import checkpoint
from diffjax.checkpoint import __main__ as commands
from diffjax.checkpoint import config_copy, identity, manifest, portable
from diffjax.core import digest
from diffjax.core.errors import StorageError
from tests.checkpoint.states import POSITION, fill, flip, like, state


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Steps 1 and 2 of a run. Tests must not change them."""
    path = tmp_path_factory.mktemp("saved")
    fill(path, 1, 2, config='{"stage": "a"}\n')
    return path


@pytest.fixture
def mine(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def older(folder, *, step=True):
    """Make the manifest of a step one of version 0.1.0, which has neither number nor run."""
    content = manifest._from_bytes((folder / "manifest.json").read_bytes())
    for name in ("run", *(["step"] if step else [])):
        content.pop(name, None)
    (folder / "manifest.json").write_bytes(manifest._to_bytes(content))


@pytest.mark.parametrize("old", [False, True])
def test_a_step_under_another_number_is_not_restored_and_does_not_stop_that_step_from_being_saved(
    mine, capsys, old
):
    """Else a run that reaches this number would take its own step for saved, and lose it."""
    shutil.copytree(mine / "1", mine / "9")
    if old:
        older(mine / "9")
    with checkpoint.open_dir(mine, keep=2) as checkpoints:
        restored, _ = checkpoint.restore(checkpoints, like())
        assert int(restored.step) == 2
        said = capsys.readouterr().out
        assert "step 9 is foreign, skipped: it is step 1 in a folder that was renamed" in said
        assert checkpoints.latest_step() == 2
        checkpoint.save(checkpoints, 9, state(9), POSITION)
        checkpoint.finish(checkpoints)
        assert int(checkpoint.restore(checkpoints, like())[0].step) == 9
    (aside,) = mine.glob("9.foreign-*")  # it may be somebody's only copy
    assert (aside / "manifest.json").exists()


@pytest.mark.parametrize("old", [False, True])
def test_verify_says_of_a_copied_step_which_one_it_is(mine, capsys, old):
    shutil.copytree(mine / "1", mine / "9")
    if old:
        older(mine / "9")
    assert commands.main(["verify", str(mine)]) == 5
    (line,) = (x for x in capsys.readouterr().out.splitlines() if "foreign" in x)
    assert "it is step 1 in a folder" in line


def test_a_step_of_another_run_is_refused_and_both_runs_are_named(mine, tmp_path, capsys):
    other = tmp_path / "other"
    fill(other, 7)
    shutil.copytree(other / "7", mine / "7")
    with checkpoint.open_dir(mine) as checkpoints:
        assert int(checkpoint.restore(checkpoints, like())[0].step) == 2
    said = capsys.readouterr().out
    assert identity.read(other) in said
    assert identity.read(mine) in said
    with pytest.raises(StorageError, match="step 7 is foreign"):
        checkpoint.choose(checkpoint.open_to_read(mine), 7)
    fill(mine, 8, keep=1)
    assert (mine / "7").is_dir()  # a foreign step is never deleted


def test_a_copy_of_all_checkpoints_and_a_lone_copied_step_are_restored(saved, mine, tmp_path):
    with checkpoint.open_dir(mine) as checkpoints:
        assert checkpoint.choose(checkpoints).name == "2"
    alone = tmp_path / "new/checkpoints"
    shutil.copytree(saved / "2", alone / "2")
    fill(alone, 3)
    assert [f.state for f in checkpoint.survey(alone, full=True)] == ["good", "good"]
    assert identity.read(alone) == identity.read(saved)  # the step says which run this is


def test_steps_of_an_older_version_are_restored_and_the_run_gets_a_name(mine):
    (mine / "run.json").unlink()
    for step in ("1", "2"):
        older(mine / step)
    with checkpoint.open_dir(mine) as checkpoints:
        restored, _ = checkpoint.restore(checkpoints, like())
        assert digest.leaf_digests(restored) == digest.leaf_digests(state(2))
        checkpoint.save(checkpoints, 3, state(3), POSITION)
    assert manifest.run_of(mine / "3") == identity.read(mine) != ""
    assert [f.state for f in checkpoint.survey(mine, full=True)] == ["good"] * 3


@pytest.mark.parametrize("damage", ["", "{}", '{"run": 3}', "[]", "\0\0"])
def test_a_damaged_name_of_a_run_is_set_aside_and_taken_from_its_newest_step(mine, damage, capsys):
    run = identity.read(mine)
    (mine / "run.json").write_text(damage)
    assert checkpoint.choose(checkpoint.open_to_read(mine)).name == "2"
    with checkpoint.open_dir(mine):
        assert identity.read(mine) == run
    assert "set aside as run.json.damaged" in capsys.readouterr().err


def test_each_step_has_a_copy_of_the_config_that_its_manifest_vouches_for(mine, tmp_path, capsys):
    assert config_copy.newest(tmp_path) == {"stage": "a"}
    flip(mine / "2/config.json")
    assert manifest.inspect(mine / "2", full=True).state == "corrupt"
    assert config_copy.newest(tmp_path) == {"stage": "a"}  # that of step 1
    (tmp_path / "config.json").write_text("{")
    assert json.loads(portable.config_of(tmp_path)) == {"stage": "a"}
    assert "the copy in its newest checkpoint is used" in capsys.readouterr().err
