import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from diffjax.planning import jaxprs


def flops(function, *shapes):
    return jaxprs.flops(jax.make_jaxpr(function)(*[jnp.zeros(shape) for shape in shapes]))


def conv(x, kernel, stride=1):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def test_a_product_costs_two_per_multiply_add():
    assert flops(jnp.matmul, (3, 5), (5, 7)) == 2 * 3 * 5 * 7
    batched = lambda a, b: jnp.einsum("bij,bjk->bik", a, b)  # noqa: E731
    assert flops(batched, (4, 3, 5), (4, 5, 7)) == 2 * 4 * 3 * 5 * 7
    assert flops(conv, (2, 8, 8, 3), (3, 3, 3, 5)) == 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3)


@pytest.mark.parametrize("stride", [1, 2])
def test_each_gradient_of_a_convolution_costs_as_much_as_the_convolution(stride):
    shapes = (2, 8, 8, 3), (3, 3, 3, 5)
    forward = flops(lambda x, k: conv(x, k, stride), *shapes)
    both = jax.grad(lambda x, k: jnp.sum(conv(x, k, stride) ** 2), argnums=(0, 1))
    assert flops(both, *shapes) == 3 * forward
    of_kernel = jax.grad(lambda x, k: jnp.sum(conv(x, k, stride) ** 2), argnums=1)
    assert flops(of_kernel, *shapes) == 2 * forward


def test_a_scan_costs_its_length_and_a_cond_its_costliest_branch():
    def scanned(x, weights):
        return jax.lax.scan(lambda h, w: (h @ w, None), x, weights)[0]

    assert flops(scanned, (2, 4), (6, 4, 4)) == 6 * (2 * 2 * 4 * 4)
    either = lambda x, w: jax.lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x @ w)  # noqa: E731
    assert flops(either, (2, 4), (4, 4)) == 2 * (2 * 2 * 4 * 4)


def test_what_is_computed_again_is_counted_again():
    block = lambda x, w: jnp.sin(jnp.sin(x @ w) @ w)  # noqa: E731
    loss = lambda w, x, f: jnp.sum(f(x, w) ** 2)  # noqa: E731
    kept = flops(jax.grad(lambda w, x: loss(w, x, block)), (4, 4), (2, 4))
    again = flops(jax.grad(lambda w, x: loss(w, x, jax.checkpoint(block))), (4, 4), (2, 4))
    one = 2 * 2 * 4 * 4
    assert kept == 5 * one  # two forward, two for the weights, one back through the second
    assert again == kept + 2 * one


def test_a_shard_map_on_many_devices_costs_what_the_whole_costs_on_one():
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    by_hand = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(P(("a", "b")), P()),
                            out_specs=P(("a", "b")))  # fmt: skip
    assert flops(by_hand, (16, 4), (4, 4)) == flops(jnp.matmul, (16, 4), (4, 4))


def test_bytes_are_those_of_operands_and_result_in_their_own_types():
    jaxpr = jax.make_jaxpr(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32))(
        jnp.zeros((3, 5), jnp.bfloat16), jnp.zeros((5, 7), jnp.bfloat16)
    )
    (product,) = jaxprs.products(jaxpr)
    assert product.bytes == 2 * (3 * 5 + 5 * 7) + 4 * 3 * 7
