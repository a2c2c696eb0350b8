"""The autoencoder's losses: gradients against PyTorch's, codes against NumPy, meshes."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core.trees import map_named, named_leaves, num_values
from diffjax.devices import mesh as mesh_lib
from diffjax.devices.spread import spread
from diffjax.models.autoencoder.codebook import Codebook, nearest
from diffjax.models.autoencoder.discriminator import Discriminator
from diffjax.models.autoencoder.network import Autoencoder, Sizes
from diffjax.tasks.adversary import Adversary
from diffjax.tasks.autoencoding import Autoencoding, Weights
from diffjax.tasks.codes import Following
from diffjax.training.gradients import gradients_of
from tools.inputs import autoencoder_inputs as peers

KEY = jax.random.key(0)
GOLDEN = json.loads(Path(peers.FILE).read_text())
NONE = Following()
KINDS = {"gaussian": 0, "quantised": peers.CODES}


def sizes_of(kind):
    return Sizes(peers.WIDTHS[0], (1, 2), 1, latent=peers.LATENT, codes=KINDS[kind])


@functools.cache
def task_of(kind, dtype="float32", following=NONE, start=1):
    return Autoencoding(
        "ae",
        Autoencoder(sizes_of(kind), dtype=jnp.dtype(dtype)),
        peers.SIDE,
        Weights(kl=peers.KL),
        adversary=Adversary(Discriminator(1, peers.JUDGE_WIDTH, jnp.dtype(dtype)), start, 0.5),
        following=following,
    )


def shapes_of(kind):
    return jax.eval_shape(task_of(kind).init, KEY)


def params_of(kind, dtype):
    return map_named(
        lambda name, x: jnp.asarray(peers.parameter(name, x.shape), dtype), shapes_of(kind)
    )


def batch_of(dtype):
    return {
        "image": jnp.asarray(peers.picture()),
        "latent_eps": jnp.asarray(peers.latent_eps(), dtype),
        "judged": jnp.ones(peers.ROWS, dtype),
    }


FOLLOWED = task_of("quantised", following=Following(average=0.9))
EIGHT = np.random.default_rng(3).integers(0, 256, (8, 16, 16, 3), np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_the_adversarial_step_has_the_gradients_of_pytorch(kind):
    with jax.enable_x64(True):
        task = task_of(kind, "float64")
        work = jax.jit(functools.partial(gradients_of, task, total=peers.ROWS))
        gradients, losses = jax.device_get(work(params_of(kind, "float64"), batch_of("float64")))
    wanted = GOLDEN[kind]
    loss, weight = wanted["loss"]
    np.testing.assert_allclose(losses.per_example.mean(), loss, rtol=1e-6)
    np.testing.assert_allclose(losses.metrics["adversary_weight"], weight, rtol=1e-6)
    named = named_leaves(gradients)
    assert {*named, "loss"} == set(wanted)
    for name, gradient in named.items():
        square, product = wanted[name]
        size = np.sqrt(square)
        assert gradient.dtype == np.float64
        np.testing.assert_allclose(np.linalg.norm(gradient), size, rtol=1e-6, err_msg=name)
        at = np.sum(gradient * peers.wave("product", gradient.shape))
        np.testing.assert_allclose(at, product, rtol=1e-6, atol=1e-6 * size, err_msg=name)


@functools.cache
def alone():
    """The gradients of eight rows on one device, compiled."""
    work = functools.partial(gradients_of, FOLLOWED, total=len(EIGHT))
    return work, jax.jit(work)


@pytest.mark.slow
def test_before_its_first_step_the_adversary_moves_nothing():
    batch = {"image": EIGHT, "judged": jnp.zeros(len(EIGHT))}
    gradients, losses = alone()[1](params_of("quantised", "float32"), batch)
    assert all(not g.any() for g in jax.tree.leaves(gradients["discriminator"]))
    assert not losses.metrics["adversary_weight"].any()
    drawn = functools.partial(
        task_of("gaussian", start=7).draw, KEY, {"image": jnp.zeros((2, 16, 16, 3))}
    )
    assert [float(drawn(jnp.int32(step))["judged"][0]) for step in (6, 7)] == [0, 1]


def test_a_code_is_the_nearest_one_and_its_gradient_goes_straight_through():
    random = np.random.default_rng(0)
    z, codes = random.standard_normal((2, 3, 3, 2)), random.standard_normal((7, 2))
    away = ((z[..., None, :] - codes) ** 2).sum(-1)
    np.testing.assert_array_equal(nearest(jnp.asarray(z), jnp.asarray(codes)), away.argmin(-1))
    weights = jnp.asarray(random.standard_normal(z.shape), jnp.float32)
    given = jnp.asarray(z, jnp.float32), jnp.asarray(codes, jnp.float32)

    def value(z, codes, of):
        found = Codebook(7, 2).apply({"params": {"codes": codes}}, z)
        return {"vector": jnp.sum(weights * found.vector), "to_code": found.to_code.sum(),
                "to_latent": found.to_latent.sum()}[of]  # fmt: skip

    chosen = codes[away.argmin(-1)]
    by_z, by_codes = jax.grad(value, (0, 1))(*given, "vector")
    np.testing.assert_array_equal(by_z, weights)
    assert not by_codes.any()
    by_z, by_codes = jax.grad(value, (0, 1))(*given, "to_code")
    wanted = np.zeros_like(codes)
    np.add.at(wanted, away.argmin(-1), 2 * (chosen - z) / z[0].size)
    assert not by_z.any()
    np.testing.assert_allclose(by_codes, wanted, rtol=1e-5, atol=1e-6)
    by_z, by_codes = jax.grad(value, (0, 1))(*given, "to_latent")
    np.testing.assert_allclose(by_z, 2 * (z - chosen) / z[0].size, rtol=1e-5, atol=1e-6)
    assert not by_codes.any()


def test_codes_follow_the_means_of_their_latents():
    random, keep = np.random.default_rng(1), 0.9
    following = Following(average=keep)
    memory, count, total = following.first(4, 2), np.zeros(4), np.zeros((4, 2))
    codes = jnp.asarray(random.standard_normal((4, 2)), jnp.float32)
    for _ in range(3):
        latents, chosen = random.standard_normal((6, 2)), random.integers(0, 3, 6)  # never 3
        memory = following.after(
            memory, jnp.asarray(latents, jnp.float32), jnp.asarray(chosen), KEY
        )
        for k in range(4):
            mine = latents[chosen == k]
            count[k] = keep * count[k] + (1 - keep) * len(mine)
            total[k] = keep * total[k] + (1 - keep) * mine.sum(0)
    moved = following.moved(codes, memory)
    np.testing.assert_allclose(moved[:3], total[:3] / count[:3, None], rtol=1e-5)
    np.testing.assert_array_equal(moved[3], codes[3])


def test_a_code_that_nobody_chooses_becomes_a_latent_of_the_batch():
    following = Following(restart=0.5)
    latents = jnp.asarray(np.random.default_rng(2).standard_normal((8, 2)), jnp.float32)
    memory = following.after(
        following.first(3, 2), latents, jnp.asarray([0, 0, 0, 1, 1, 1, 1, 1]), KEY
    )
    moved = np.asarray(following.moved(jnp.full((3, 2), 9.0), memory))
    assert (moved[:2] == 9.0).all()  # these are trained by their gradients
    assert any(np.array_equal(moved[2], one) for one in np.asarray(latents))
    after = following.after(memory, latents, jnp.zeros(8, int), KEY)
    assert not after["moved"][1]  # chosen five times a step before, it is not dead yet


def test_the_step_of_a_task_moves_the_codes_of_its_memory():
    task = task_of("quantised", following=Following(average=0.9, restart=0.01))
    params, memory = params_of("quantised", "float32"), task.first_memory()
    drawn = task.draw(KEY, {"image": jnp.asarray(peers.picture())}, jnp.int32(3), memory)
    losses = jax.jit(task.loss)(params, drawn)
    after = task.bounded(params, task.remember(memory, drawn, losses))
    latent, code = losses.seen["latent"], np.asarray(losses.seen["code"])
    mean = np.asarray(latent)[code == code.flat[0]].mean(0)
    np.testing.assert_allclose(
        after["autoencoder"]["codebook"]["codes"][code.flat[0]], mean, rtol=1e-4, atol=1e-6
    )
    same = {**after["autoencoder"], "codebook": params["autoencoder"]["codebook"]}
    assert jax.tree.all(jax.tree.map(np.array_equal, same, dict(params["autoencoder"])))


def test_the_papers_autoencoder_has_its_number_of_parameters():
    made = jax.eval_shape(Autoencoder(Sizes()).init, KEY, jnp.zeros((1, 8, 8, 3)))["params"]
    assert num_values(made) == 83_653_863


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(4, 2, 1), pytest.param((2, 2, 2), marks=pytest.mark.slow)])
def test_gradients_on_a_mesh_are_those_of_one_device(sizes):
    task, params = FOLLOWED, params_of("quantised", "float32")
    batch = {"image": EIGHT, "judged": jnp.ones(len(EIGHT))}
    work, run_alone = alone()
    wanted, theirs = jax.device_get(run_alone(params, batch))
    mesh = mesh_lib.make_mesh(*sizes, devices=jax.devices()[:8])
    place = mesh_lib.state_sharding(mesh, params, task.sharding)
    over = spread(mesh, place, task.sharding)(work)
    run = jax.jit(over, in_shardings=(place, mesh_lib.batch_sharding(mesh)))
    gradients, losses = jax.device_get(run(params, batch))
    np.testing.assert_allclose(losses.per_example, theirs.per_example, rtol=1e-5)
    np.testing.assert_allclose(losses.metrics["codes_used"], theirs.metrics["codes_used"])
    largest = max(np.abs(g).max() for g in jax.tree.leaves(wanted))
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, atol=3e-5 * largest)
