import textwrap
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from diffjax.devices.chips import CHIPS, GIB
from diffjax.planning import memory

ASSIGNMENT = textwrap.dedent("""\
    BufferAssignment:
    allocation 0: size 512, thread-local:
     value: <2 add.17 @0> (size=999999999999,offset=0): bf16[]{:T(256)}
    allocation 1: size 4294967296, parameter 4, shape |bf16[524288,4096]| at ShapeIndex {}:
     value: <473 param.1 @0> (size=4294967296,offset=0): bf16[524288,4096]{1,0:T(8,128)(2,1)}
    allocation 2: size 9000000000, preallocated-temp:
     value: <9 fusion.1{0} @0> (size=3221225472,offset=0): f32[196608,4096]{1,0:T(8,128)}
     value: <10 copy.2 @0> (size=1024,offset=0): f32[256]{0:T(256)}
     value: <11 fusion.3 @0> (size=3221225472,offset=4096): f32[196608,4096]{1,0:T(8,128)}
     value: <12 vector.1 @0> (size=8589934592,offset=0): f32[4]{0:T(128)S(1)}
    """)
TEXT = """
  %param.1 = bf16[524288,4096]{1,0} parameter(4), metadata={op_name="batch['text']"}
  %fusion.1 = f32[1]{0} fusion(%a), metadata={op_name="jit(train_step)/jvp(UNet)/up_0/conv_0"}
  %fusion.3 = f32[1]{0} fusion(%a), metadata={op_name="jit(train_step)/jvp(UNet)/up_0/conv_1"}
"""


def test_the_largest_buffers_are_named_by_what_makes_them():
    found = memory.buffers(ASSIGNMENT, TEXT)
    assert [(b.bytes, b.operation) for b in found] == [
        (4 * GIB, "argument batch['text']"),
        (3 * GIB, "jvp(UNet)/up_0/conv_0"),
        (3 * GIB, "jvp(UNet)/up_0/conv_1"),
    ]
    assert memory.too_big(20 * GIB, 15.75 * GIB, found).splitlines()[:3] == [
        "does not fit: needs 20.00 GiB per device, but a device has 15.75 GiB",
        "  4.00 GiB bf16[524288,4096]: argument batch['text']",
        "  2 x 3.00 GiB f32[196608,4096]: jvp(UNet)/up_0/conv_0, jvp(UNet)/up_0/conv_1",
    ]


def test_the_figures_of_xlas_out_of_memory_message_are_read():
    message = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (56.84G) exceeds available HBM (15.75G)."
    )
    assert memory.parse_out_of_memory(message) == (56.84 * GIB, 15.75 * GIB)
    assert memory.parse_out_of_memory("RESOURCE_EXHAUSTED: out of luck (1G)") is None


@pytest.fixture(scope="module")
def lowered():
    def step(w, x):
        wide = jnp.sin(x @ w)
        return w - wide.T @ wide, jnp.sum(wide)

    shape = lambda *s: jax.ShapeDtypeStruct(s, jnp.float32)  # noqa: E731
    return jax.jit(step, donate_argnums=0).lower(shape(128, 128), shape(4096, 128))


def test_the_bytes_of_a_program_are_its_arrays(lowered):
    sizes = memory.bytes_by_kind(lowered.compile())
    w, x = 4 * 128 * 128, 4 * 4096 * 128
    assert sizes["arguments"] == w + x
    assert sizes["alias"] == w  # what is given away becomes the result
    assert x <= sizes["temporaries"] < 1.5 * x
    assert w + 2 * x <= sizes["peak"] <= w + 2.6 * x


def test_the_largest_buffers_of_a_program_are_found_by_compiling_it_again(lowered):
    first, second, *_ = memory.largest_buffers(lowered)
    assert {first.bytes, second.bytes} == {4 * 4096 * 128}
    assert {first.type, second.type} == {"f32[4096,128]"}
    assert any(b.operation == "argument x" for b in (first, second))


def test_usable_bytes_are_those_of_the_chip_or_what_jax_may_take_of_a_gpu():
    tpu = SimpleNamespace(platform="tpu", memory_stats=lambda: None)
    gpu = SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": 60e9})
    assert memory.usable_bytes(tpu, CHIPS["TPU v5e"]) == 15.75 * GIB
    assert memory.usable_bytes(gpu, CHIPS["H100 SXM"]) == 60e9
    cpu = SimpleNamespace(platform="cpu", memory_stats=lambda: None)
    assert memory.usable_bytes(cpu, None) is None


@pytest.mark.parametrize(("xlas", "peak"), [(9, 50_321), (1000, 51_000)])
def test_output_that_takes_its_inputs_place_counts_once_and_code_lies_beside(xlas, peak):
    sizes = SimpleNamespace(
        argument_size_in_bytes=4001, temp_size_in_bytes=20, output_size_in_bytes=300,
        alias_size_in_bytes=4000, generated_code_size_in_bytes=50_000,
        peak_memory_in_bytes=xlas,
    )  # fmt: skip

    class Counted(jax.stages.Compiled):
        """A program of which XLA says just that."""

        def __init__(self):
            pass

        def memory_analysis(self):
            return sizes

    found = memory.bytes_by_kind(Counted())
    assert found["peak"] == peak
