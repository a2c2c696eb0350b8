import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from diffjax import checkpoint
from diffjax.core import digest
from diffjax.core.errors import StorageError
from diffjax.devices import mesh
from tests.checkpoint.states import POSITION, array_files, fill, flip, like, state


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Steps 1 to 3. Tests must not change them."""
    path = tmp_path_factory.mktemp("saved")
    fill(path, 1, 2, 3)
    return checkpoint.open_to_read(path)


def copy_of(saved, path):
    path.mkdir()
    for file in saved.directory.rglob("*"):
        if file.is_file():
            target = path / file.relative_to(saved.directory)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return path


def test_a_state_and_its_data_position_are_restored_exactly(saved):
    restored, position = checkpoint.restore(saved, like())
    assert type(restored) is type(state())
    assert digest.leaf_digests(restored) == digest.leaf_digests(state(3))
    assert position == POSITION
    assert int(checkpoint.restore(saved, like(), step=2)[0].step) == 2


@pytest.mark.parametrize(("before", "after"), [(8, 1), (8, 2), (8, 4), (2, 8)])
def test_a_state_is_restored_exactly_on_another_number_of_devices(before, after, tmp_path):
    devices = jax.devices()
    place = jax.tree.map(
        lambda x: x.sharding, like(mesh.make_mesh(devices=devices[:before], fsdp=before))
    )
    with checkpoint.open_dir(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, 3, jax.device_put(state(3), place), POSITION)
        target = like(mesh.make_mesh(devices=devices[:after], fsdp=after))
        restored, _ = checkpoint.restore(checkpoints, target)
    assert digest.leaf_digests(restored) == digest.leaf_digests(state(3))
    kernel = restored.params["out"]["kernel"]
    assert kernel.sharding == target.params["out"]["kernel"].sharding
    assert len(kernel.addressable_shards) == after


def test_one_part_of_a_state_can_be_restored(saved):
    want = state(3).ema_params["decay_0.9"]
    name = "ema_params/decay_0.9"
    part, step = checkpoint.restore_part(saved, name, like().ema_params["decay_0.9"])
    assert step == 3
    assert jax.tree.structure(part) == jax.tree.structure(want)
    assert digest.leaf_digests(part) == digest.leaf_digests(want)
    params, _ = checkpoint.restore_part(saved, "params", like().params)
    assert digest.leaf_digests(params) == digest.leaf_digests(state(3).params)
    with pytest.raises(ValueError, match="holds no ema_params/other"):
        checkpoint.restore_part(saved, "ema_params/other", like().params)


def test_a_step_can_be_read_without_a_model(saved):
    tree, position = checkpoint.read(saved.directory / "3")
    assert digest.digest_of(tree, position) == digest.digest_of(state(3), POSITION)
    bias, _ = checkpoint.read(saved.directory / "3", "params/norm")
    np.testing.assert_array_equal(bias["bias"], state(3).params["norm"]["bias"])
    with pytest.raises(KeyError):
        checkpoint.read(saved.directory / "3", "params/absent")


def test_training_resumes_from_the_third_newest_step_if_the_two_newest_are_damaged(
    saved, tmp_path, capsys
):
    path = copy_of(saved, tmp_path / "copy")
    flipped, cut = array_files(path / "3")[0], array_files(path / "2")[0]
    flip(flipped, position=20)
    cut.write_bytes(cut.read_bytes()[:-1])
    restored, _ = checkpoint.restore(checkpoint.open_to_read(path), like())
    assert digest.leaf_digests(restored) == digest.leaf_digests(state(1))
    third, second = capsys.readouterr().out.splitlines()
    assert third.startswith("step 3 is corrupt, skipped")
    assert flipped.name in third
    assert second.startswith("step 2 is corrupt, skipped")
    assert cut.name in second


def test_verify_size_does_not_hash_the_files(saved, tmp_path):
    """The flipped bit is in a file that a restore does not read, so only hashing can find it."""
    path = copy_of(saved, tmp_path / "copy")
    flip(path / "3/state/commit_success.txt")
    found = checkpoint.open_to_read(path)
    assert checkpoint.choose(found, verify="size").name == "3"
    assert checkpoint.choose(found, verify="full").name == "2"


def test_a_run_does_not_start_anew_if_all_its_steps_are_damaged(saved, tmp_path):
    path = copy_of(saved, tmp_path / "copy")
    for step in (1, 2, 3):
        flip(path / f"{step}/state/_METADATA")
    with pytest.raises(StorageError, match=r"step 1 is corrupt \(state/_METADATA .*no other"):
        checkpoint.restore(checkpoint.open_to_read(path), like())
    with pytest.raises(StorageError, match=r"step 2 is corrupt \(state/_METADATA"):
        checkpoint.restore(checkpoint.open_to_read(path), like(), step=2)


def test_an_unfinished_step_counts_as_no_checkpoint(saved, tmp_path, capsys):
    path = copy_of(saved, tmp_path / "copy")
    for step in (1, 2, 3):
        (path / f"{step}/manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no checkpoint under .* was finished"):
        checkpoint.restore(checkpoint.open_to_read(path), like())
    assert "step 3 is incomplete, skipped: manifest.json is missing" in capsys.readouterr().out


def test_a_step_older_than_manifests_is_restored_with_a_warning(tmp_path, capsys):
    """Such steps were saved by orbax's own manager."""
    handlers = {"state": ocp.StandardCheckpointHandler(), "data": ocp.JsonCheckpointHandler()}
    with ocp.CheckpointManager(tmp_path, item_handlers=handlers) as manager:
        manager.save(
            5,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state(5)), data=ocp.args.JsonSave(POSITION)
            ),
        )
    checkpoints = checkpoint.open_to_read(tmp_path)
    assert [f.state for f in checkpoints.survey()] == ["unverified"]
    restored, position = checkpoint.restore(checkpoints, like())
    assert digest.digest_of(restored, position) == digest.digest_of(state(5), POSITION)
    assert "warning: step 5 cannot be verified" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda p: p | {"out": {"kernel": jnp.zeros((64, 16), jnp.bfloat16)}},
            r"params/out/kernel is \(\(64, 16\), 'float32'\).*bfloat16",
        ),
        (lambda p: p | {"more": {"bias": jnp.zeros(8)}}, "params/more/bias is missing"),
        (lambda p: p | {"out": {"kernel": jnp.zeros((64, 17))}}, r"\(64, 17\)"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_and_the_array_is_named(saved, change, words):
    """orbax alone would cast the dtype silently."""
    other = jax.eval_shape(lambda: state().replace(params=change(state().params)))
    with pytest.raises(ValueError, match=words):
        checkpoint.restore(saved, other)


def test_a_missing_checkpoint_is_an_error(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint under"):
        checkpoint.restore(checkpoint.open_to_read(tmp_path / "absent"), like())
    with pytest.raises(FileNotFoundError, match="no checkpoint of step 9 under"):
        checkpoint.restore(saved, like(), step=9)
