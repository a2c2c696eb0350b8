"""Tiny runs of DDPM, improved DDPM and ADM: meshes, resumes, and pictures from one checkpoint."""

import dataclasses
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import main, sample
from diffjax.build import tasks
from diffjax.build.options import config
from diffjax.devices import mesh
from diffjax.images import png
from tests.training.steps import create, placed, step_of

pytestmark = pytest.mark.slow
SMALL = ["model.mults=(1,)", "model.attention_levels=(0,)", "train.num_steps=4",
         "train.save_every=1", "train.keep=9", "train.sample_every=0"]  # fmt: skip


def run(folder, spec, capsys):
    """Trains, or goes on; the digest of the last state."""
    flags = [f"--config.{one}" for one in SMALL]
    assert main.main(["--config", spec, "--workdir", str(folder), *flags]) == 0
    (found,) = re.findall(r"^digest of step 4: ([0-9a-f]{64})$", capsys.readouterr().out, re.M)
    return found


@pytest.mark.parametrize("spec", ["ddpm:tiny", "iddpm:tiny_vlb", "adm:tiny"])
def test_a_run_that_was_cut_goes_on_with_the_same_bits(spec, tmp_path, capsys):
    """Each has dropout; the times of improved DDPM's bound follow from the losses so far."""
    whole = run(tmp_path / "whole", spec, capsys)
    for cut in (1, 3):
        shutil.copytree(tmp_path / "whole", tmp_path / f"{cut}")
        for step in range(cut + 1, 5):
            shutil.rmtree(tmp_path / f"{cut}/checkpoints/{step}")
        assert run(tmp_path / f"{cut}", spec, capsys) == whole


def test_one_checkpoint_is_sampled_by_all_steps_by_some_and_by_ddim(tmp_path, capsys):
    run(tmp_path / "run", "adm:tiny", capsys)
    ways = {
        "all": ["--steps", "50", "--spacing", "linspace"],
        "some": ["--steps", "10", "--spacing", "linspace"],
        "ddim": ["--steps", "5", "--spacing", "leading", "--sampler", "ddim"],
    }
    drawn = {}
    for name, flags in ways.items():
        flags = ["--workdir", str(tmp_path / "run"), "--class", "seven", *flags]
        assert sample.main([*flags, "--out", str(tmp_path / name)]) == 0
        drawn[name] = png.read(next((tmp_path / name).glob("*_8px.png")))
        assert drawn[name].std() > 0
    assert not np.array_equal(drawn["all"], drawn["some"])
    asked = ["--workdir", str(tmp_path / "run"), "--class", "7", "--steps", "51"]
    assert sample.main([*asked, "--spacing", "linspace", "--out", str(tmp_path / "x")]) == 2
    assert "at most 50 with spacing linspace" in capsys.readouterr().err


def test_eight_devices_and_micro_batches_train_as_one():
    """Dropout's keys are columns, so each row keeps its own."""
    options = config.load("adm:tiny").copy_and_resolve_references().unlock()
    options.model.update(mults=(1,), attention_levels=(0,))
    task = tasks.task_of(options, 0)
    random = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(random.integers(0, 256, (16, 8, 8, 3), np.uint8)),
        "label": jnp.asarray(random.integers(0, 10, 16), jnp.int32),
    }
    task = dataclasses.replace(task, model=task.model.clone(dropout=0.8))
    without = dataclasses.replace(task, model=task.model.clone(dropout=0.0))
    off_zero = lambda key: moved(create(task)(key))  # noqa: E731
    state = jax.jit(off_zero)(jax.random.key(1))
    alone, plain = (jax.jit(step_of(one))(state, batch)[1] for one in (task, without))
    assert abs(alone["loss"] / plain["loss"] - 1) > 1e-3  # dropout counts
    step, _, place, rows = placed(task, mesh.make_mesh(4, 2, 1), parts=2)
    state = jax.jit(off_zero, out_shardings=place)(jax.random.key(1))
    spread = step(state, jax.device_put(batch, rows))[1]
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(spread[name], alone[name], rtol=3e-5)


def moved(state):
    """The state with no layer at zero."""
    return state.replace(params=jax.tree.map(lambda p: p + 0.05, state.params))
