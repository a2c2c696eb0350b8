"""Networks with scan or remat compute the same as those without."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import trees
from diffjax.models.efficient_unet import EfficientUNet
from diffjax.models.layers import level, stacking
from diffjax.models.unet import UNet
from tests.diffusion.helpers import images
from tests.models.inputs import inputs
from tests.models.parameters import anywhere

TINY = {"width": 16, "mults": (1, 2), "head_width": 16, "token_width": 8}
NETS = {
    "small": UNet(width=16, mults=(1,), num_blocks=3, attention_levels=(0,), head_width=16),
    "unet": UNet(**TINY, num_blocks=3, attention_levels=(1,)),
    "efficient": EfficientUNet(**TINY, num_blocks=(2, 3)),
    "efficient_concat": EfficientUNet(
        **TINY, num_blocks=(2, 3), skip="concat", upsampling="shuffle", attention="cross"
    ),
}


def loss(net, params, given):
    return jnp.sum(net.apply({"params": params}, **given) * images(5, given["x_t"].shape))


@functools.cache
def started(name):
    """Random parameters of the scanned network, none of them zero, and its output."""
    net = NETS[name].clone(scan=True)
    given = inputs(net)
    return anywhere(net, **given), given


@functools.cache
def gradients(name, scan, remat):
    """The value, and the gradients of single blocks, in float64."""
    net = NETS[name].clone(scan=scan, remat=remat)
    params, given = started(name)
    params = params if scan else stacking.unstack(params)
    value, slopes = jax.jit(jax.value_and_grad(functools.partial(loss, net)))(params, given)
    slopes = stacking.unstack(slopes) if scan else slopes
    return float(value), trees.named_leaves(slopes)


@pytest.mark.parametrize(
    ("name", "scan", "remat"),
    [
        pytest.param("small", True, "products", marks=pytest.mark.slow),
        pytest.param("unet", True, "products", marks=pytest.mark.slow),
        pytest.param("efficient", True, "products", marks=pytest.mark.slow),
        pytest.param("efficient_concat", True, "none", marks=pytest.mark.slow),
        pytest.param("unet", True, "none", marks=pytest.mark.slow),
        pytest.param("unet", False, "products", marks=pytest.mark.slow),
        pytest.param("unet", True, "full", marks=pytest.mark.slow),
        pytest.param("efficient", False, "products", marks=pytest.mark.slow),
        pytest.param("efficient", False, "full", marks=pytest.mark.slow),
    ],
)
def test_scan_and_remat_change_neither_value_nor_gradient(name, scan, remat):
    value, slopes = gradients(name, False, "none")
    other, others = gradients(name, scan, remat)
    assert other == pytest.approx(value, rel=1e-5)
    assert slopes.keys() == others.keys()
    for leaf, slope in slopes.items():
        scale = max(1.0, float(jnp.abs(slope).max()))
        np.testing.assert_allclose(others[leaf], slope, atol=2e-5 * scale, err_msg=leaf)


@pytest.mark.parametrize("name", NETS)
def test_stack_is_the_inverse_of_unstack_which_names_every_block(name):
    params, given = started(name)
    flat = stacking.unstack(params)
    net = NETS[name]
    wanted = jax.eval_shape(net.init, jax.random.key(0), **given)["params"]
    assert jax.tree.map(jnp.shape, flat) == jax.tree.map(jnp.shape, wanted)
    again = stacking.stack(flat, params)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_a_missing_or_unknown_block_is_named_in_the_error():
    params, _ = started("unet")
    flat = stacking.unstack(params)
    short = {name: value for name, value in flat.items() if name != "down_1_2"}
    with pytest.raises(ValueError, match="no down_1_2, which down_1_1_on"):
        stacking.stack(short, params)
    with pytest.raises(ValueError, match="down_9_0, which the network does not have"):
        stacking.stack({**flat, "down_9_0": flat["down_1_2"]}, params)


def lines(net):
    given = inputs(net)
    params = jax.eval_shape(net.init, jax.random.key(0), **given)["params"]
    step = jax.jit(jax.grad(functools.partial(loss, net)))
    return len(step.lower(params, given).as_text().splitlines())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "remat"), [("unet", "products"), ("efficient", "none")])
def test_a_scanned_program_does_not_grow_with_its_blocks(name, remat):
    """From 2 to 8 blocks per level: at most 1.15 times as many lines; without scan over twice."""
    few, many = (2, 8) if name == "unet" else ((2, 2), (8, 8))
    net = NETS[name].clone(remat=remat)
    scanned = [lines(net.clone(scan=True, num_blocks=num)) for num in (few, many)]
    assert scanned[1] <= 1.15 * scanned[0]
    assert lines(net.clone(num_blocks=many)) > 2 * lines(net.clone(num_blocks=few))


def products(jaxpr):
    """FLOPs of matrix products and convolutions; those in loops count for each iteration."""
    total = 0
    for eqn in jaxpr.eqns:
        times = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
        for value in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += times * products(inner)
        if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
            shape = eqn.outvars[0].aval.shape
            if eqn.primitive.name == "dot_general":
                (contracted, _), _ = eqn.params["dimension_numbers"]
                inner = np.prod([eqn.invars[0].aval.shape[i] for i in contracted])
            else:
                spec = eqn.params["dimension_numbers"].rhs_spec
                kernel = eqn.invars[1].aval.shape
                inner = np.prod([kernel[i] for i in spec[1:]])
                inner = inner / np.prod(eqn.params["lhs_dilation"])
            total += 2 * np.prod(shape) * inner
    return total


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
def test_remat_products_costs_at_most_a_twentieth_more_arithmetic(scan):
    """Attention and convolutions have the same proportion as in the network of the paper."""
    net = UNet(width=64, mults=(1, 2), num_blocks=3, attention_levels=(1,), scan=scan)
    given = inputs(net)
    params = jax.eval_shape(net.init, jax.random.key(0), **given)["params"]

    def flops(remat):
        step = jax.grad(functools.partial(loss, net.clone(remat=remat)))
        return products(jax.make_jaxpr(step)(params, given).jaxpr)

    plain = flops("none")
    assert flops("products") <= 1.05 * plain
    assert 1.2 * plain < flops("full") < 1.4 * plain


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "efficient"])
def test_remat_products_halves_the_temporaries(name):
    """With six blocks per level: kept values grow with their number, working memory does not."""
    num = 6 if name == "unet" else (6, 6)
    net = NETS[name].clone(width=32, head_width=32, scan=True, num_blocks=num)
    given = inputs(net, size=32)
    params = jax.eval_shape(net.init, jax.random.key(0), **given)["params"]

    def temporaries(remat):
        step = jax.jit(jax.grad(functools.partial(loss, net.clone(remat=remat))))
        return step.lower(params, given).compile().memory_analysis().temp_size_in_bytes

    assert temporaries("products") <= 0.5 * temporaries("none")


class Equal(nn.Module):
    """Three blocks, one after the other or as a scan, each with a skip of its own."""

    scan: bool

    @nn.compact
    def __call__(self, h, emb, skips):
        """The last output, and all."""
        return level.run_blocks(
            h, (emb, None, None), name="up", first=1, num=3, skips=skips, scan=self.scan, width=8
        )


def test_each_block_of_a_scan_has_its_own_parameters_and_its_own_skip():
    h, emb = images(0, (1, 4, 4, 8)), images(1, (1, 6, 1, 1))[..., 0, 0]
    skips = [images(2 + i, (1, 4, 4, 8)) for i in range(3)]
    params = anywhere(Equal(scan=True), h=h, emb=emb, skips=skips)
    last, outputs = Equal(scan=True).apply({"params": params}, h, emb, skips)
    single = stacking.unstack(params)
    assert set(single) == {"up_1", "up_2", "up_3"}
    want, each = Equal(scan=False).apply({"params": single}, h, emb, skips)
    np.testing.assert_allclose(last, want, atol=1e-5)
    for mine, other in zip(outputs, each, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)
