"""LoRA of a Stable Diffusion of others: its config, its task, and files in diffusers' names."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

from diffjax import lora as command
from diffjax import main, sample
from diffjax.build import check, tasks
from diffjax.build.inputs import texts
from diffjax.build.kinds import lora
from diffjax.build.options import config
from diffjax.build.others import stable_diffusion
from diffjax.build.stages import loras
from diffjax.build.stages.loras import Given
from diffjax.core import trees
from diffjax.core.errors import ConfigError
from diffjax.encoders import lora_files
from diffjax.images import png
from diffjax.models import lora as matrices
from tests.encoders.stable_diffusion import made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made.folder("sd1", tmp_path_factory.mktemp("sd1"))


@pytest.fixture(scope="module")
def cascade(folder):
    return stable_diffusion.load(folder)


@pytest.fixture(scope="module")
def adapted(folder):
    """(the config of a run, its task)."""
    options = config.load(f"configs/lora.py:dreambooth:{folder}")
    check.check(options)
    width = texts.text_width_of(options)
    return options, lora.adapted(options, tasks.trained_task_of(options, width))


def plain(model):
    """Without what says how a network computes, and the function that turns levels into steps."""
    return model.clone(
        steps=None, dtype=jnp.float32, remat="none", attention_implementation=None, out_channels=0,
    )  # fmt: skip


@pytest.mark.slow
def test_the_config_says_the_networks_and_the_noise_of_the_checkpoint(cascade, adapted):
    ours, theirs = adapted[1].whole, cascade.stages[0].task
    assert plain(ours.model) == plain(theirs.model)
    for name in ("name", "shape", "conditions", "predict", "weighting", "settings", "of"):
        assert getattr(ours, name) == getattr(theirs, name), name
    fields = [field.name for field in dataclasses.fields(theirs.space)]
    for name in set(fields) - {"shift", "cached"}:
        assert getattr(ours.space, name) == getattr(theirs.space, name), name
    u = jnp.linspace(0.0, 1.0, 50)
    logsnr = theirs.schedule(u)
    np.testing.assert_allclose(ours.schedule(u), logsnr, atol=1e-5)
    np.testing.assert_allclose(ours.model.steps(logsnr), theirs.model.steps(logsnr), atol=1e-3)
    frozen = zip(*(trees.named_leaves(x.frozen).items() for x in (ours, theirs)), strict=True)
    for (name, one), (other_name, other) in frozen:
        assert name == other_name
        np.testing.assert_array_equal(one, other, err_msg=name)


@pytest.mark.slow
def test_the_attention_of_the_checkpoint_is_changed(cascade, adapted):
    _, task = adapted
    loaded = cascade.stages[0].params
    jax.tree.map(np.testing.assert_array_equal, task.frozen["base"], loaded)
    blocks = {name.rpartition("/block_0/")[0] for name in task.targets}
    parts = ("cross/out", "cross/q", "cross/text_kv", "self/out", "self/qkv")
    assert set(task.targets) == {f"{one}/block_0/{part}/kernel" for one in blocks for part in parts}
    assert "middle_0/attention" in blocks


@pytest.mark.parametrize("layout", [pytest.param("diffusers", marks=pytest.mark.slow), "kohya"])
def test_a_file_has_the_names_of_diffusers_and_is_merged_into_the_checkpoint(
    folder, cascade, adapted, tmp_path, layout
):
    _, task = adapted
    random = np.random.default_rng(0)
    shapes = trees.named_leaves(jax.eval_shape(task.init, jax.random.key(0)))
    flat = {name: 0.1 * random.standard_normal(x.shape, np.float32) for name, x in shapes.items()}
    base = trees.named_leaves(task.frozen["base"])
    layers = {}
    for name in task.targets:
        a, b = flat[f"{name}/{matrices.A}"], flat[f"{name}/{matrices.B}"]
        sources = loras.sources_of(task.of)
        layers |= lora_files.layers_of(name, a, b, base[name].shape, task.alpha, sources)
    with safe_open(folder / made.UNET, "np") as file:
        assert {f"{layer}.weight" for layer in layers} <= set(file.keys())
    lora_files.write(tmp_path / "x.safetensors", layers, layout, {})
    whole = loras.merged(cascade, [Given(tmp_path / "x.safetensors", None)]).stages[0]
    found = trees.named_leaves(whole.params)
    for name, kernel in base.items():
        wanted = np.asarray(kernel, np.float64)
        if name in task.targets:
            a, b = (flat[f"{name}/{part}"].astype(np.float64) for part in (matrices.A, matrices.B))
            wanted = wanted + task.alpha / task.rank * (a @ b)
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-6, err_msg=name)


def test_noise_that_no_config_can_say_is_refused(folder, tmp_path):
    file = "scheduler/scheduler_config.json"
    other = made.changed(folder, tmp_path / "a", file, beta_end=0.02)
    with pytest.raises(
        ConfigError, match=r"lora.base = .* has quadratic betas from 0.00085 to 0.02"
    ) as caught:
        config.load(f"configs/lora.py:dreambooth:{other}")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_run_trains_exports_and_draws(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "cache"))
    flags = ("data.name=fake/8", "train.num_steps=2", "train.sample_every=0", "data.batch_size=8",
             "model.dtype=float32", "lora.rank=2", "optim.learning_rate=0.1")  # fmt: skip
    where = ["--config", f"configs/lora.py:dreambooth:{folder}", "--workdir", f"{tmp_path / 'run'}"]
    assert main.main([*where, *(f"--config.{flag}" for flag in flags)]) == 0
    file = tmp_path / "x.safetensors"
    assert command.main(["export", str(tmp_path / "run"), "--out", str(file)]) == 0
    places = (
        ("--workdir", tmp_path / "run"),
        ("--checkpoint", folder, "--lora", file),
        ("--checkpoint", folder),
    )
    pictures = []
    for i, place in enumerate(places):
        out = tmp_path / f"out_{i}"
        asked = ["--prompt", "a red apple", "--steps", "2", "--out", str(out), *map(str, place)]
        assert sample.main(asked) == 0
        pictures.append(png.read(out / "0000_seed0_16px.png").astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    assert np.abs(pictures[0] - pictures[2]).max() > 1
