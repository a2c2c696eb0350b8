"""The decoder and the upsampler in Karlo's layout: the answers of diffusers, refusals in a line."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffjax.build.others import karlo
from diffjax.diffusion.sampling import spacing
from diffjax.encoders.unclip import decoder, upsampler
from tools.inputs import karlo_inputs

GOLDEN = Path(__file__).parents[2] / "golden" / "karlo"
PARTS = {
    "decoder": ("decoder", "UNet2DConditionModel", karlo_inputs.DECODER),
    "text_proj": ("text_proj", "UnCLIPTextProjModel", karlo_inputs.PROJECTION),
    "super_res_first": ("super_res_first", "UNet2DModel", karlo_inputs.UPSAMPLER),
    "super_res_last": ("super_res_first", "UNet2DModel", karlo_inputs.UPSAMPLER),
}
SHAPES = json.loads((GOLDEN / "shapes.json").read_text())


def folder(path, part="", **said):
    """A folder of Karlo's layout without a prior; `said` of the config of a part."""
    for name, (like, kind, config) in PARTS.items():
        (path / name).mkdir(parents=True)
        own = {"_class_name": kind, **config, **(said if name == part else {})}
        (path / name / "config.json").write_text(json.dumps(own))
        save_file(karlo_inputs.tensors(name, SHAPES[like]), path / name / decoder.WEIGHTS)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("karlo"))


def given():
    made = {name: jnp.asarray(x) for name, x in karlo_inputs.given().items()}
    return made, load_file(GOLDEN / "answers.safetensors")


def levels_of(task, step):
    return jnp.asarray(np.asarray(spacing.on_grid(task.schedule))[step], jnp.float32)


def test_the_decoder_says_what_that_of_diffusers_says_with_a_vector_and_without(whole):
    task, params = karlo.decoder_of(whole)
    inputs, answers = given()
    told = {name: inputs[name] for name in ("text", "text_mask", "text_vector")}
    levels = levels_of(task, karlo_inputs.given()["step"])
    run = jax.jit(
        lambda vector: task.model.apply(
            {"params": params}, inputs["x_t"], levels, vector=vector, **told
        )
    )
    for name, vector in (("told", inputs["vector"]), ("untold", jnp.zeros((2, 12)))):
        wanted = answers[name]
        np.testing.assert_allclose(run(vector), wanted, atol=2e-5 * np.abs(wanted).max())
    assert np.abs(answers["told"] - answers["untold"]).max() > 0.1


@pytest.mark.slow
def test_the_upsampler_says_what_that_of_diffusers_says_and_another_one_the_last_step(whole):
    task, params = karlo.upsampler_of(whole)
    inputs, answers = given()
    levels = levels_of(task, karlo_inputs.given()["step"])
    small = inputs["low_res"]
    run = jax.jit(
        lambda params, at: task.model.apply({"params": params}, inputs["x_t"], at, low_res=small)
    )
    wanted = answers["upsampled"]
    np.testing.assert_allclose(run(params, levels), wanted, atol=2e-5 * np.abs(wanted).max())
    clean = levels_of(task, np.zeros(2, int))
    swapped = {"first": params["last"], "last": params["first"]}
    assert float(jnp.abs(run(swapped, clean) - run(params, clean)).max()) > 0.1


def test_the_tasks_are_those_of_karlos_code(whole):
    made, _ = karlo.decoder_of(whole)
    assert (made.predict, made.settings.sampler, made.settings.num_steps) == (
        "eps", "ddpm_learned", 25,
    )  # fmt: skip
    assert set(made.prompts()) == {"text", "text_mask", "text_vector", "image_vector"}
    larger, _ = karlo.upsampler_of(whole)
    assert (larger.low_res_px, larger.settings.num_steps) == (2, 7)


@pytest.mark.parametrize(
    ("part", "said", "wrong"),
    [
        ("decoder", dict(_class_name="UNet2DModel"), "want 'UNet2DConditionModel'"),
        ("decoder", dict(class_embed_type=None), "class_embed_type is None, want 'identity'"),
        ("decoder", dict(block_out_channels=[32, 48]), "want multiples of the first"),
        ("decoder", dict(up_block_types=["ResnetUpsampleBlock2D"] * 2), "do not mirror"),
        ("decoder", dict(attention_head_dim=24), "24 does not divide the channels"),
        ("decoder", dict(out_channels=3), "want 6: noise"),
        ("decoder", dict(cross_attention_dim=32), "cross_attention_dim is 24, want 32"),
        ("decoder", dict(layers_per_block=2), "missing, want .* not this decoder"),
        ("text_proj", dict(clip_extra_context_tokens=3), "tokens is 3, want 4"),
        ("super_res_first", dict(in_channels=3), "takes 3 channels and predicts 3, want 6"),
        ("super_res_first", dict(add_attention=1), "add_attention is 1, want true or false"),
        ("super_res_last", dict(layers_per_block=2), "missing, want .* not this U-Net"),
    ],
)
def test_another_network_is_refused_in_one_line(tmp_path, part, said, wrong):
    made = folder(tmp_path / "karlo", part, **said)
    with pytest.raises(ValueError, match=wrong) as caught:
        (upsampler if part.startswith("super") else decoder).load(made)
    assert "\n" not in str(caught.value)
