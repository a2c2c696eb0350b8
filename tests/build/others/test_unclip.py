"""The networks of DALL-E 2's decoder and upsamplers, and what they are told."""

import jax
import pytest

from diffjax.build import tasks
from diffjax.build.check import check
from diffjax.build.options import config
from diffjax.core.errors import ConfigError
from diffjax.devices import mesh as mesh_lib


def count(spec):
    options = config.load(spec)
    check(options, 8)
    task = tasks.task_of(options, options.text.width if "text" in options else 0)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    # a rule names each parameter where it lies in a state
    mesh_lib.state_sharding(mesh_lib.make_mesh(fsdp=8), {"params": shapes}, task.sharding)
    return sum(x.size for x in jax.tree.leaves(shapes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "numbers"),
    [("paper_256", 729_702_083), ("karlo_256", 691_579_523), ("paper_1024", 282_059_139)],
)
def test_the_upsamplers_have_as_many_parameters_as_the_paper_rounds(preset, numbers):
    """700 M and 300 M (table 3); that of Karlo is diffusers' UNet2DModel, to the parameter."""
    assert count(f"configs/unclip_sr.py:{preset}") == numbers


@pytest.mark.parametrize(
    ("preset", "numbers"), [("karlo", 885_439_686 + 7_878_400), ("paper", 3_564_912_134)]
)
def test_the_decoders_have_as_many_parameters_as_the_papers(preset, numbers):
    """Of diffusers' UNet2DConditionModel and UnCLIPTextProjModel; and 3.5 B (table 3)."""
    assert count(f"configs/decoder.py:{preset}") == numbers


@pytest.mark.parametrize(
    ("key", "value", "wrong"),
    [
        ("of", "colour", r'embedding.of = .*must be "image_vector"'),
        ("width", 129, r"embedding.width = 129: must be vectors.width, 128"),
        ("encoder", "clip:emoji", r"embedding.encoder = .*leave it empty"),
    ],
)
def test_a_decoder_is_told_the_vectors_of_its_section_alone(key, value, wrong):
    options = config.load("configs/decoder.py:tiny").copy_and_resolve_references()
    options.embedding[key] = value
    with pytest.raises(ConfigError, match=wrong):
        check(options, 1)


def test_an_unknown_degradation_is_refused_in_one_line():
    options = config.load("configs/unclip_sr.py:tiny").copy_and_resolve_references()
    options.low_res.degrade = "jpeg"
    with pytest.raises(ConfigError, match=r"low_res\.degrade = .*allowed: , blur, bsr"):
        check(options, 1)
