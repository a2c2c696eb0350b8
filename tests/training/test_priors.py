"""Priors are trained alike on one device and on eight."""

import dataclasses

import jax
import numpy as np
import pytest

from diffjax.build.options import config
from diffjax.build.training import training_of
from diffjax.devices import mesh
from diffjax.tasks.buckets import BASIS
from diffjax.training.program import program_of
from tests.training.test_meshes import furthest

pytestmark = pytest.mark.slow  # each mesh is a program to compile


def basis_of(task):
    """A made-up basis: the first axes."""
    shapes = task.frozen[BASIS]
    made = {name: np.ones(one.shape, np.float32) for name, one in shapes.items()}
    made["components"] = np.eye(*made["components"].shape, dtype=np.float32)
    return made


def trained(preset, sizes, steps=6):
    options = config.load(f"configs/prior.py:{preset}")
    options.train.ema = ("decay_0.9",)
    options.text.update(width=8, max_tokens=6)
    options.vectors.width = 8
    options.mesh.update(dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)))
    training = training_of(options, 8, devices=jax.devices()[: int(np.prod(sizes))])
    if preset == "tiny_ar":
        task = dataclasses.replace(training.task, frozen={BASIS: basis_of(training.task)})
        training = dataclasses.replace(training, task=task)
    made = program_of(training)
    state, losses = made.place.init(jax.random.key(0)), []
    for step in range(steps):
        random = np.random.default_rng(step)
        normal = lambda *shape: random.standard_normal(shape).astype(np.float32)  # noqa: E731, B023
        batch = {
            "image_vector": normal(8, 8) / 8**0.5,
            "text_vector": normal(8, 8) / 8**0.5,
            "text": normal(8, 6, 8).astype(training.task.columns()["text"].dtype),
            "text_length": random.integers(1, 7, 8).astype(np.int32),
        }
        batch = mesh.to_devices(batch, made.batch_sharding)
        state, metrics = made.step(state, batch, training.task)
        losses.append(float(metrics["loss"]))
    return jax.device_get(state), losses


@pytest.mark.parametrize("preset", ["tiny", "tiny_ar"])
def test_eight_devices_train_as_one_does(preset):
    (one, losses), (eight, others) = trained(preset, (1, 1, 1)), trained(preset, (2, 2, 2))
    np.testing.assert_allclose(others, losses, rtol=1e-4)
    assert furthest(eight, one) < 5e-4
