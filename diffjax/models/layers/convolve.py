"""Cheaper ways to compute convolutions of a doubled picture, and gradients on CPUs."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from diffjax.core.types import Image, Resized

# A function with the signature of `lax.conv_general_dilated`.
Convolution: TypeAlias = Callable[..., Array]
Kernel: TypeAlias = Float[Array, "k k c d"]

STRIP = 1024  # pixels of a strip: the operands take a few MB, and the sums are still long
WORTH = 2**15  # smaller operands use the plain convolution, which compiles faster
FEW = 2  # pixels for each channel of the result, up to which columns are faster
Padding: TypeAlias = str | Sequence[tuple[int, int]]
NHWC = ("NHWC", "HWIO", "NHWC")


def after_doubling(
    x: Image,
    kernel: Kernel,
    strides: Sequence[int],
    padding: Padding,
    *,
    convolution: Convolution,
    **options: object,
) -> Resized:
    """convolution(x with each pixel four times, 3 x 3 kernel), with 4/9 of the arithmetic.

    The nine taps at a pixel of the doubled picture fall on only four pixels of x. Which taps share
    a pixel depends on whether its row and column are even or odd. So four kernels of 2 x 2 make
    four pictures, which are interleaved. strides and padding are always 1 and "SAME".
    """
    b, h, w, _ = x.shape
    parts = [k for rows in _shared(kernel) for k in _shared(rows, axis=1)]
    made = convolution(x, jnp.concatenate(parts, -1), strides, ((1, 1), (1, 1)), **options)
    made = made.reshape(b, h + 1, w + 1, 2, 2, -1)
    phases = [[made[:, p : p + h, q : q + w, p, q] for q in range(2)] for p in range(2)]
    rows = jnp.stack([jnp.stack(row, axis=3) for row in phases], axis=2)  # b h 2 w 2 d
    return rows.reshape(b, 2 * h, 2 * w, -1)


def _shared(kernel: Array, axis: int = 0) -> tuple[Array, Array]:
    """The three taps of a line as the two taps on x, for even and for odd pixels."""
    first, second, third = jnp.split(kernel, 3, axis)
    even, odd = (first, second + third), (first + second, third)
    return jnp.concatenate(even, axis), jnp.concatenate(odd, axis)


def cpu_convolution(
    x: Array, kernel: Array, strides: Sequence[int], padding: Padding, *,
    lhs_dilation: Sequence[int] | None = None, rhs_dilation: Sequence[int] | None = None,
    feature_group_count: int = 1, precision: lax.PrecisionLike = None, **options,
) -> Array:  # fmt: skip
    """`lax.conv_general_dilated`, with matrix products where they are faster on a CPU.

    A convolution with a 1 x 1 kernel is a matrix product, and so is the gradient of a larger
    kernel; see `kernel_gradient`. For large kernels, forward-mode differentiation is not supported.
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


def _direct(x: Image, kernel: Kernel, around: int, precision: lax.PrecisionLike) -> Resized:
    padding = ((around, around),) * 2
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=NHWC, precision=precision
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _with_products(x: Image, kernel: Kernel, around: int, precision: lax.PrecisionLike) -> Resized:
    """A convolution with `around` zeros on each side; its kernel gradient uses matrix products."""
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

    # a program for a TPU may be compiled on a CPU, so the choice is made by the compiler
    return lax.platform_dependent(*kept, dy, cpu=by_products, default=by_convolutions)


_with_products.defvjp(_forward, _backward)


def _small_gradient(kernel: Kernel, dy: Resized, precision: lax.PrecisionLike) -> Image:
    """d sum(dy * y) / dx, where y is x convolved with a 2 x 2 kernel and padded by one zero.

    It is four times as fast as the same gradient as a convolution.
    """
    h, w = dy.shape[1] - 1, dy.shape[2] - 1
    parts = jnp.einsum("bhwd,ijcd->bhwijc", dy, kernel, precision=precision)
    at = lambda i, j: parts[:, 1 - i : 1 - i + h, 1 - j : 1 - j + w, i, j]  # noqa: E731
    return at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)


def kernel_gradient(
    x: Image, dy: Resized, *, around: int, precision: lax.PrecisionLike = None
) -> Kernel:
    """d sum(dy * y) / dkernel, where y is x convolved with the kernel, with `around` zeros.

    XLA for CPUs computes it as a convolution with a window as large as the picture, at half the
    speed of the forward pass. The same sum is one matrix product that holds all taps: x next to its
    neighbours below, times dy next to its neighbours to the left. It is summed over strips of rows
    that fit the CPU's cache (benchmarks/README.md has the figures).
    """
    b, h, w, d = dy.shape
    c, size = x.shape[-1], x.shape[1] + 2 * around - h + 1
    rows = _largest_divisor(h, STRIP // w)
    pictures = _largest_divisor(b, STRIP // (h * w)) if rows == h else 1
    x = jnp.pad(x, ((0, 0), (around, around), (0, 0), (0, 0)))
    beside = size - 1 - around  # x has no zeros at its left and right, so dy gets them

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


def with_columns(convolution: Convolution) -> Convolution:
    """`column_convolution` instead of `cpu_convolution`; another convolution as it is.

    For networks that are widest where pictures are smallest. The networks of pixels do without,
    because the pictures that are recorded of them depend on the order of the sums.
    """
    return column_convolution if convolution is cpu_convolution else convolution


def column_convolution(
    x: Array, kernel: Array, strides: Sequence[int], padding: Padding, *,
    lhs_dilation: Sequence[int] | None = None, rhs_dilation: Sequence[int] | None = None,
    feature_group_count: int = 1, precision: lax.PrecisionLike = None, **options,
) -> Array:  # fmt: skip
    """`cpu_convolution`, but of pictures with few pixels as one product of matrices.

    A row of the first matrix is a pixel with its neighbours. So the kernel, which is larger than
    these rows, is read as it lies in memory; a convolution packs it anew, and one for the picture's
    gradient turns it round first. With its gradients, 1,024 -> 512 channels at 2 x 8 x 8 pixels
    took 78 ms of a core, and take 43.
    """
    size, pixels = kernel.shape[0], math.prod(x.shape[:-1])
    plain = {*strides, *(lhs_dilation or (1,)), *(rhs_dilation or (1,)), feature_group_count} == {1}
    square = kernel.shape[1] == size and size % 2 and size > 1
    usual = lambda x, kernel: cpu_convolution(  # noqa: E731
        x, kernel, strides, padding, lhs_dilation=lhs_dilation, rhs_dilation=rhs_dilation,
        feature_group_count=feature_group_count, precision=precision, **options,
    )  # fmt: skip
    if plain and square and padding == "SAME" and pixels <= FEW * kernel.shape[3]:
        # the backward pass makes the columns again, which are `size`^2 times as large as x
        columns = jax.checkpoint(functools.partial(_by_columns, precision=precision))
        return lax.platform_dependent(x, kernel, cpu=columns, default=usual)
    return usual(x, kernel)


def _by_columns(x: Image, kernel: Kernel, precision: lax.PrecisionLike) -> Resized:
    (b, h, w, c), (size, _, _, d) = x.shape, kernel.shape
    around = ((size // 2, size // 2),) * 2
    wide = jnp.pad(x, ((0, 0), *around, (0, 0)))
    beside = [wide[:, i : i + h, j : j + w] for i in range(size) for j in range(size)]
    columns = jnp.concatenate(beside, axis=-1).reshape(b * h * w, size * size * c)
    made = jnp.matmul(columns, kernel.reshape(size * size * c, d), precision=precision)
    return made.reshape(b, h, w, d)


def fastest_convolution() -> Convolution:
    """The convolution that is fastest on this machine."""
    return cpu_convolution if jax.default_backend() == "cpu" else lax.conv_general_dilated
