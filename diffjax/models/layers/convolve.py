"""Convolutions that cost less than they say: of a doubled picture, and their gradients on CPUs."""

import functools
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from diffjax.core.types import Image, Resized

# As `lax.conv_general_dilated`, which is one.
Convolution: TypeAlias = Callable[..., Array]
Kernel: TypeAlias = Float[Array, "k k c d"]

STRIP = 1024  # pixels of a strip: operands of a few MB, and still long sums
WORTH = 2**15  # numbers of the narrower operand: below, one convolution compiles sooner
NHWC = ("NHWC", "HWIO", "NHWC")


def after_doubling(
    x: Image, kernel: Kernel, strides: Any, padding: Any, *, convolution: Convolution, **options
) -> Resized:
    """convolution(x with each pixel four times, kernel) for a kernel of 3 x 3: 4/9 of the work.

    Of the nine taps on the doubled picture, four fall on pixels of their own; which taps share
    one depends on the place's row and column being even or odd. So there are four kernels of
    2 x 2, one for each of the four pictures that make up the result, interleaved.
    """
    b, h, w, _ = x.shape
    parts = [k for rows in _shared(kernel) for k in _shared(rows, axis=1)]
    made = convolution(x, jnp.concatenate(parts, -1), strides, ((1, 1), (1, 1)), **options)
    made = made.reshape(b, h + 1, w + 1, 2, 2, -1)
    phases = [[made[:, p : p + h, q : q + w, p, q] for q in range(2)] for p in range(2)]
    rows = jnp.stack([jnp.stack(row, axis=3) for row in phases], axis=2)  # b h 2 w 2 d
    return rows.reshape(b, 2 * h, 2 * w, -1)


def _shared(kernel: Array, axis: int = 0) -> tuple[Array, Array]:
    """Three taps as the two that even and odd places of a doubled line have on its pixels."""
    first, second, third = jnp.split(kernel, 3, axis)
    even, odd = (first, second + third), (first + second, third)
    return jnp.concatenate(even, axis), jnp.concatenate(odd, axis)


def for_cpu(
    x: Array, kernel: Array, strides: Any, padding: Any, *,
    lhs_dilation: Any = None, rhs_dilation: Any = None, feature_group_count: int = 1,
    precision: Any = None, **options,
) -> Array:  # fmt: skip
    """`lax.conv_general_dilated`, with matrix products where a CPU is faster with them.

    1 x 1 kernels are one; so is the gradient of a larger one, see `kernel_gradient`, at the price
    of forward-mode differentiation.
    """
    size = kernel.shape[0]
    plain = {*strides, *(lhs_dilation or (1,)), *(rhs_dilation or (1,)), feature_group_count} == {1}
    if plain and kernel.shape[:2] == (1, 1):
        return jnp.matmul(x, kernel[0, 0], precision=precision)
    if plain and padding == "SAME" and size % 2:
        padding = ((size // 2, size // 2),) * 2
    even = len({n for pair in padding for n in pair}) == 1 and kernel.shape[1] == size
    if plain and even and math.prod(x.shape[:-1]) * min(kernel.shape[2:]) >= WORTH:
        return _with_products(x, kernel, padding[0][0], precision)
    return lax.conv_general_dilated(
        x, kernel, strides, padding, lhs_dilation=lhs_dilation, rhs_dilation=rhs_dilation,
        feature_group_count=feature_group_count, precision=precision, **options,
    )  # fmt: skip


def _direct(x: Image, kernel: Kernel, around: int, precision: Any) -> Resized:
    padding = ((around, around),) * 2
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=NHWC, precision=precision
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _with_products(x: Image, kernel: Kernel, around: int, precision: Any) -> Resized:
    """A convolution, `around` zeros on each side, whose kernel's gradient is made of products."""
    return _direct(x, kernel, around, precision)


def _forward(x, kernel, around, precision):
    return _direct(x, kernel, around, precision), (x, kernel)


def _backward(around, precision, kept, dy):
    def picture_gradient(x, kernel, dy):
        make = lambda x: _direct(x, kernel, around, precision)  # noqa: E731
        return jax.linear_transpose(make, x)(dy)[0]

    def by_convolutions(x, kernel, dy):
        make = lambda kernel: _direct(x, kernel, around, precision)  # noqa: E731
        return picture_gradient(x, kernel, dy), jax.linear_transpose(make, kernel)(dy)[0]

    def by_products(x, kernel, dy):
        small = kernel.shape[0] == 2 and around == 1
        dx = _small_gradient(kernel, dy, precision) if small else picture_gradient(x, kernel, dy)
        return dx, kernel_gradient(x, dy, around=around, precision=precision)

    # a program for a TPU may be compiled where there is none
    return lax.platform_dependent(*kept, dy, cpu=by_products, default=by_convolutions)


_with_products.defvjp(_forward, _backward)


def _small_gradient(kernel: Kernel, dy: Resized, precision: Any) -> Image:
    """The gradient of sum(dy * y) for the picture of which a 2 x 2 kernel and a zero around make y.

    As a convolution it runs at a quarter of the speed of this.
    """
    h, w = dy.shape[1] - 1, dy.shape[2] - 1
    parts = jnp.einsum("bhwd,ijcd->bhwijc", dy, kernel, precision=precision)
    at = lambda i, j: parts[:, 1 - i : 1 - i + h, 1 - j : 1 - j + w, i, j]  # noqa: E731
    return at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)


def kernel_gradient(x: Image, dy: Resized, *, around: int, precision: Any = None) -> Kernel:
    """The gradient of sum(dy * y) for a kernel that makes y of x with `around` zeros on each side.

    XLA for CPUs makes it a convolution whose window is the picture, after transposing x and dy,
    at half the speed of the forward pass. The same sum is one product: x beside its neighbours
    below, times dy beside its neighbours to the left, holds all taps. It is summed over strips
    that stay in the cache (benchmarks/README.md has the figures).
    """
    b, h, w, d = dy.shape
    c, size = x.shape[-1], x.shape[1] + 2 * around - h + 1
    rows = _largest_divisor(h, STRIP // w)
    pictures = _largest_divisor(b, STRIP // (h * w)) if rows == h else 1
    x = jnp.pad(x, ((0, 0), (around, around), (0, 0), (0, 0)))
    beside = size - 1 - around  # dy's columns meet those of x, which has no zeros beside it

    def add(so_far, i):
        picture, row = i // (h // rows) * pictures, i % (h // rows) * rows
        x_here = lax.dynamic_slice_in_dim(x, picture, pictures)
        x_here = lax.dynamic_slice_in_dim(x_here, row, rows + size - 1, axis=1)
        dy_here = lax.dynamic_slice_in_dim(dy, picture, pictures)
        dy_here = lax.dynamic_slice_in_dim(dy_here, row, rows, axis=1)
        dy_here = jnp.pad(dy_here, ((0, 0), (0, 0), (beside, beside), (0, 0)))
        left = [x_here[:, k : k + rows] for k in range(size)]
        right = [dy_here[:, :, size - 1 - k :][:, :, : x.shape[2]] for k in range(size)]
        product = lax.dot_general(
            jnp.concatenate(left, -1).reshape(-1, size * c),
            jnp.concatenate(right, -1).reshape(-1, size * d),
            (((0,), (0,)), ((), ())),
            precision=precision,
            preferred_element_type=sums,
        )
        return so_far + product, None

    sums = jnp.promote_types(x.dtype, jnp.float32)
    nothing = jnp.zeros((size * c, size * d), sums)
    total, _ = lax.scan(add, nothing, jnp.arange(b // pictures * (h // rows)))
    return total.reshape(size, c, size, d).swapaxes(1, 2).astype(x.dtype)


def _largest_divisor(n: int, limit: int) -> int:
    return max(k for k in range(1, n + 1) if n % k == 0 and (k == 1 or k <= limit))


def fastest() -> Convolution:
    """What a network should be built with on this machine."""
    return for_cpu if jax.default_backend() == "cpu" else lax.conv_general_dilated
