"""The same training on one device and on many: equal bits on equal meshes, close on others."""

import functools

import jax
import numpy as np
import pytest

from diffjax import checkpoint
from diffjax.build.options import config
from diffjax.build.training import training_of
from diffjax.devices import mesh
from diffjax.training.program import program_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # each mesh is a program to compile
STEPS = 20
MESHES = [(2, 1, 1), (1, 1, 2), (1, 4, 1), (2, 2, 1), (8, 1, 1), (2, 4, 1), (2, 2, 2)]


@functools.cache
def program(sizes, accumulate=1, name="base64"):
    options = config.load(f"configs/{name}.py:tiny")
    options.optim.update(warmup_steps=2)
    options.train.accumulate = accumulate
    options.mesh.update(dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)))
    made = training_of(options, 16, devices=jax.devices()[: int(np.prod(sizes))])
    return program_of(made), made.task, options


def batch_at(step, side, max_tokens):
    random = np.random.default_rng(step)
    return {
        "image": random.integers(0, 256, (8, side, side, 3), np.uint8),
        "text": random.standard_normal((8, max_tokens, 16)).astype(jax.numpy.bfloat16),
        "text_length": random.integers(1, max_tokens, 8).astype(np.int32),
    }


def go_on(sizes, state, first=0, last=STEPS, **which):
    """The state after the steps from `first` to `last`, and their losses."""
    made, task, options = program(sizes, **which)
    losses = []
    for step in range(first, last):
        batch = batch_at(step, options.data.size_px, options.text.max_tokens)
        batch = mesh.to_devices(batch, made.batch_sharding)
        state, metrics = made.step(state, batch, task)
        losses.append(metrics["loss"])
    return state, [float(loss) for loss in losses]


def trained(sizes, **which):
    made, *_ = program(sizes, **which)
    state, losses = go_on(sizes, made.place.init(jax.random.key(0)), **which)
    return jax.device_get(state), losses


one_device = functools.cache(functools.partial(trained, (1, 1, 1)))


def furthest(ours, theirs):
    """The largest difference of parameters, or of an average, relative to their largest number.

    Not of each array by itself: one that begins at zero has moved by little, and Adam enlarges
    the rounding of a gradient that is next to nothing to a part of that.
    """
    largest = lambda tree: max(float(np.max(np.abs(x))) for x in jax.tree.leaves(tree))  # noqa: E731
    return max(
        largest(jax.tree.map(np.subtract, a, b)) / largest(b)
        for a, b in ((ours.params, theirs.params), (ours.ema_params, theirs.ema_params))
    )


@pytest.mark.parametrize("sizes", MESHES)
def test_a_mesh_repeats_its_bits_and_others_come_within_1e_5(sizes):
    expected, losses = one_device()
    first, first_losses = trained(sizes)
    print("mesh", sizes, "furthest", furthest(first, expected),
          "loss", np.max(np.abs(np.array(first_losses) / losses - 1)))  # fmt: skip
    again, again_losses = trained(sizes)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert first_losses == again_losses
    assert furthest(first, expected) < 1e-5
    np.testing.assert_allclose(first_losses, losses, rtol=1e-6)


def test_a_run_saved_on_one_mesh_goes_on_on_another(tmp_path):
    expected, losses = one_device()
    meshes = [(4, 2, 1), (1, 1, 2), (1, 4, 1), (2, 2, 2)]
    state = program(meshes[0])[0].place.init(jax.random.key(0))
    seen = []
    with checkpoint.open_dir(tmp_path / "checkpoints") as checkpoints:
        for i, sizes in enumerate(meshes):
            if i:
                state, position = checkpoint.restore(
                    checkpoints, program(sizes)[0].place.state_shape
                )
                assert position == {"next_example": 5 * i * 8}
            state, some = go_on(sizes, state, 5 * i, 5 * (i + 1))
            seen += some
            checkpoint.save(checkpoints, 5 * (i + 1), state, {"next_example": 5 * (i + 1) * 8})
    print("furthest", furthest(jax.device_get(state), expected))
    assert furthest(jax.device_get(state), expected) < 1e-5
    np.testing.assert_allclose(seen, losses, rtol=1e-6)


@pytest.mark.parametrize(("sizes", "accumulate"), [((1, 1, 1), 8), ((1, 1, 1), 2), ((2, 2, 1), 2)])
def test_accumulated_gradients_are_those_of_the_large_batch(sizes, accumulate):
    expected, losses = one_device()
    got, got_losses = trained(sizes, accumulate=accumulate)
    print("accumulate", accumulate, "furthest", furthest(got, expected))
    assert furthest(got, expected) < 1e-5
    np.testing.assert_allclose(got_losses, losses, rtol=1e-6)
