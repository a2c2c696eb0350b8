"""Tiny runs of GLIDE: meshes, resumes, holes, and pictures of prompts."""

import dataclasses
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import edit, main, sample
from diffjax.build import tasks
from diffjax.build.options import config
from diffjax.core import rng
from diffjax.devices import mesh
from diffjax.images import png
from diffjax.tasks import sampling
from tests import lora_base
from tests.training.steps import create, placed, step_of

pytestmark = pytest.mark.slow
FLAGS = ["train.num_steps=4", "train.save_every=1", "train.keep=9", "train.sample_every=0"]


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """A base and an upsampler with made-up weights, to which texts are loud."""
    folder = tmp_path_factory.mktemp("glide")
    louder = lambda tree: {**tree, "words": jax.tree.map(lambda x: 8 * x, tree["words"])}  # noqa: E731
    for name in ("glide64", "glide256"):
        lora_base.write(folder / f"{name}.safetensors", config.load(f"{name}:tiny"), louder)
    return folder


def run(folder, spec, capsys, *more):
    """Trains, or goes on; the digest of the last state."""
    flags = [f"--config.{one}" for one in (*FLAGS, *more)]
    assert main.main(["--config", spec, "--workdir", str(folder), *flags]) == 0
    (found,) = re.findall(r"^digest of step 4: ([0-9a-f]{64})$", capsys.readouterr().out, re.M)
    return found


def test_a_run_that_was_cut_goes_on_with_the_same_bits_and_then_fills_holes(
    stages, tmp_path, capsys
):
    """It begins with the weights of the base, has dropout, and drops texts and cuts holes."""
    base = f"start.base={stages / 'glide64.safetensors'}"
    whole = run(tmp_path / "whole", "glide_inpaint:tiny", capsys, base)
    for cut in (1, 3):
        shutil.copytree(tmp_path / "whole", tmp_path / f"{cut}")
        for step in range(cut + 1, 5):
            shutil.rmtree(tmp_path / f"{cut}/checkpoints/{step}")
        assert run(tmp_path / f"{cut}", "glide_inpaint:tiny", capsys, "start.base=gone") == whole
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    hole = np.zeros((8, 8, 3), np.uint8)
    hole[2:6, 2:6] = 255
    png.write(tmp_path / "a.png", picture)
    png.write(tmp_path / "hole.png", hole)
    asked = ["inpaint", "--workdir", str(tmp_path / "whole"), "--picture", str(tmp_path / "a.png"),
             "--mask", str(tmp_path / "hole.png"), "--prompt", "a pear",
             "--out", str(tmp_path / "out")]  # fmt: skip
    assert edit.main(asked) == 0
    made = png.read(tmp_path / "out/inpaint_seed0_8px.png")
    inside = hole[..., 0] > 0
    np.testing.assert_array_equal(made[~inside], picture[~inside])
    assert (made[inside] != picture[inside]).any()
    assert png.read_metadata(tmp_path / "out/inpaint_seed0_8px.png")["edit"]["resample"] == [1]


def test_prompts_become_pictures_of_both_stages_and_what_cannot_be_is_one_line(
    stages, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    asked = ["--workdir", str(stages), "--out", "out", "a pear", "", "--negative", "blue",
             "--and", "red:0.5"]  # fmt: skip
    assert sample.main(asked) == 0
    for side in (8, 16):
        drawn = [png.read(path) for path in sorted((tmp_path / "out").glob(f"*_{side}px.png"))]
        assert len(drawn) == 2
        assert (drawn[0] != drawn[1]).any()
    shutil.copy(next((tmp_path / "out").glob("*_8px.png")), "a.png")
    capsys.readouterr()
    base, upper = (str(stages / f"{name}.safetensors") for name in ("glide64", "glide256"))
    for flags, line in (
        (["--workdir", base, "a.png"], "is a picture, where a prompt is meant"),
        (["--stages", upper, "a pear"], "starts from 8 px, the stage before it makes none"),
        (["--workdir", base], "give at least one prompt"),
    ):
        assert sample.main([*flags, "--out", "b"]) == 2
        said = capsys.readouterr().err
        assert line in said
        assert said.count("\n") == 1
    path = ["interpolate", "--workdir", base, "--prompt", "a", "--prompt", "b", "--out", "c"]
    assert edit.main(path) == 2
    assert "embeds its text inside the network" in capsys.readouterr().err


def test_guidance_of_weight_0_is_that_of_the_empty_text_and_of_1_is_none():
    task = tasks.task_of(config.load("glide64:tiny"), 0)
    params = jax.tree.map(jnp.asarray, lora_base.params(config.load("glide64:tiny")))
    columns = {"tokens": jnp.array([[5, 300, -1, -1, -1, -1, -1, -1]])}
    empty = {"tokens": jnp.full((1, 8), -1)}
    keys = rng.per_example(jnp.array([0]))

    def drawn(weight, columns):
        settings = dataclasses.replace(task.settings, guidance_weight=weight)
        return sampling.compiled(sampling.sample, settings)(params, columns, keys, task=task)

    np.testing.assert_allclose(drawn(0.0, columns), drawn(1.0, empty), atol=1e-4)
    away = {**columns, "negative_tokens": columns["tokens"]}
    np.testing.assert_allclose(drawn(3.0, away), drawn(1.0, columns), atol=3e-4)
    assert float(jnp.abs(drawn(3.0, columns) - drawn(1.0, columns)).max()) > 1e-3


def test_eight_devices_and_micro_batches_train_text_and_network_as_one_device_does():
    options = config.load("glide_inpaint:tiny").copy_and_resolve_references().unlock()
    task = tasks.task_of(options, 0)
    random = np.random.default_rng(0)
    tokens = random.integers(-1, 1_538, (16, 8)).astype(np.int32)
    batch = {
        "image": jnp.asarray(random.integers(0, 256, (16, 8, 8, 3), np.uint8)),
        "tokens": jnp.asarray(tokens),
    }
    off_zero = lambda key: moved(create(task)(key))  # noqa: E731
    state = jax.jit(off_zero)(jax.random.key(1))
    after, alone = jax.jit(step_of(task))(state, batch)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), after.params, state.params)
    assert all(jax.tree.leaves(changed["words"]))
    assert changed["conditioning"]["last_token"]["kernel"]
    step, _, place, rows = placed(task, mesh.make_mesh(4, 2, 1), parts=2)
    state = jax.jit(off_zero, out_shardings=place)(jax.random.key(1))
    spread = step(state, jax.device_put(batch, rows))[1]
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(spread[name], alone[name], rtol=3e-5)


def moved(state):
    """The state with no layer at zero."""
    random = iter(jax.random.split(jax.random.key(2), 200))
    return state.replace(params=jax.tree.map(
        lambda p: p + 0.05 * jax.random.normal(next(random), p.shape), state.params
    ))  # fmt: skip
