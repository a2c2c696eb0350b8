"""Diffusion transformers: the answers of diffusers, the counts of the paper, and the two texts."""

import functools
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from configs.dit import SIZES
from diffjax.core import trees
from diffjax.devices.mesh import spec_of
from diffjax.models.dit import DiT
from diffjax.models.layers import stacking
from diffjax.models.layers.positions import sincos
from diffjax.models.layers.transformer import JointBlock, Layer
from tests.diffusion.helpers import images
from tests.models.inputs import inputs
from tests.models.parameters import anywhere
from tools.inputs import dit_inputs

GOLDEN = Path(__file__).parents[1] / "golden/dit"
ANSWERS = load_file(GOLDEN / "answers.safetensors")
SHAPES = json.loads((GOLDEN / "shapes.json").read_text())
TINY = {"width": 16, "num_blocks": 2, "head_width": 8, "token_width": 8, "patch": 4}
NETS = {
    "cross": DiT(**TINY, qk_norm=True),
    "joint": DiT(**TINY, text="joint", qk_norm=True),
}


def near(found, wanted, rtol=1e-5):
    np.testing.assert_allclose(found, wanted, atol=rtol * np.abs(wanted).max(), rtol=0)


def tensors_of(name):
    return dit_inputs.tensors(0, {key: tuple(shape) for key, shape in SHAPES[name].items()})


def test_a_network_told_classes_says_what_that_of_diffusers_says():
    net = DiT(32, 2, head_width=16, num_classes=10, out_channels=8)
    params = dit_inputs.params_of(tensors_of("classes"), 2)
    given = jax.tree.map(jnp.asarray, dit_inputs.given())
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), **given))["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda x: x.shape, shapes)
    near(jax.jit(net.apply)({"params": params}, **given), ANSWERS["classes"])


@pytest.mark.parametrize("last", [False, True])
def test_a_block_of_two_streams_says_what_that_of_diffusers_says(last):
    name = "joint_last" if last else "joint"
    layer = functools.partial(Layer, 32, 2, 16, not last)
    params, given = dit_inputs.joint_params_of(tensors_of(name), last), dit_inputs.streams()
    emb = given["emb"] / (1 + np.exp(-given["emb"]))  # the network applies its silu once, before
    seen = np.ones((2, 5), bool)
    block = JointBlock(layer, last=last)
    h, text = jax.jit(block.apply)({"params": params}, given["h"], given["text"], emb, seen)
    near(h, ANSWERS[f"{name}_h"])
    near(text, given["text"] if last else ANSWERS["joint_text"])


# Table 1 and 4 of the paper, in millions, of the network on patches of 2; the positions, which are
# fixed, are counted there.
@pytest.mark.parametrize(
    ("size", "millions", "exact"),
    [("S", 33, None), ("B", 130, None), ("L", 458, None), ("XL", 675, 675_129_632)],
)
def test_the_sizes_have_the_parameters_of_the_paper(size, millions, exact):
    net = DiT(**SIZES[size], patch=2, num_classes=1000, out_channels=8, scan=True)
    given = {
        "x_t": jnp.zeros((1, 32, 32, 4)),
        "logsnr_t": jnp.zeros(1),
        "label": jnp.zeros(1, jnp.int32),
    }
    shapes = jax.eval_shape(net.init, jax.random.key(0), **given)["params"]
    w, n = net.width, net.num_blocks
    positions = 16 * 16 * w
    counted = trees.num_values(shapes) + positions
    # by formula: patches, level, classes, blocks (attention 4, feed-forward 8, adaLN 6), the end
    block = 18 * w * w + 15 * w
    rest = (16 * w + w) + (256 * w + w + w * w + w) + 1001 * w + 2 * w * w + 2 * w + 32 * w + 32
    assert counted == n * block + rest + positions
    assert round(counted / 1e6) in (millions, millions + 1)
    assert exact in (None, counted)


@pytest.mark.parametrize(("height", "width"), [(3, 2), (1, 4)])
def test_positions_are_sines_and_cosines_of_the_column_and_then_of_the_row(height, width):
    found = sincos(height, width, 8)
    for row in range(height):
        for column in range(width):
            want = [
                wave(place / 10_000 ** (i / 2))
                for place in (column, row)
                for wave in (math.sin, math.cos)
                for i in (0, 1)
            ]
            np.testing.assert_allclose(found[row * width + column], want, atol=1e-7)
    with pytest.raises(ValueError, match="width 10 of positions: it must be a multiple of 4"):
        sincos(2, 2, 10)


@pytest.fixture(scope="module", params=NETS)
def trained(request):
    net = NETS[request.param]
    apply = jax.jit(lambda p, **given: net.apply({"params": p}, **given))
    return net, apply, anywhere(net, **inputs(net))


def test_a_new_head_returns_zero_and_new_blocks_change_nothing():
    net = NETS["joint"]
    given = inputs(net)
    given["x_t"] = given["x_t"][:, :, :8]  # 4 rows of 2 patches
    new = jax.jit(net.init)(jax.random.key(0), **given)["params"]
    assert not any(np.any(x) for x in jax.tree.leaves(new["head"]))
    kernel = np.random.default_rng(0).normal(size=(16, 48))
    head = {**new["head"], "dense": {"kernel": jnp.float32(kernel), "bias": jnp.zeros(48)}}
    said = jax.jit(net.apply)({"params": {**new, "head": head}}, **given)
    x = np.asarray(given["x_t"], np.float64).reshape(2, 4, 4, 2, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    h = x.reshape(2, 8, 48) @ new["stem"]["kernel"] + sincos(4, 2, 16)
    h = h - h.mean(-1, keepdims=True)
    h = h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-6) @ kernel
    h = h.reshape(2, 4, 2, 4, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 16, 8, 3)
    np.testing.assert_allclose(said, h, atol=1e-4)


def test_the_output_depends_on_every_input_but_not_on_masked_text(trained):
    net, apply, params = trained
    given = inputs(net)
    before = apply(params, **given)
    assert before.shape == given["x_t"].shape
    for name, value in given.items():
        changed = {**given, name: value[::-1] if value.ndim < 4 else value + images(9, value.shape)}
        assert float(jnp.abs(apply(params, **changed) - before).max()) > 1e-4, name
    other = {**given, "text": jnp.where(given["text_mask"][..., None], given["text"], 50.0)}
    np.testing.assert_allclose(apply(params, **other), before, atol=1e-4)


def test_single_tokens_matter_beside_their_pooled_sum(trained):
    """With what pools the text at zero, only attention to the tokens can tell texts apart."""
    net, apply, params = trained
    pool = jax.tree.map(jnp.zeros_like, params["conditioning"]["text_pool"])
    params = {**params, "conditioning": {**params["conditioning"], "text_pool": pool}}
    given = inputs(net)
    apart = apply(params, **given) - apply(params, **{**given, "text": given["text"][::-1]})
    assert float(jnp.abs(apart).max()) > 1e-3


def loss(net, params, given):
    return jnp.sum(net.apply({"params": params}, **given) * images(5, given["x_t"].shape))


@pytest.mark.parametrize(
    ("name", "remat"),
    [
        pytest.param("cross", "none", marks=pytest.mark.slow),
        pytest.param("cross", "full", marks=pytest.mark.slow),
        pytest.param("joint", "products", marks=pytest.mark.slow),
    ],
)
def test_scan_and_remat_change_neither_value_nor_gradient(name, remat):
    """And every parameter has a gradient."""
    net = NETS[name].clone(num_blocks=3)
    given = inputs(net)
    scanned = net.clone(scan=True, remat=remat)
    params = anywhere(scanned, **given)
    value, slopes = jax.jit(jax.value_and_grad(functools.partial(loss, scanned)))(params, given)
    want, wanted = jax.jit(jax.value_and_grad(functools.partial(loss, net)))(
        stacking.unstack(params), given
    )
    assert float(value) == pytest.approx(float(want), rel=1e-5)
    slopes, wanted = (trees.named_leaves(x) for x in (stacking.unstack(slopes), wanted))
    assert slopes.keys() == wanted.keys()
    for leaf, slope in wanted.items():
        scale = max(1.0, float(jnp.abs(slope).max()))
        np.testing.assert_allclose(slopes[leaf], slope, atol=2e-5 * scale, err_msg=leaf)
    # softmax ignores a constant in its scores: the biases of keys without a norm, and of pooling
    dead = [n for n, g in wanted.items() if not float(jnp.abs(g).max()) > 0]
    assert [n for n in dead if "score/bias" not in n] == []


def test_scanned_blocks_return_what_single_ones_do():
    net = NETS["joint"].clone(num_blocks=3)
    given, scanned = inputs(net), net.clone(scan=True)
    params = anywhere(scanned, **given)
    said = jax.jit(scanned.apply)({"params": params}, **given)
    wanted = jax.jit(net.apply)({"params": stacking.unstack(params)}, **given)
    np.testing.assert_allclose(said, wanted, atol=1e-4)


@pytest.mark.parametrize("name", NETS)
def test_each_parameter_has_a_sharding_rule_and_no_kernel_is_whole_on_each_device(name):
    net = NETS[name].clone(num_classes=3, scan=True, num_blocks=3)
    given = inputs(net) | {"label": jnp.zeros(2, jnp.int32), "vector": jnp.zeros((2, 5))}
    shapes = jax.eval_shape(net.init, jax.random.key(0), **given)["params"]
    for path, leaf in trees.named_leaves(shapes).items():
        spec = spec_of(path, leaf, net.sharding)
        if path.endswith("kernel") and "score" not in path:
            assert "fsdp" in spec, path


def test_bfloat16_stays_near_float32(trained):
    net, apply, params = trained
    given = inputs(net)
    exact = apply(params, **given)
    rough = jax.jit(net.clone(dtype=jnp.bfloat16).apply)({"params": params}, **given)
    assert rough.dtype == jnp.float32
    scale = float(jnp.sqrt(jnp.mean(exact**2)))
    assert 0 < float(jnp.sqrt(jnp.mean((rough - exact) ** 2))) < 0.03 * scale


@pytest.mark.peers
@pytest.mark.slow
def test_a_block_of_full_width_says_what_that_of_diffusers_says():
    from tools.peers import dit_peers

    heads, width = 16, SIZES["XL"]["head_width"]
    net = dit_peers.network(
        num_attention_heads=heads, attention_head_dim=width, num_layers=1, sample_size=32,
        num_embeds_ada_norm=1000,
    )  # fmt: skip
    given = dit_inputs.given(32)
    found = {name: x.numpy() for name, x in net.state_dict().items()}
    ours = DiT(heads * width, 1, head_width=width, num_classes=1000, out_channels=8)
    said = jax.jit(ours.apply)({"params": dit_inputs.params_of(found, 1)}, **given)
    near(said, dit_peers.answer(net, given), 1e-4)
