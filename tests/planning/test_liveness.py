import jax
import jax.numpy as jnp
import pytest

from diffjax.planning import liveness

X = jnp.zeros((64, 64))
SIZE = 64 * 64 * 4


def peak(function, *arguments):
    return liveness.peak(jax.make_jaxpr(function)(*arguments))


def test_a_product_is_kept_until_it_was_last_used():
    assert peak(lambda x: x @ x, X) == SIZE
    assert peak(lambda x: (x @ x) @ x, X) == 2 * SIZE
    assert peak(lambda x: ((x @ x) @ x) @ x, X) == 2 * SIZE  # the first is gone by then

    def held(x):
        a = x @ x
        return a @ ((x @ x) @ x)

    assert peak(held, X) == 3 * SIZE


def test_elementwise_chains_keep_what_went_in_and_not_their_steps():
    assert peak(lambda x: jnp.tanh(x * 2 + 1).sum(), X) == 4
    assert peak(lambda x: jnp.tanh(x @ x) @ x, X) == 2 * SIZE


def test_the_backward_pass_keeps_the_products_of_the_forward_pass():
    def loss(x, layers):
        for _ in range(layers):
            x = jnp.tanh(x @ x)
        return x.sum()

    few, many = (peak(jax.grad(lambda x, n=n: loss(x, n)), X) for n in (2, 10))
    assert many - few == pytest.approx(8 * SIZE, rel=0.01)


def test_calls_are_looked_into_and_a_loop_needs_the_room_of_one_turn():
    inner = jax.jit(lambda x: (x @ x) @ x)
    assert peak(lambda x: inner(inner(x)), X) == 3 * SIZE  # y, y @ y and y @ y @ y

    def loop(x):
        return jax.lax.scan(lambda h, _: (((h @ x) @ x), None), x, None, length=100)[0]

    assert 2 * SIZE <= peak(loop, X) <= 3 * SIZE


def test_a_programs_peak_on_a_device_counts_its_shards():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("data")
    spread = jax.jit(jax.shard_map(lambda x: x @ x.T @ x, mesh=mesh, in_specs=spec, out_specs=spec))
    jaxpr = jax.make_jaxpr(spread)(X)
    rows = 64 // 8
    assert liveness.peak(liveness.on_a_device(jaxpr)) == rows * rows * 4 + rows * 64 * 4
    assert liveness.peak(liveness.on_a_device(jax.make_jaxpr(lambda x: x @ x)(X))) == SIZE
