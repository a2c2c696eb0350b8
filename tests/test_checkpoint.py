import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import checkpoint, parallel


def tree(dtype=jnp.float32):
    return {"out": {"kernel": jnp.arange(32, dtype=dtype).reshape(4, 8)}, "step": jnp.int32(3)}


@pytest.fixture
def manager(tmp_path):
    with checkpoint.open_dir(tmp_path / "checkpoints", keep=2) as opened:
        yield opened


def test_a_state_comes_back_bit_for_bit_with_the_position_of_the_data(manager):
    checkpoint.save(manager, 3, tree(), {"next_index": 17})
    manager.wait_until_finished()
    restored, position = checkpoint.restore(manager, jax.eval_shape(tree))
    np.testing.assert_array_equal(restored["out"]["kernel"], tree()["out"]["kernel"])
    assert int(restored["step"]) == 3
    assert position == {"next_index": 17}


def test_a_state_may_be_restored_onto_another_mesh(manager):
    checkpoint.save(manager, 1, tree(), {})
    manager.wait_until_finished()
    mesh = parallel.make_mesh(fsdp=8)
    place = parallel.state_sharding(mesh, jax.eval_shape(tree))
    like = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), jax.eval_shape(tree), place
    )
    restored, _ = checkpoint.restore(manager, like)
    assert restored["out"]["kernel"].sharding == place["out"]["kernel"]
    np.testing.assert_array_equal(restored["out"]["kernel"], tree()["out"]["kernel"])


def test_only_the_newest_are_kept(manager):
    for step in (1, 2, 3):
        checkpoint.save(manager, step, tree(), {})
    manager.wait_until_finished()
    assert list(manager.all_steps()) == [2, 3]


@pytest.mark.parametrize(
    ("like", "words"),
    [
        (lambda: tree(jnp.bfloat16), r"out/kernel is \(\(4, 8\), 'float32'\).*bfloat16"),
        (lambda: {"a": {"bias": jnp.zeros(8)}, "step": jnp.int32(0)}, "a/bias is missing"),
        (lambda: {**tree(), "out": {"kernel": jnp.zeros((4, 9))}}, r"\(4, 9\)"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_by_the_name_of_the_array(manager, like, words):
    """orbax alone would cast the dtype without a word."""
    checkpoint.save(manager, 1, tree(), {})
    manager.wait_until_finished()
    with pytest.raises(ValueError, match=words):
        checkpoint.restore(manager, jax.eval_shape(like))


def test_no_checkpoint_is_said(manager):
    with pytest.raises(FileNotFoundError, match="no checkpoint under"):
        checkpoint.restore(manager, jax.eval_shape(tree))
