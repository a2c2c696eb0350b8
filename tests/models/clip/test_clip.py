"""The network of CLIP: its counts, what each tower sees, and its rules of sharding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import trees
from diffjax.devices.mesh import make_mesh, state_sharding
from diffjax.models.clip.clip import CLIP
from diffjax.models.clip.sizes import SIZES, CLIPConfig, tower
from tests.models.parameters import anywhere

SMALL = CLIPConfig(tower(32, 2, 2), tower(24, 2, 2), 16, 8, 16, vocabulary=50, length=12)
TOKENS = jnp.array([[48, 3, 5, 49, 0, 0], [48, 7, 49, 0, 0, 0]])
NETS = {name: CLIP(config) for name, config in SIZES.items()}


def inputs(config, b=2, length=6):
    random = np.random.default_rng(0)
    image = random.uniform(-1, 1, (b, config.size_px, config.size_px, 3)).astype(np.float32)
    return {"image": jnp.asarray(image), "text": TOKENS[:b, :length]}


def shapes_of(net):
    return jax.eval_shape(net.init, jax.random.key(0), **inputs(net.config))["params"]


@pytest.mark.parametrize(
    ("name", "image", "text"),
    [
        ("B/32", 87_849_216, 63_428_096),
        ("B/16", 149_620_737 - 63_428_096 - 1, 63_428_096),
        ("L/14", 427_616_513 - 123_650_304 - 1, 123_650_304),
    ],
)
def test_the_papers_networks_have_exactly_as_many_parameters_as_theirs(name, image, text):
    shapes = shapes_of(NETS[name])
    counts = {part: trees.num_values(tree) for part, tree in shapes.items()}
    assert counts == {"image": image, "text": text, "log_scale": 1}


def test_every_parameter_has_a_rule_and_only_small_ones_are_on_every_device():
    shapes = shapes_of(NETS["B/32"])
    places = state_sharding(make_mesh(2, 2, 2), shapes, CLIP.sharding)
    named = trees.named_leaves(places)
    whole = {name for name, place in named.items() if not any(place.spec)}
    leaves = trees.named_leaves(shapes)
    share = sum(leaves[name].size for name in whole) / trees.num_values(shapes)
    assert share < 0.01


@pytest.fixture(scope="module")
def small():
    net = CLIP(SMALL)
    params = anywhere(net, **inputs(SMALL))
    return net, params, jax.jit(lambda image, text: net.apply({"params": params}, image, text))


def test_features_are_unit_vectors_and_the_first_scale_is_the_papers(small):
    net, _, run = small
    pair = run(**inputs(SMALL))
    for rows in (pair.image, pair.text):
        np.testing.assert_allclose(jnp.linalg.norm(rows, axis=-1), 1.0, rtol=1e-5)
    first = jax.jit(net.init)(jax.random.key(0), **inputs(SMALL))["params"]
    assert float(jnp.exp(first["log_scale"])) == pytest.approx(1 / 0.07, rel=1e-6)


def test_a_text_is_read_at_its_end_and_what_follows_changes_nothing(small):
    """Padding of another length and other ids behind the end give the same features."""
    _, _, run = small
    given = inputs(SMALL)
    want = run(**given).text
    longer = jnp.pad(given["text"], ((0, 0), (0, 4)))
    np.testing.assert_allclose(run(given["image"], longer).text, want, atol=1e-5)
    noise = jnp.where(jnp.arange(6) > 3, 11, given["text"])
    np.testing.assert_allclose(run(given["image"], noise).text[0], want[0], atol=1e-5)


def test_a_token_sees_none_that_comes_later(small):
    net, params, _ = small
    states = jax.jit(lambda tokens: net.apply({"params": params}, tokens, method="states_of_text"))
    tokens = inputs(SMALL)["text"]
    changed = tokens.at[:, 3].set(9)
    before, after = states(tokens), states(changed)
    np.testing.assert_allclose(before[:, :3], after[:, :3], atol=1e-6)
    assert float(jnp.abs(before[:, 3] - after[:, 3]).max()) > 1e-3


def test_the_image_tower_reads_pixels_as_the_paper_scales_them(small):
    """A network that subtracts and divides by nothing, given what the paper's would see."""
    _, params, _ = small
    given = inputs(SMALL)
    plain = CLIP(dataclasses.replace(SMALL, mean=(0.0,) * 3, std=(1.0,) * 3))
    mean, std = np.array(SMALL.mean), np.array(SMALL.std)
    seen = ((np.asarray(given["image"]) + 1) / 2 - mean) / std
    image = jnp.asarray(2 * seen - 1, jnp.float32)
    ask = lambda net, image: jax.jit(  # noqa: E731
        lambda: net.apply({"params": params}, image, method="of_image")
    )()
    np.testing.assert_allclose(ask(CLIP(SMALL), given["image"]), ask(plain, image), atol=1e-4)


def test_what_the_backward_pass_computes_again_changes_no_gradient(small):
    net, params, _ = small
    given = inputs(SMALL)

    def gradient(remat):
        loss = lambda p: jnp.sum(  # noqa: E731
            net.clone(remat=remat).apply({"params": p}, **given).image[:, 0]
        )
        return jax.jit(jax.grad(loss))(params)

    for one, other in zip(*map(jax.tree.leaves, map(gradient, ("none", "full"))), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
