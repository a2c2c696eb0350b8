"""A classifier is trained alike on one device and on eight."""

import jax
import numpy as np
import pytest

from diffjax.build.options import config
from diffjax.build.training import training_of
from diffjax.devices import mesh
from diffjax.training.program import program_of
from tests.training.test_meshes import furthest

pytestmark = pytest.mark.slow  # each mesh is a program to compile


def trained(sizes, steps=6):
    options = config.load("configs/adm_classifier.py:tiny")
    options.model.update(mults=(1,), attention_levels=(0,))
    options.train.ema = ("decay_0.9",)
    options.mesh.update(dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)))
    training = training_of(options, 0, devices=jax.devices()[: int(np.prod(sizes))])
    made = program_of(training)
    state, losses = made.place.init(jax.random.key(0)), []
    for step in range(steps):
        random = np.random.default_rng(step)
        batch = {
            "image": random.integers(0, 256, (8, 8, 8, 3), np.uint8),
            "label": random.integers(0, 10, 8).astype(np.int32),
        }
        batch = mesh.to_devices(batch, made.batch_sharding)
        state, metrics = made.step(state, batch, training.task)
        losses.append(float(metrics["loss"]))
    return jax.device_get(state), losses


def test_eight_devices_train_as_one_does():
    (one, losses), (eight, others) = trained((1, 1, 1)), trained((4, 2, 1))
    np.testing.assert_allclose(others, losses, rtol=1e-4)
    assert furthest(eight, one) < 1e-4
