import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from diffjax.planning import hlo

SHAPE = jax.ShapeDtypeStruct


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
