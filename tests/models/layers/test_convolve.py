"""Convolutions that cost less: the same numbers and gradients, fewer FLOPs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from diffjax.models.layers import convolve
from diffjax.models.unet import UNet
from diffjax.planning import hlo

NHWC = ("NHWC", "HWIO", "NHWC")
plain = functools.partial(
    lax.conv_general_dilated,
    window_strides=(1, 1),
    padding="SAME",
    dimension_numbers=NHWC,
    precision="highest",
)


def normal(seed, *shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def doubled(x, kernel):
    return plain(x.repeat(2, axis=1).repeat(2, axis=2), kernel)


def summed_by_hand(x, dy, size, around):
    """sum over pictures and places of x's neighbourhood times dy, in float64."""
    x = np.pad(np.float64(x), ((0, 0), (around, around), (around, around), (0, 0)))
    h, w = dy.shape[1:3]
    out = np.zeros((size, size, x.shape[-1], dy.shape[-1]))
    for i in range(size):
        for j in range(size):
            near = x[:, i : i + h, j : j + w]
            out[i, j] = np.einsum("bhwc,bhwd->cd", near, np.float64(dy))
    return out


@pytest.mark.parametrize(
    ("shape", "size", "around"),
    [
        ((2, 8, 6, 5), 3, 1),  # both pictures in one strip
        ((2, 64, 48, 3), 3, 1),  # a picture in strips
        ((6, 16, 16, 4), 3, 1),  # several pictures a strip
        ((2, 8, 6, 5), 2, 1),  # larger out than in
        ((3, 5, 7, 4), 5, 2),
        ((2, 9, 7, 4), 3, 0),  # smaller out than in
    ],
)
def test_the_kernels_gradient_is_the_sum_over_all_places(shape, size, around):
    x = normal(0, *shape)
    h, w = (side + 2 * around - size + 1 for side in shape[1:3])
    dy = normal(1, shape[0], h, w, 7)
    got = convolve.kernel_gradient(x, dy, around=around, precision="highest")
    want = summed_by_hand(x, dy, size, around)
    np.testing.assert_allclose(got, want, atol=2e-6 * np.abs(want).max())


def test_sums_of_bfloat16_are_float32():
    x, dy = normal(0, 8, 32, 32, 4, dtype=jnp.bfloat16), normal(1, 8, 32, 32, 4, dtype=jnp.bfloat16)
    got = convolve.kernel_gradient(x, dy, around=1)
    want = summed_by_hand(x, dy, 3, 1)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(got), want, atol=2**-8 * np.abs(want).max())


@pytest.mark.parametrize("kernel", [(3, 3, 16, 32), (1, 1, 16, 32), (2, 2, 16, 32)])
def test_on_a_cpu_values_and_gradients_are_those_of_the_convolution(kernel):
    x, kernel = normal(0, 2, 40, 36, 16), normal(1, *kernel)
    padding = ((1, 1), (1, 1)) if kernel.shape[0] == 2 else "SAME"
    want, want_vjp = jax.vjp(functools.partial(plain, padding=padding), x, kernel)
    ours = lambda x, k: convolve.for_cpu(x, k, (1, 1), padding, precision="highest")  # noqa: E731
    got, vjp = jax.vjp(ours, x, kernel)
    np.testing.assert_allclose(got, want, atol=3e-5)
    dy = normal(2, *want.shape)
    for gradient, wanted in zip(vjp(dy), want_vjp(dy), strict=True):
        np.testing.assert_allclose(gradient, wanted, atol=2e-6 * float(jnp.abs(wanted).max()))


@pytest.mark.parametrize("options", [{"strides": (2, 2)}, {"feature_group_count": 16}])
def test_what_it_cannot_do_better_is_left_to_xla(options):
    strides = options.get("strides", (1, 1))
    groups = options.get("feature_group_count", 1)
    x, kernel = normal(0, 2, 64, 64, 16), normal(1, 3, 3, 16 // groups, 16)
    ours = convolve.for_cpu(
        x, kernel, strides, "SAME", dimension_numbers=NHWC, feature_group_count=groups
    )
    theirs = lax.conv_general_dilated(
        x, kernel, strides, "SAME", dimension_numbers=NHWC, feature_group_count=groups
    )
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("convolution", [lax.conv_general_dilated, convolve.for_cpu])
@pytest.mark.parametrize("shape", [(2, 4, 6, 5), (2, 32, 32, 16)])
def test_a_doubled_picture_need_not_be_made(convolution, shape):
    x, kernel = normal(0, *shape), normal(1, 3, 3, shape[-1], 8)
    ours = functools.partial(
        convolve.after_doubling, strides=(1, 1), padding="SAME", convolution=convolution,
        dimension_numbers=NHWC, precision="highest",
    )  # fmt: skip
    want, want_vjp = jax.vjp(doubled, x, kernel)
    got, vjp = jax.vjp(ours, x, kernel)
    np.testing.assert_allclose(got, want, atol=3e-5)
    dy = normal(2, *want.shape)
    for gradient, wanted in zip(vjp(dy), want_vjp(dy), strict=True):
        np.testing.assert_allclose(gradient, wanted, atol=3e-6 * float(jnp.abs(wanted).max()))


def test_it_costs_four_ninths():
    x, kernel = jnp.zeros((1, 64, 64, 4)), jnp.zeros((3, 3, 4, 4))
    ours = functools.partial(
        convolve.after_doubling, strides=(1, 1), padding="SAME",
        convolution=lax.conv_general_dilated, dimension_numbers=NHWC,
    )  # fmt: skip
    cost = hlo.flops(jax.make_jaxpr(ours)(x, kernel)) / hlo.flops(
        jax.make_jaxpr(doubled)(x, kernel)
    )
    assert cost == pytest.approx(4 / 9 * (65 / 64) ** 2)


def test_a_gradient_is_counted_once():
    x, kernel = jnp.zeros((2, 64, 64, 16)), jnp.zeros((3, 3, 16, 16))
    loss = lambda of: lambda x, k: of(x, k).sum()  # noqa: E731
    ours = jax.grad(loss(lambda x, k: convolve.for_cpu(x, k, (1, 1), "SAME")), (0, 1))
    theirs = jax.grad(loss(plain), (0, 1))
    count = lambda of: hlo.flops(jax.make_jaxpr(of)(x, kernel))  # noqa: E731
    assert count(ours) == pytest.approx(count(theirs), rel=0.01)


def test_a_program_for_a_tpu_has_convolutions_for_gradients():
    x, kernel = jnp.zeros((2, 64, 64, 16)), jnp.zeros((3, 3, 16, 16))
    loss = lambda k: convolve.for_cpu(x, k, (1, 1), "SAME").sum()  # noqa: E731
    traced = jax.jit(jax.grad(loss)).trace(kernel)
    assert "dot_general" in traced.lower(lowering_platforms=("cpu",)).as_text()
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert "dot_general" not in text
    assert "convolution" in text


@pytest.mark.slow
def test_a_network_does_not_change_with_its_convolution():
    net = UNet(width=16, mults=(1, 1), num_blocks=1, attention_levels=(), head_width=16)
    x, logsnr = normal(0, 2, 48, 48, 3), normal(1, 2)
    params = jax.jit(net.init)(jax.random.key(0), x, logsnr)["params"]
    params = jax.tree.map(lambda p: p + 0.05 * normal(3, *p.shape), params)  # no zeros left

    def of(net):
        loss = lambda p: jnp.mean(net.apply({"params": p}, x, logsnr) ** 2)  # noqa: E731
        return jax.jit(jax.value_and_grad(loss))(params)

    (want, want_gradient), (got, gradient) = of(net), of(net.clone(convolution=convolve.for_cpu))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    size = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(want_gradient))
    for one, other in zip(*map(jax.tree.leaves, (gradient, want_gradient)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * size)
