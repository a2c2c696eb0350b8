"""The cheaper convolutions give the same values and gradients with fewer FLOPs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from diffjax.models.layers import convolve
from diffjax.models.unet import UNet
from diffjax.planning import jaxprs

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
    """The sum of x's neighbourhood times dy, over pictures and positions, in float64."""
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
        ((2, 64, 48, 3), 3, 1),  # several strips per picture
        ((6, 16, 16, 4), 3, 1),  # several pictures per strip
        ((2, 8, 6, 5), 2, 1),  # the output is larger
        ((3, 5, 7, 4), 5, 2),
        ((2, 9, 7, 4), 3, 0),  # the output is smaller
    ],
)
def test_the_kernel_gradient_equals_its_definition_in_float64(shape, size, around):
    x = normal(0, *shape)
    h, w = (side + 2 * around - size + 1 for side in shape[1:3])
    dy = normal(1, shape[0], h, w, 7)
    got = convolve.kernel_gradient(x, dy, around=around, precision="highest")
    want = summed_by_hand(x, dy, size, around)
    np.testing.assert_allclose(got, want, atol=2e-6 * np.abs(want).max())


def test_the_kernel_gradient_of_bfloat16_is_summed_in_float32():
    x, dy = normal(0, 8, 32, 32, 4, dtype=jnp.bfloat16), normal(1, 8, 32, 32, 4, dtype=jnp.bfloat16)
    got = convolve.kernel_gradient(x, dy, around=1)
    want = summed_by_hand(x, dy, 3, 1)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(got), want, atol=2**-8 * np.abs(want).max())


@pytest.mark.parametrize("kernel", [(3, 3, 16, 32), (1, 1, 16, 32), (2, 2, 16, 32)])
def test_the_cpu_convolution_has_the_values_and_gradients_of_xlas(kernel):
    x, kernel = normal(0, 2, 40, 36, 16), normal(1, *kernel)
    padding = ((1, 1), (1, 1)) if kernel.shape[0] == 2 else "SAME"
    want, want_vjp = jax.vjp(functools.partial(plain, padding=padding), x, kernel)
    ours = lambda x, k: convolve.cpu_convolution(x, k, (1, 1), padding, precision="highest")  # noqa: E731
    got, vjp = jax.vjp(ours, x, kernel)
    np.testing.assert_allclose(got, want, atol=3e-5)
    dy = normal(2, *want.shape)
    for gradient, wanted in zip(vjp(dy), want_vjp(dy), strict=True):
        np.testing.assert_allclose(gradient, wanted, atol=2e-6 * float(jnp.abs(wanted).max()))


@pytest.mark.parametrize("options", [{"strides": (2, 2)}, {"feature_group_count": 16}])
def test_other_convolutions_are_left_to_xla(options):
    strides = options.get("strides", (1, 1))
    groups = options.get("feature_group_count", 1)
    x, kernel = normal(0, 2, 64, 64, 16), normal(1, 3, 3, 16 // groups, 16)
    ours = convolve.cpu_convolution(
        x, kernel, strides, "SAME", dimension_numbers=NHWC, feature_group_count=groups
    )
    theirs = lax.conv_general_dilated(
        x, kernel, strides, "SAME", dimension_numbers=NHWC, feature_group_count=groups
    )
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("convolution", [lax.conv_general_dilated, convolve.cpu_convolution])
@pytest.mark.parametrize("shape", [(2, 4, 6, 5), (2, 32, 32, 16)])
def test_after_doubling_equals_the_convolution_of_the_doubled_picture(convolution, shape):
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


def test_after_doubling_needs_four_ninths_of_the_arithmetic():
    x, kernel = jnp.zeros((1, 64, 64, 4)), jnp.zeros((3, 3, 4, 4))
    ours = functools.partial(
        convolve.after_doubling, strides=(1, 1), padding="SAME",
        convolution=lax.conv_general_dilated, dimension_numbers=NHWC,
    )  # fmt: skip
    cost = jaxprs.flops(jax.make_jaxpr(ours)(x, kernel)) / jaxprs.flops(
        jax.make_jaxpr(doubled)(x, kernel)
    )
    assert cost == pytest.approx(4 / 9 * (65 / 64) ** 2)


def test_flops_of_the_gradient_are_counted_once():
    x, kernel = jnp.zeros((2, 64, 64, 16)), jnp.zeros((3, 3, 16, 16))
    loss = lambda of: lambda x, k: of(x, k).sum()  # noqa: E731
    ours = jax.grad(loss(lambda x, k: convolve.cpu_convolution(x, k, (1, 1), "SAME")), (0, 1))
    theirs = jax.grad(loss(plain), (0, 1))
    count = lambda of: jaxprs.flops(jax.make_jaxpr(of)(x, kernel))  # noqa: E731
    assert count(ours) == pytest.approx(count(theirs), rel=0.01)


def test_a_program_for_a_tpu_computes_gradients_by_convolutions():
    x, kernel = jnp.zeros((2, 64, 64, 16)), jnp.zeros((3, 3, 16, 16))
    loss = lambda k: convolve.cpu_convolution(x, k, (1, 1), "SAME").sum()  # noqa: E731
    traced = jax.jit(jax.grad(loss)).trace(kernel)
    assert "dot_general" in traced.lower(lowering_platforms=("cpu",)).as_text()
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert "dot_general" not in text
    assert "convolution" in text


@pytest.mark.slow
def test_a_network_has_the_same_output_with_either_convolution():
    net = UNet(width=16, mults=(1, 1), num_blocks=1, attention_levels=(), head_width=16)
    x, logsnr = normal(0, 2, 48, 48, 3), normal(1, 2)
    params = jax.jit(net.init)(jax.random.key(0), x, logsnr)["params"]
    params = jax.tree.map(
        lambda p: p + 0.05 * normal(3, *p.shape), params
    )  # so that no parameter is zero

    def of(net):
        loss = lambda p: jnp.mean(net.apply({"params": p}, x, logsnr) ** 2)  # noqa: E731
        return jax.jit(jax.value_and_grad(loss))(params)

    (want, want_gradient), (got, gradient) = (
        of(net),
        of(net.clone(convolution=convolve.cpu_convolution)),
    )
    np.testing.assert_allclose(got, want, rtol=1e-5)
    size = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(want_gradient))
    for one, other in zip(*map(jax.tree.leaves, (gradient, want_gradient)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * size)


def test_a_product_of_columns_and_its_gradients_equal_sums_in_float64():
    shape, size = (2, 3, 5, 4), 3
    x, kernel, dy = (
        normal(0, *shape),
        normal(1, size, size, shape[-1], 40),
        normal(2, *shape[:3], 40),
    )
    convolve_ = functools.partial(
        convolve.with_columns(convolve.cpu_convolution), strides=(1, 1), padding="SAME",
        dimension_numbers=NHWC,
    )  # fmt: skip
    made = jax.make_jaxpr(convolve_)(x, kernel)
    assert "dot_general" in str(made)  # the pixels are few enough
    y, back = jax.vjp(convolve_, x, kernel)
    d_x, d_kernel = back(dy)
    around = size // 2
    want = summed_by_hand(x, dy, size, around)
    np.testing.assert_allclose(d_kernel, want, rtol=1e-4, atol=1e-4)
    # the result and the picture's gradient are sums of the same kind
    turned = np.asarray(kernel)[::-1, ::-1].swapaxes(2, 3)
    for got, picture, taps in ((y, x, kernel), (d_x, dy, turned)):
        wide = np.pad(np.float64(picture), ((0, 0), (around, around), (around, around), (0, 0)))
        h, w = shape[1:3]
        total = sum(
            wide[:, i : i + h, j : j + w] @ np.float64(taps[i, j])
            for i in range(size)
            for j in range(size)
        )
        np.testing.assert_allclose(got, total, rtol=1e-4, atol=1e-4)


def test_a_convolution_of_another_device_is_left_as_it_is():
    assert convolve.with_columns(lax.conv_general_dilated) is lax.conv_general_dilated
