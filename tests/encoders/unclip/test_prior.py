"""The prior in Karlo's layout: the answer of diffusers' network, and refusals in a line."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffjax.build.others import karlo
from diffjax.diffusion.sampling import spacing
from diffjax.encoders.unclip import prior
from tools.inputs import prior_inputs

GOLDEN = Path(__file__).parents[2] / "golden" / "prior"


def folder(path, said=None, change=lambda tensors: tensors):
    """A folder of Karlo's layout, as far as its prior goes."""
    (path / "prior").mkdir(parents=True)
    config = {"_class_name": "PriorTransformer", **prior_inputs.SMALL, **(said or {})}
    (path / "prior" / "config.json").write_text(json.dumps(config))
    made = prior_inputs.tensors(json.loads((GOLDEN / "shapes.json").read_text()))
    save_file(change(made), path / "prior" / prior.WEIGHTS)
    (path / "prior_scheduler").mkdir()
    (path / prior.SCHEDULER_FILE).write_text(json.dumps(prior.NOISE))
    return path


def test_it_says_what_the_network_of_diffusers_says(tmp_path):
    task, params = karlo.prior_of(folder(tmp_path))
    given, answers = prior_inputs.given(), load_file(GOLDEN / "answers.safetensors")
    levels = jnp.asarray(spacing.on_grid(task.schedule)[given.pop("step")], jnp.float32)
    x_t = jnp.asarray(given.pop("x_t"))
    run = jax.jit(lambda params, **told: task.model.apply({"params": params}, x_t, levels, **told))
    said = run(params, **{name: jnp.asarray(x) for name, x in given.items()})
    np.testing.assert_allclose(said, answers["z_0"], atol=2e-5)
    np.testing.assert_allclose(task.pictured(said), answers["vector"], atol=5e-5)


def test_its_noise_is_the_cosine_table_whose_steps_the_network_is_told(tmp_path):
    task, _ = karlo.prior_of(folder(tmp_path))
    levels = np.asarray(spacing.on_grid(task.schedule))
    ends = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    kept = np.cumprod(1 - np.minimum(1 - ends[1:] / ends[:-1], 0.999))
    np.testing.assert_allclose(1 / (1 + np.exp(-levels)), kept, rtol=1e-4, atol=1e-7)
    told = task.model.steps(jnp.asarray(levels, jnp.float32))
    np.testing.assert_allclose(told, np.arange(1000), atol=1e-2)
    assert (task.predict, task.shape, task.normalised) == ("x_0", (24,), False)


def test_a_whole_folder_is_known_and_so_is_that_of_the_network(tmp_path):
    whole = folder(tmp_path)
    assert prior.is_one(whole)
    assert prior.is_one(whole / "prior")
    assert not prior.is_one(tmp_path / "nowhere")
    both = [prior.load(place).params for place in (whole, whole / "prior")]
    assert jax.tree.all(jax.tree.map(np.array_equal, *both))


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        (dict(_class_name="UNet2DModel"), "_class_name is 'UNet2DModel', want 'PriorTransformer'"),
        (dict(added_emb_type=None), "added_emb_type is None, want 'prd'"),
        (dict(num_layers=10**6), "fewer than such a prior has blocks"),
        (dict(num_layers=0), "num_layers is 0, want a whole number"),
        (dict(num_layers=1), "transformer_blocks.1.* is not of this prior"),
        (dict(embedding_dim=25), "is .* want .*: not this prior"),
    ],
)
def test_another_network_is_one_line(tmp_path, said, wrong):
    with pytest.raises(ValueError, match=wrong) as caught:
        prior.load(folder(tmp_path, said))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda t: {k: v for k, v in t.items() if k != "clip_std"}, "clip_std is"),
        (lambda t: {**t, "proj_in.bias": t["proj_in.bias"] * np.nan}, "holds NaN"),
        (lambda t: {**t, "prd_embedding": t["prd_embedding"][0]}, "want 1 in front"),
    ],
)
def test_damaged_weights_are_one_line(tmp_path, change, wrong):
    with pytest.raises(ValueError, match=wrong):
        prior.load(folder(tmp_path, change=change))


def test_other_noise_is_one_line(tmp_path):
    folder(tmp_path)
    (tmp_path / prior.SCHEDULER_FILE).write_text(json.dumps({"prediction_type": "epsilon"}))
    with pytest.raises(ValueError, match="prediction_type is 'epsilon', want 'sample'"):
        prior.load(tmp_path)
