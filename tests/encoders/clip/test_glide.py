"""GLIDE's CLIP of noised pictures: the same vectors as a forward pass in PyTorch, and refusals."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import table
from diffjax.encoders.clip import encoder, glide
from diffjax.models.clip.clip import CLIP
from diffjax.tasks.critic import ClipCritic
from tests.encoders.ancestors import made
from tests.encoders.ancestors.glide import GOLDEN, answers
from tools.inputs import random_tensors
from tools.inputs.glide_inputs import given, texts

FILES = {"image": glide.IMAGE, "text": glide.TEXT}


def write(folder, change=lambda part, tensors: tensors):
    """The two files in a folder."""
    shapes = json.loads((GOLDEN / "shapes.json").read_text())
    for part, name in FILES.items():
        own = {key: tuple(shape) for key, shape in shapes[f"clip_{part}"].items()}
        made.write_pt(folder / name, change(part, random_tensors.transformer(0, own)))
    return folder


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return glide.load(write(tmp_path_factory.mktemp("clip")))


def test_vectors_are_those_of_the_forward_pass_that_was_written_for_this_test(loaded):
    config, params = loaded
    inputs, words = given(), texts()
    levels = table.logsnr_table(table.cosine_betas())[inputs["step"]]
    model = CLIP(config)

    @jax.jit
    def run(params):
        image = model.apply({"params": params}, jnp.asarray(inputs["x"]),
                            jnp.asarray(levels, jnp.float32), method="of_image")  # fmt: skip
        text = model.apply({"params": params}, jnp.asarray(words["ids"]), method="of_text")
        return {"clip_image": image, "clip_text": text}

    for name, found in run(params).items():
        wanted = answers()[name]
        np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max(), rtol=0)
    assert np.exp(params["log_scale"]) == pytest.approx(100)
    assert not ClipCritic(model).of_clean


def test_sizes_follow_from_shapes_and_keys_have_no_biases(loaded):
    config, params = loaded
    assert (config.size_px, config.patch, config.embed, config.length) == (8, 4, 10, 7)
    assert (config.levels, config.vocabulary, config.activation) == (1000, 13, "gelu")
    bias = params["image"]["blocks"]["block_0"]["qkv"]["bias"]
    assert not bias[128:256].any()
    assert bias[:128].all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda part, x: {**x, "more": x["blocks.output.f.w"]}, "more is not of GLIDE's noised"),
        (lambda part, x: {k: v for k, v in x.items() if k != "blocks.input.w_pos"},
         "no tensor image.blocks.input.w_pos"),
        (lambda part, x: {k: v for k, v in x.items() if not k.endswith("f_2.b")},
         "f_mlp.f_2.b is missing"),
    ],
)  # fmt: skip
def test_what_is_no_such_clip_is_one_line(change, said, tmp_path):
    write(tmp_path, change)
    with pytest.raises(ValueError, match=said) as caught:
        encoder.load(tmp_path)
    assert "\n" not in str(caught.value)
