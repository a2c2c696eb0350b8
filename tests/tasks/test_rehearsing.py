"""The task of a rehearsal: on which x_t it learns, what it shall say there, and what stays."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import rng
from diffjax.devices import mesh as mesh_lib
from diffjax.diffusion.predict import to_x_0
from diffjax.diffusion.sampling.spacing import SPACINGS
from diffjax.tasks import sampling
from diffjax.tasks.rehearsing import Rehearsed
from diffjax.tasks.settings import SampleSettings
from tests.tasks.stages import KEY, MIXED, STEP, batch_of, moved

SETTINGS = SampleSettings(num_steps=3, sampler="ddim", threshold="static", aug_level=0.0)
OF = dataclasses.replace(MIXED, settings=SETTINGS)


@dataclasses.dataclass(frozen=True)
class Corners:
    """A distance that looks at one pixel, three times as closely as its parameter says."""

    def distance(self, params, a, b):
        return params["scale"] * jnp.abs(a[:, 0, 0, 0] - b[:, 0, 0, 0])


PLAIN = Rehearsed(OF, frozen={"own": {}})
SEEN = Rehearsed(OF, Corners(), 0.5, {"own": {}, "perceptual": {"scale": jnp.float32(3)}})


def drawn(task, rows=8):
    batch = jax.tree.map(jnp.asarray, batch_of(16, rows))
    return task.draw(KEY, batch, STEP) | {"u": jnp.linspace(0, 1, rows)}


@pytest.fixture(scope="module")
def params():
    return moved(OF)


def way(params, batch, row):
    """x_t, its level and the clean picture of a row, step by step in float64."""
    rungs = np.asarray(SPACINGS["uniform"](OF.schedule, 3), np.float64)
    x_0, told = OF.seen(batch)
    one = {name: column[row : row + 1] for name, column in told.items()}
    x = np.asarray(batch["eps"][row : row + 1], np.float64)
    rung = min(int((1 - float(batch["u"][row])) * 3), 2)
    for at, to in itertools.pairwise(rungs[: rung + 1]):
        hat = np.clip(guess(params, one, x, at), -1, 1)
        (a_t, s_t), (a_s, s_s) = parts(at), parts(to)
        x = a_s * hat + s_s * (x - a_t * hat) / s_t
    return x, rungs[rung], one, np.asarray(x_0[row : row + 1], np.float64)


def guess(params, told, x, logsnr):
    here, at = jnp.asarray(x, jnp.float32), jnp.full(1, logsnr, jnp.float32)
    says = OF.model.apply({"params": params}, here, at, **told)
    return np.asarray(to_x_0(says, here, at, "v"), np.float64)


def parts(logsnr):
    """alpha and sigma in float64."""
    return np.sqrt(1 / (1 + np.exp(-logsnr))), np.sqrt(1 / (1 + np.exp(logsnr)))


def test_the_loss_is_the_error_where_the_own_steps_lead(params):
    batch = drawn(PLAIN)
    plain, seen = (jax.jit(task.loss)(params, batch) for task in (PLAIN, SEEN))
    for row in range(8):
        x_t, level, told, x_0 = way(params, batch, row)
        hat = guess(params, told, x_t, level)
        weight = float(batch["weight"][row])
        error, corner = np.mean((hat - x_0) ** 2), abs(hat - x_0)[0, 0, 0, 0]
        np.testing.assert_allclose(plain.per_example[row], weight * error, rtol=2e-3)
        np.testing.assert_allclose(seen.per_example[row] - plain.per_example[row],
                                   weight * 1.5 * corner, rtol=5e-3, atol=1e-5)  # fmt: skip


def test_no_gradient_goes_through_the_steps_before(params):
    batch = drawn(PLAIN)
    row = 0  # at the last rung
    x_t, level, told, x_0 = way(params, batch, row)

    def at_hand(params):
        at = jnp.full(1, level, jnp.float32)
        here = jnp.asarray(x_t, jnp.float32)
        says = OF.model.apply({"params": params}, here, at, **told)
        hat = to_x_0(says, here, at, "v")
        return batch["weight"][row] * jnp.mean((hat - jnp.asarray(x_0, jnp.float32)) ** 2)

    own = jax.jit(jax.grad(lambda p: PLAIN.loss(p, batch).per_example[row]))(params)
    wanted = jax.jit(jax.grad(at_hand))(params)
    for ours, theirs in zip(jax.tree.leaves(own), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-4)
        assert np.any(theirs)


def test_the_weights_of_the_distance_stay(params):
    batch = drawn(SEEN)

    def mean(params, scale):
        own = dataclasses.replace(SEEN, frozen={"own": {}, "perceptual": {"scale": scale}})
        return jnp.mean(own.loss(params, batch).per_example)

    assert jax.tree.structure(jax.jit(SEEN.init)(KEY)) == jax.tree.structure(params)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(jax.grad(mean)(params, jnp.float32(3))))


def test_eight_devices_have_the_losses_of_one(params):
    batch = drawn(SEEN)
    mesh = mesh_lib.make_mesh(data=8)
    spread = jax.device_put(batch, mesh_lib.batch_sharding(mesh))
    ours, theirs = (jax.jit(SEEN.loss)(params, one).per_example for one in (spread, batch))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_a_preview_takes_its_steps(params):
    batch = jax.tree.map(jnp.asarray, batch_of(16, 2))
    keys = rng.stream(jax.random.split(KEY, 2), "preview")
    made = jax.jit(PLAIN.preview)(params, batch, keys)["made"]
    again = sampling.sample(params, OF.prompted(batch), keys, task=OF, settings=SETTINGS)
    np.testing.assert_allclose(made, again, atol=1e-5)
