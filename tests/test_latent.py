"""A tiny stage of latents, from its config to its pictures, edits, report and plan."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from diffjax import edit, evaluate, lora, main, sample
from diffjax.build.stages import loading
from diffjax.checkpoint import __main__ as checkpoint
from diffjax.core import trees
from diffjax.images import read
from tests import runs
from tests.tiny_t5 import save_tiny

TINY = "configs/latent.py:tiny"
FLAGS = ("train.num_steps=4", "train.save_every=2", "mesh.data=8", "optim.decay=constant")
PROMPT = ("--prompt", "a red circle")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory, encoder):
    """A run of four steps."""
    workdir = tmp_path_factory.mktemp("whole")
    assert runs.run(workdir, encoder, *FLAGS, config=TINY) == 0
    return workdir


def picture_of(out):
    (file,) = out.glob("*_16px.png")
    return read.read(file)


def digest(workdir, capsys):
    capsys.readouterr()
    assert checkpoint.main(["digest", str(workdir)]) == 0
    return capsys.readouterr().out


@pytest.mark.slow
def test_a_run_in_two_parts_ends_as_one_without_a_stop(whole, encoder, tmp_path, capsys):
    """The second part takes scale and shift from the first, and has the latents on the disk."""
    assert runs.run(tmp_path, encoder, *FLAGS, "train.num_steps=2", config=TINY) == 0
    assert runs.run(tmp_path, encoder, *FLAGS, config=TINY) == 0
    assert digest(tmp_path, capsys) == digest(whole, capsys)
    said = json.loads((tmp_path / "config.json").read_text())["latent"]
    assert len(said["scale"]) == len(said["shift"]) == 2
    assert (whole / "samples" / "0000004.png").exists()


@pytest.mark.slow
def test_a_workdir_an_export_and_its_import_draw_the_same_picture(whole, tmp_path):
    """Each has a copy of the autoencoder, whatever became of the one that was trained with."""
    file, again = tmp_path / "latent.safetensors", tmp_path / "again"
    assert checkpoint.main(["export", str(whole), "--out", str(file)]) == 0
    assert checkpoint.main(["import", str(again), str(file)]) == 0
    pictures = []
    for i, place in enumerate((whole, file, again)):
        out = tmp_path / f"{i}"
        assert sample.main(["--workdir", str(place), *PROMPT, "--out", str(out)]) == 0
        pictures.append(picture_of(out))
    assert pictures[0].shape == (16, 16, 3)
    np.testing.assert_array_equal(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[2])


@pytest.mark.slow
def test_every_edit_works_on_latents(whole, tmp_path):
    random = np.random.default_rng(0)
    one, two = tmp_path / "a.png", tmp_path / "b.png"
    for file in (one, two):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(file)
    hole = np.zeros((16, 16), np.uint8)
    hole[4:9, 4:12] = 255
    Image.fromarray(hole).save(tmp_path / "mask.png")
    shared = ["--workdir", str(whole), "--steps", "2"]
    for i, (name, *flags) in enumerate((
        ("inpaint", "--picture", one, "--mask", tmp_path / "mask.png", *PROMPT, "--resample", "1"),
        ("img2img", "--picture", one, *PROMPT),
        ("vary", "--picture", one),
        ("interpolate", "--picture", one, "--picture", two, "--frames", "3"),
        ("interpolate", *PROMPT, "--prompt", "a blue square", "--frames", "3"),
    )):  # fmt: skip
        out = tmp_path / f"out_{i}"
        used = shared[:2] if "--frames" in flags and one in flags else shared
        assert edit.main([name, *used, *map(str, flags), "--out", str(out)]) == 0
    made = picture_of(tmp_path / "out_0")
    np.testing.assert_array_equal(made[hole == 0], read.read(one)[hole == 0])


@pytest.mark.slow
def test_pictures_can_be_encoded_in_each_step(tmp_path, encoder):
    flags = (*FLAGS, "train.num_steps=2", "latent.cached=false", "data.flip=true")
    assert runs.run(tmp_path, encoder, *flags, config=TINY) == 0
    last = [line for line in runs.lines(tmp_path) if "grad_norm" in line][-1]
    assert 0 < last["loss"] < 10


@pytest.mark.slow
def test_a_report_measures_latents_at_each_noise_level(whole, tmp_path):
    out = tmp_path / "report.json"
    assert evaluate.main([str(whole), "--num", "8", "--split", "train", "--out", str(out)]) == 0
    (stage,) = json.loads(out.read_text())["stages"]
    assert stage["numbers"]["loss"] > 0
    assert not any(name.startswith("bits") for name in stage["numbers"])


@pytest.mark.slow
def test_a_dry_run_counts_the_frozen_autoencoder(capsys):
    given = ["--config", TINY, "--dry_run", "--config.latent.autoencoder="]
    assert main.main([*given, "--config.latent.factor=8", "--config.latent.channels=4"]) == 0
    assert "83,653,863 frozen parameters" in capsys.readouterr().out


@pytest.mark.slow
def test_a_lora_of_latents_changes_its_targets_alone_and_draws(whole, tmp_path):
    where = ["--config", f"configs/lora.py:dreambooth:{whole}", "--workdir", f"{tmp_path / 'run'}"]
    flags = ("data.name=fake/8", "train.num_steps=2", "train.sample_every=2", "data.batch_size=8",
             "lora.rank=2", "optim.learning_rate=0.1", "mesh.data=8")  # fmt: skip
    assert main.main([*where, *(f"--config.{flag}" for flag in flags)]) == 0
    was, now = (
        trees.named_leaves(jax.device_get(loading.load([place]).stages[0].params))
        for place in (whole, tmp_path / "run")
    )
    differ = {name for name in was if not np.array_equal(was[name], now[name])}
    assert differ == {name for name in was if "/attention/" in name and name.endswith("kernel")}
    file = tmp_path / "x.safetensors"
    assert lora.main(["export", str(tmp_path / "run"), "--out", str(file)]) == 0
    pictures = []
    for place in (("--workdir", tmp_path / "run"), ("--workdir", whole, "--lora", file)):
        out = tmp_path / f"out_{len(pictures)}"
        asked = [*PROMPT, "--steps", "2", "--out", str(out), *map(str, place)]
        assert sample.main(asked) == 0
        pictures.append(picture_of(out).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
