"""UNet2DModel of diffusers: the same answer, older names, and refusals in a line."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from diffjax.diffusion import table
from diffjax.encoders.ancestors import diffusers
from tests.encoders.ancestors import made
from tools.inputs.ancestors_inputs import given

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def renamed(name):
    for new, old in OLD.items():
        name = name.replace(f".{new}.", f".{old}.")
    return name


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return made.folder(tmp_path_factory.mktemp("ddpm"))


def test_the_network_predicts_what_that_of_diffusers_does(saved):
    one, inputs = diffusers.load(saved), given()
    model = one.model.clone(steps=table.steps_of(made.LOGSNRS))
    levels = jnp.asarray(made.LOGSNRS[inputs["step"]], jnp.float32)
    found = jax.jit(model.apply)({"params": one.params}, jnp.asarray(inputs["x"]), levels)
    wanted = made.answers()["diffusers"]
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max(), rtol=0)


def test_parts_side_by_side_in_a_pickle_with_older_names_are_the_same(saved, tmp_path):
    """As google/ddpm-cifar10-32 is."""
    for name in ("unet/config.json", "scheduler/scheduler_config.json", "model_index.json"):
        shutil.copy(saved / name, tmp_path / name.rpartition("/")[2])
    stored = {renamed(name): x for name, x in load_file(saved / WEIGHTS).items()}
    made.write_pt(tmp_path / diffusers.PICKLE, stored)
    one, again = diffusers.load(saved), diffusers.load(tmp_path)
    assert diffusers.is_one(tmp_path)
    assert jax.tree.all(jax.tree.map(np.array_equal, one.params, again.params))
    assert (one.scheduler, one.clips, one.side) == (again.scheduler, again.clips, again.side)
    assert (one.scheduler.sampler, one.scheduler.noise, one.clips) == ("ddpm", 1.0, True)


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        (dict(_class_name="UNet2DConditionModel"), "_class_name is 'UNet2DConditionModel', want"),
        (dict(block_out_channels=[32, 48]), "want multiples of the first"),
        (dict(block_out_channels=[2**20] * 2), "not this U-Net|no network"),
        (dict(down_block_types=["SkipDownBlock2D"] * 2), "want AttnDownBlock2D and DownBlock2D"),
        (dict(up_block_types=["UpBlock2D"] * 2), "do not mirror down_block_types"),
        (dict(layers_per_block=10**6), "fewer than such a U-Net has blocks"),
        (dict(flip_sin_to_cos=True, freq_shift=1), "flip_sin_to_cos, freq_shift are"),
        (dict(sample_size=9), "sample_size 9: want a multiple of 2"),
        (dict(out_channels=6), "is .* want .* not this U-Net"),
        (dict(act_fn="gelu"), "act_fn is 'gelu', want 'silu'"),
    ],
)
def test_another_network_is_one_line(tmp_path, said, wrong):
    made.folder(tmp_path, **said)
    with pytest.raises(ValueError, match=wrong) as caught:
        diffusers.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_scheduler_that_wants_a_learned_variance_of_a_network_without_is_one_line(tmp_path):
    made.folder(tmp_path)
    file = tmp_path / "scheduler/scheduler_config.json"
    said = json.loads(file.read_text())
    for variance, wrong in (
        ("learned_range", "predicts 3 channels of 3, and its scheduler says"),
        ("learned", "variance_type is 'learned', want one of fixed_small"),
    ):
        file.write_text(json.dumps({**said, "variance_type": variance}))
        with pytest.raises(ValueError, match=wrong):
            diffusers.load(tmp_path)
