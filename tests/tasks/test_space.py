"""Latents: their space against NumPy, and a task that learns them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.models.autoencoder.network import Autoencoder, Sizes
from diffjax.tasks import sampling
from diffjax.tasks.conditions import Masked
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.space import Space, enlarged_hole
from tests.tasks.network import Network
from tests.tasks.stages import KEY, STEP

SCALE, SHIFT = (0.5, 2.0), (0.25, -1.0)
SETTINGS = SampleSettings(2, threshold="none")


@functools.cache
def space_of(codes=0, cached=False, tile_px=0):
    return Space(Autoencoder(Sizes(8, (1, 2), 1, latent=2, codes=codes)), SCALE, SHIFT, cached,
                 tile_px)  # fmt: skip


@functools.cache
def weights_of(codes=0):
    made = jax.jit(space_of(codes).model.init)(KEY, jnp.zeros((1, 8, 8, 3)))["params"]
    random = np.random.default_rng(1)
    return jax.tree.map(lambda p: p + 0.05 * random.standard_normal(p.shape, np.float32), made)


@functools.partial(jax.jit, static_argnums=0)
def encoded(space, weights, picture):
    return space.encode(weights, picture)


@functools.partial(jax.jit, static_argnums=0)
def decoded(space, weights, z):
    return space.decode(weights, z)


def picture_of(side=8, seed=0):
    random = np.random.default_rng(seed)
    return jnp.asarray(random.uniform(-1, 1, (2, side, side, 3)), jnp.float32)


def task_of(network, space, *conditions):
    return Denoising(
        "latents", network, (4, 4, 2), conditions, of="latent", space=space, settings=SETTINGS,
        frozen={"space": weights_of(space.model.sizes.codes)},
    )  # fmt: skip


def test_a_latent_is_drawn_from_its_moments_and_scaled_channel_by_channel():
    random = np.random.default_rng(0)
    moments = random.standard_normal((2, 4, 4, 4)).astype(np.float32)
    moments[0, 0, 0, 2:] = 100.0, -100.0  # log variances, held in [-30, 20]
    eps = random.standard_normal((2, 4, 4, 2)).astype(np.float32)
    deviation = np.exp(0.5 * np.clip(moments[..., 2:], -30, 20))
    raw = moments[..., :2] + deviation * eps
    expected = (raw - np.array(SHIFT)) * np.array(SCALE)
    np.testing.assert_allclose(
        space_of().draw(jnp.asarray(moments), jnp.asarray(eps)), expected, rtol=1e-5
    )
    middle = (moments[..., :2] - np.array(SHIFT)) * np.array(SCALE)
    np.testing.assert_allclose(space_of().mean(jnp.asarray(moments)), middle, rtol=1e-6)


@pytest.mark.parametrize("codes", [0, pytest.param(5, marks=pytest.mark.slow)])
def test_decoding_the_middle_of_a_latent_is_what_the_autoencoder_makes_of_a_picture(codes):
    """Its encoder and decoder one after the other, with no scale between them."""
    space, weights, picture = space_of(codes), weights_of(codes), picture_of()
    made = decoded(space, weights, encoded(space, weights, picture))
    expected = jax.jit(space.model.apply)({"params": weights}, picture)
    np.testing.assert_allclose(made, expected, atol=1e-5)


@pytest.mark.slow
def test_a_large_latent_is_decoded_in_tiles_and_a_small_one_whole():
    z = jax.random.normal(KEY, (1, 16, 8, 2))
    whole, tiled = (decoded(space_of(tile_px=tile), weights_of(), z) for tile in (0, 16))
    assert whole.shape == tiled.shape == (1, 32, 16, 3)
    assert np.abs(np.asarray(whole - tiled)).max() > 1e-3  # a tile has norms of its own
    first = decoded(space_of(), weights_of(), z[:, :8])
    np.testing.assert_allclose(tiled[:, :8], first[:, :8], atol=1e-5)
    np.testing.assert_array_equal(decoded(space_of(tile_px=32), weights_of(), z), whole)


def test_a_place_is_in_the_hole_if_one_of_its_pixels_is():
    hole = np.zeros((1, 4, 6, 1), np.float32)
    hole[0, 1, 4] = 1
    expected = [[0, 0, 1], [0, 0, 0]]
    np.testing.assert_array_equal(enlarged_hole(jnp.asarray(hole), 2)[0, :, :, 0], expected)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("codes", [0, 5])
def test_the_loss_is_that_of_latents_drawn_with_the_batchs_own_noise(cached, codes):
    """A network that says 0 has the error of v = alpha eps - sigma z."""
    space, weights = space_of(codes, cached), weights_of(codes)
    task = task_of(Network(lambda x_t, logsnr_t: jnp.zeros_like(x_t)), space)
    pixels = jnp.round((picture_of() + 1) * 127.5).astype(jnp.uint8)
    moments = jax.jit(space.moments)(weights, pixels.astype(jnp.float32) / 127.5 - 1)
    column = {"latent": moments.astype(jnp.float16)} if cached else {"image": pixels}
    assert {name: (x.shape[1:], x.dtype) for name, x in column.items()} == {
        name: (x.shape, x.dtype) for name, x in task.columns().items()
    }
    batch = task.draw(KEY, column, STEP)
    if cached:
        moments = column["latent"].astype(jnp.float32)
    z = np.asarray(space.draw(moments, batch["latent_eps"]))
    logsnr = np.asarray(task.schedule(batch["u"]))[:, None, None, None]
    alpha, sigma = np.sqrt(1 / (1 + np.exp(-logsnr))), np.sqrt(1 / (1 + np.exp(logsnr)))
    expected = np.square(alpha * batch["eps"] - sigma * z).mean(axis=(1, 2, 3))
    found = jax.jit(task.loss)({}, batch).per_example
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_samples_are_the_decoded_latents_which_are_not_clipped_before():
    """A network that knows x_0, far outside of [-1, 1]."""
    z = 7.0 * jax.random.normal(KEY, (2, 4, 4, 2))
    space = space_of()
    task = dataclasses.replace(task_of(Network(lambda x_t, logsnr_t: z), space), predict="x_0")
    keys = jax.random.split(KEY, 2)
    found = sampling.ready({}, {}, keys, task=task, settings=SETTINGS).sample()
    np.testing.assert_allclose(found, z, atol=1e-4)
    picture = np.clip(decoded(space, weights_of(), z), -1, 1)
    made = sampling.sample({}, {}, keys, task=task, settings=SETTINGS)
    np.testing.assert_allclose(made, picture, atol=1e-4)
    shown, guesses = sampling.watch({}, {}, keys, task=task, settings=SETTINGS)
    np.testing.assert_allclose(shown, picture, atol=1e-4)
    np.testing.assert_allclose(guesses, np.stack([picture] * 2), atol=1e-4)
    assert task.size_px == 8
    assert np.abs(z).max() > 10


def test_a_threshold_for_latents_is_refused():
    task = task_of(Network(lambda x_t, logsnr_t: x_t), space_of())
    settings = dataclasses.replace(SETTINGS, threshold="static")
    with pytest.raises(ValueError, match="threshold='static': latents are not bounded"):
        sampling.sample({}, {}, jax.random.split(KEY, 2), task=task, settings=settings)


def test_a_network_that_fills_holes_sees_the_latent_of_the_cut_picture_and_a_small_hole():
    told = {}

    def says(x_t, logsnr_t, **kwargs):
        told.update(kwargs)
        return x_t

    task = task_of(Network(says), space_of(), Masked(8))
    picture, hole = picture_of(), jnp.zeros((2, 8, 8, 1), bool).at[:, 3:6, :2].set(True)
    small = np.zeros((2, 4, 4, 1))
    small[:, 1:3, :1] = 1
    ready = sampling.ready(
        {}, {"picture": picture, "hole": hole}, jax.random.split(KEY, 2), task=task,
        settings=SETTINGS,
    )  # fmt: skip
    ready.denoise(ready.x_T, jnp.zeros(2))
    np.testing.assert_array_equal(told["mask"], small)
    cut = jnp.where(hole, 0.0, picture)
    np.testing.assert_allclose(told["masked"], task.learned(cut), atol=1e-5)
    batch = task.draw(KEY, {"image": jnp.round((picture + 1) * 127.5).astype(jnp.uint8)}, STEP)
    task.loss({}, batch)
    assert told["masked"].shape == (2, 4, 4, 2)
    assert told["mask"].shape == (2, 4, 4, 1)
