"""The commands, driven as a user would; the tiny presets on made-up pictures."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffjax import edit, main, sample
from diffjax.checkpoint.__main__ import main as checkpoint_command
from tests.tiny_t5 import save_tiny

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("t5"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


def run(config, workdir, encoder, *more):
    stages = ("base64.", "sr256.") if "cascade" in config else ("",)
    flags = [f"--config.{stage}text.encoder={encoder}" for stage in stages]
    flags += [f"--config.{stage}text.max_tokens=32" for stage in stages]
    # One level in place of two, to compile in less time.
    base = "base64." if "cascade" in config else ""
    flags += [f"--config.{stage}model.mults=(1,)" for stage in stages]
    flags += [f"--config.{base}model.attention_levels=(0,)"]
    if "cascade" in config:
        flags += ["--config.sr256.model.num_blocks=(1,)"]
    return main.main(["--config", config, "--workdir", str(workdir), *flags, *more])


@pytest.fixture(scope="session")
def cascade(tmp_path_factory, encoder):
    workdir = tmp_path_factory.mktemp("cascade")
    os.environ["DIFFJAX_CACHE_DIR"] = str(tmp_path_factory.getbasetemp() / "cache")
    assert run("configs/cascade.py:tiny", workdir, encoder) == 0
    return workdir


def test_a_run_leaves_its_config_metrics_events_samples_and_checkpoints(cascade):
    for name, width in (("base64", 1), ("sr256", 3)):
        folder = cascade / name
        assert json.loads((folder / "config.json").read_text())["stage"] == name
        lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [2, 4]
        assert {"loss", "grad_norm", "learning_rate", "images_per_second"} <= lines[-1].keys()
        assert lines[-1]["nonfinite"] == 0
        assert list((folder / "tensorboard").iterdir())
        assert sorted(p.name for p in (folder / "checkpoints").glob("[0-9]*")) == ["2", "4"]
        sheet = Image.open(folder / "samples" / "0000004.png")
        assert sheet.width > width * 32


def test_sampling_writes_every_stage_and_a_grid(cascade, tmp_path, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a blue square\n\na red / circle\n")
    flags = ["--workdir", str(cascade), "--prompts", str(prompts), "--prompt", "x" * 300]
    flags += ["--seeds", "0-1", "--steps", "2", "--guidance", "3,1", "--out", str(tmp_path / "out")]
    assert sample.main(flags) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(names) == 3 * 2 * 2 + 1
    assert names[:2] == ["0000_seed0_16px.png", "0000_seed0_64px.png"]
    assert capsys.readouterr().out.strip().endswith("grid.png")
    # the same prompt and seed in another batch: the same bytes
    again = ["--workdir", str(cascade), "--prompt", "a blue square", "--seeds", "1", "--steps", "2"]
    assert sample.main([*again, "--guidance", "3,1", "--out", str(tmp_path / "again")]) == 0
    first = tmp_path / "out" / "0003_seed1_64px.png"
    assert first.read_bytes() == (tmp_path / "again" / "0000_seed1_64px.png").read_bytes()
    # and from what the picture says of itself
    like = ["--workdir", str(cascade), "--like", str(first), "--out", str(tmp_path / "like")]
    assert sample.main(like) == 0
    assert f"the same as {first}, in every pixel" in capsys.readouterr().out
    assert first.read_bytes() == (tmp_path / "like" / "0000_seed1_64px.png").read_bytes()


def test_a_picture_is_made_again_of_its_own_step_and_told_from_that_of_another(
    cascade, tmp_path, capsys
):
    """The workdir holds steps 2 and 4; without step 2 the picture's stage is not there."""
    base = tmp_path / "base64"
    shutil.copytree(cascade / "base64", base)
    older, newest = (base / "checkpoints" / step for step in ("2", "4"))
    newest.rename(tmp_path / "4")
    where = ["--workdir", str(base)]
    asked = ["--prompt", "x", "--steps", "2", "--guidance", "3", "--out", str(tmp_path / "out")]
    assert sample.main([*where, *asked]) == 0
    like = tmp_path / "out" / "0000_seed0_16px.png"
    (tmp_path / "4").rename(newest)
    capsys.readouterr()
    assert sample.main([*where, "--like", str(like), "--out", str(tmp_path / "a")]) == 0
    out = capsys.readouterr().out
    assert "base64: step 2" in out
    assert "in every pixel" in out
    shutil.rmtree(older)
    assert sample.main([*where, "--like", str(like), "--out", str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err.strip()
    assert "made the picture, here is another checkpoint: base64 step 4" in error
    assert "\n" not in error
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
def test_a_folder_of_exports_makes_the_pictures_of_the_workdirs(cascade, tmp_path, capsys):
    """The recipe too is the same, so --like finds a picture's stage in either."""
    for name in ("base64", "sr256"):
        file = tmp_path / "exports" / f"{name}.safetensors"
        assert checkpoint_command(["export", str(cascade / name), "--out", str(file)]) == 0
    asked = ["--prompt", "x", "--steps", "2", "--guidance", "3,1"]
    for where, out in ((cascade, "a"), (tmp_path / "exports", "b")):
        flags = ["--workdir", str(where), *asked, "--out", str(tmp_path / out)]
        assert sample.main(flags) == 0
    assert "step 4 of" in capsys.readouterr().out
    for size in (16, 64):
        name = f"0000_seed0_{size}px.png"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.slow
def test_pictures_are_edited_with_what_was_trained(cascade, tmp_path, capsys):
    """In any company the same bytes, and where the mask is black those of the picture."""
    colours = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    Image.fromarray(np.tri(64, dtype=np.uint8) * 255).save(tmp_path / "m.png")
    common = ["--workdir", str(cascade), "--picture", str(tmp_path / "a.png"), "--steps", "2"]
    paint = ["inpaint", "--mask", str(tmp_path / "m.png"), "--prompt", "a blue square"]
    for seeds in ("4,7", "7"):
        words = [*paint, "--seeds", seeds, "--out", str(tmp_path / seeds)]
        assert edit.main([*words, *common]) == 0
    first, again = (
        np.asarray(Image.open(tmp_path / out / "inpaint_seed7_64px.png")) for out in ("4,7", "7")
    )
    np.testing.assert_array_equal(first, again)
    known = np.tri(64) == 0
    np.testing.assert_array_equal(first[known], colours[known])
    assert (first[~known] != colours[~known]).mean() > 0.5
    for words in (["vary"], ["img2img", "--prompt", "a red circle"], ["upscale"]):
        assert edit.main([*words, *common, "--out", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "upscale_seed0_256x256px.png") as large:
        assert large.size == (256, 256)
    # sides of 64 px from tiles of 16 that overlap by 4
    assert "tiles: [25]" in capsys.readouterr().out


def test_a_run_may_not_change_its_network_halfway(cascade, encoder, capsys):
    code = run("configs/base64.py:tiny", cascade / "base64", encoder, "--config.model.width=32")
    assert code == 2
    assert "model.width = 32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--config.model.widht=3"], ["model.widht", "did you mean model.width?"]),
        (["--config.train.num_steps=many"], ["train.num_steps", "'many'", "int"]),
        (["--config.data.size_px=18"], ["data.size_px = 18", "multiple of 4"]),
        (["--config.mesh.fsdp=3"], ["mesh", "devices, 8"]),
    ],
)
def test_bad_input_ends_with_one_line_and_code_2(flags, words, tmp_path, encoder, capsys):
    assert run("configs/base64.py:tiny", tmp_path / "run", encoder, *flags) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert all(word in error for word in words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--workdir", "{run}"], "--prompt"),
        (["--workdir", "{run}", "--prompts", "absent.txt"], "absent.txt"),
        (["--workdir", "{run}", "--prompt", "x", "--seeds", "7-3"], "--seeds = '7-3'"),
        (["--workdir", "{run}", "--prompt", "x", "--steps", "0"], "--steps = '0'"),
        (["--workdir", "{run}", "--prompt", "x", "--guidance", "1,2,3"], "or 2 with commas"),
        (["--workdir", "{run}/samples", "--prompt", "x"], "holds no trained stage"),
        (["--stages", "{run}/sr256", "--prompt", "x"], "starts from 16 px"),
    ],
)
def test_bad_sampling_input_ends_with_one_line_and_code_2(flags, words, cascade, tmp_path, capsys):
    flags = [flag.format(run=cascade) for flag in flags]
    assert sample.main([*flags, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert "\n" not in error
    assert not (tmp_path / "out").exists()


def python(code):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_import_is_quick_and_brings_no_other_framework():
    code = "import time; t = time.time(); import diffjax; print(time.time() - t)"
    assert float(python(code)) < 2
    code = (
        "import sys, diffjax.main, diffjax.sample, diffjax.embed, diffjax.training.loop\n"
        "print([m for m in ('tensorflow', 'torch', 'transformers') if m in sys.modules])"
    )
    assert python(code) == "[]"
