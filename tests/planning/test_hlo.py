import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from diffjax.planning import hlo

SHAPE = jax.ShapeDtypeStruct


def flops(function, *shapes):
    return hlo.flops(jax.make_jaxpr(function)(*[jnp.zeros(shape) for shape in shapes]))


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


def test_work_by_hand_on_many_devices_costs_what_it_costs_on_one():
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    by_hand = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(P(("a", "b")), P()),
                            out_specs=P(("a", "b")))  # fmt: skip
    assert flops(by_hand, (16, 4), (4, 4)) == flops(jnp.matmul, (16, 4), (4, 4))


def test_bytes_are_those_of_operands_and_result_in_their_own_types():
    jaxpr = jax.make_jaxpr(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32))(
        jnp.zeros((3, 5), jnp.bfloat16), jnp.zeros((5, 7), jnp.bfloat16)
    )
    (product,) = hlo.products(jaxpr)
    assert product.bytes == 2 * (3 * 5 + 5 * 7) + 4 * 3 * 7


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().as_text()


def sharded(shape, *spec, mesh, dtype=jnp.float32):
    return SHAPE(shape, dtype, sharding=NamedSharding(mesh, P(*spec)))


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))


def by_hand(mesh, function, out):
    return jax.shard_map(function, mesh=mesh, in_specs=P("x"), out_specs=out, check_vma=False)


def test_collectives_are_counted_with_the_bytes_of_the_whole_array(mesh):
    x = sharded((16, 128), "x", mesh=mesh)
    cases = {
        "all-gather": (lambda x: jax.lax.all_gather(x, "x", tiled=True), P(), 16 * 128 * 4),
        "all-reduce": (lambda x: jax.lax.psum(x, "x"), P(), 2 * 128 * 4),
        "reduce-scatter": (
            lambda x: jax.lax.psum_scatter(x, "x", scatter_dimension=1, tiled=True),
            P(None, "x"),
            2 * 128 * 4,
        ),
        "all-to-all": (lambda x: jax.lax.all_to_all(x, "x", 1, 0, tiled=True), P("x"), 2 * 128 * 4),
        "collective-permute": (
            lambda x: jax.lax.ppermute(x, "x", [(i, (i + 1) % 8) for i in range(8)]),
            P("x"),
            2 * 128 * 4,
        ),
    }
    for kind, (function, out, size) in cases.items():
        text = compiled(by_hand(mesh, function, out), x)
        assert hlo.collectives(text) == {kind: hlo.Collective(1, size)}, kind


def test_a_collective_in_a_loop_is_counted_as_often_as_it_runs(mesh):
    def looped(x):
        return jax.lax.scan(lambda h, _: (jnp.sin(jax.lax.psum(h, "x")), None), x, length=5)[0]

    text = compiled(by_hand(mesh, looped, P()), sharded((16, 128), "x", mesh=mesh))
    assert hlo.collectives(text) == {"all-reduce": hlo.Collective(5, 5 * 2 * 128 * 4)}


def test_a_program_of_one_device_has_no_collectives():
    assert hlo.collectives(compiled(jnp.sin, SHAPE((4, 4), "float32"))) == {}


# As XLA for TPU writes them: overlapped in three parts, and reduced into slices.
ON_TPU = textwrap.dedent("""\
    HloModule jit_step, is_scheduled=true

    %start.1 (p: bf16[3,16]) -> (bf16[3,16], bf16[12,16], s32[2]) {
      %p = bf16[3,16]{1,0:T(8,128)(2,1)} parameter(0)
      %gather.1 = bf16[12,16]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=7, dimensions={0}
      ROOT %c = (bf16[3,16]{1,0:T(8,128)(2,1)S(1)}, bf16[12,16]{1,0}, /*index=2*/s32[2]{0}) custom-call(%p, %gather.1), custom_call_target="AsyncCollectiveStart"
    }

    %async_collective_fusion.2 (p.2: bf16[3,16]) -> bf16[12,16] {
      %p.2 = bf16[3,16]{1,0} parameter(0)
      ROOT %gather.2 = bf16[12,16]{1,0} all-gather(%p.2), channel_id=7, dimensions={0}
    }

    %done.1 (p.3: bf16[3,16]) -> bf16[12,16] {
      %p.3 = bf16[3,16]{1,0} parameter(0)
      %gather.3 = bf16[12,16]{1,0} all-gather(%p.3), channel_id=7, dimensions={0}
      ROOT %c.3 = bf16[12,16]{1,0} custom-call(%p.3, %gather.3), custom_call_target="AsyncCollectiveDone"
    }

    %all-reduce-scatter.1 (p.4: f32[8,4]) -> f32[2,4] {
      %p.4 = f32[8,4]{1,0} parameter(0)
      %reduce.1 = f32[8,4]{1,0} all-reduce(%p.4), channel_id=1, to_apply=%add
      ROOT %slice = f32[2,4]{1,0} dynamic-slice(%reduce.1, %p.4)
    }

    ENTRY %main (a: bf16[3,16], b: f32[8,4]) -> f32[2,4] {
      %a = bf16[3,16]{1,0} parameter(0)
      %b = f32[8,4]{1,0} parameter(1)
      %s = (bf16[3,16], bf16[12,16], s32[2]) fusion(%a), kind=kCustom, calls=%start.1
      %m = bf16[12,16]{1,0} fusion(%a), kind=kCustom, calls=%async_collective_fusion.2
      %d = bf16[12,16]{1,0} fusion(%a), kind=kCustom, calls=%done.1
      ROOT %r = f32[2,4]{1,0} fusion(%b), kind=kCustom, calls=%all-reduce-scatter.1
    }
    """)  # noqa: E501


def test_on_tpu_a_collective_in_parts_is_one_and_a_reduced_slice_is_a_reduce_scatter():
    assert hlo.collectives(ON_TPU) == {
        "all-gather": hlo.Collective(1, 12 * 16 * 2),
        "reduce-scatter": hlo.Collective(1, 8 * 4 * 4),
    }


LOOP_ON_TPU = textwrap.dedent("""\
    HloModule jit_step, is_scheduled=true

    %body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
      %p = (s32[]{:T(128)}, f32[8]{0}, s32[]{:T(128)}) parameter(0)
      %h = f32[8]{0} get-tuple-element(%p), index=1
      %r = f32[8]{0} all-reduce(%h), channel_id=1, to_apply=%add
      ROOT %t = (s32[]{:T(128)}, f32[8]{0}, s32[]{:T(128)}) tuple(%p, %r, %p)
    }

    %condition (q: (s32[], f32[8])) -> pred[] {
      %held = s32[]{:T(128)} constant(6), metadata={op_name="jit(step)/(shard_map)"}
      %q = (s32[]{:T(128)}, f32[8]{0}, s32[]{:T(128)}) parameter(0)
      %i = s32[]{:T(128)} get-tuple-element(%q), index=0
      %handed = s32[]{:T(128)} get-tuple-element(%q), index=2
      ROOT %lt = pred[]{:T(512)} compare(%i, %BOUND), direction=LT
    }

    ENTRY %main (a: f32[8]) -> f32[8] {
      %a = f32[8]{0} parameter(0)
      %zero = s32[]{:T(128)} constant(0)
      %five = s32[]{:T(128)} constant(5)
      %copy = s32[]{:T(128)} copy(%five)
      %in = (s32[]{:T(128)}, f32[8]{0}, /*index=2*/s32[]{:T(128)}) tuple(%zero, %a, /*index=2*/%copy)
      %w = (s32[]{:T(128)}, f32[8]{0}, s32[]{:T(128)}) while(%in), condition=%condition, body=%body
      ROOT %out = f32[8]{0} get-tuple-element(%w), index=1
    }
    """)  # noqa: E501


@pytest.mark.parametrize(("bound", "times"), [("held", 6), ("handed", 5)])
def test_on_tpu_the_length_of_a_loop_is_read_from_its_condition(bound, times):
    text = LOOP_ON_TPU.replace("BOUND", bound)
    assert hlo.collectives(text) == {"all-reduce": hlo.Collective(times, times * 8 * 4)}


def test_a_callback_is_a_transfer_to_the_host():
    double = lambda x: np.asarray(x) * 2  # noqa: E731
    shape = SHAPE((4,), "float32")
    called = compiled(lambda x: jax.pure_callback(double, shape, x), shape)
    assert hlo.host_transfers(called) == 1
    assert hlo.host_transfers(compiled(lambda x: x * 2, shape)) == 0


def test_a_scan_keeps_the_lines_of_a_program_where_a_loop_adds_to_them():
    def lines(loop, length):
        return hlo.stablehlo_lines(jax.jit(loop, static_argnums=1).lower(jnp.ones(4), length))

    def unrolled(x, length):
        for _ in range(length):
            x = jnp.sin(x)
        return x

    scanned = lambda x, n: jax.lax.scan(lambda h, _: (jnp.sin(h), None), x, length=n)[0]  # noqa: E731
    assert lines(unrolled, 8) - lines(unrolled, 2) == 6
    assert lines(scanned, 8) == lines(scanned, 2)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("f32[8,128]{1,0:T(8,128)}", 4096),
        ("bf16[3]{0:T(1024)(128)(2,1)S(1)}", 6),
        ("pred[5]", 5),
        ("(f32[2], /*index=1*/u8[3]{0}, s32[])", 8 + 3 + 4),
        ("f8e4m3fn[10]", 10),
        ("token[]", 0),
    ],
)
def test_bytes_of_a_type(text, size):
    assert hlo.type_bytes(text) == size
