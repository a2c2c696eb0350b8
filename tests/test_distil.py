"""The command of distillation, from a teacher to a picture in few steps."""

import shutil

import jax
import numpy as np
import pytest

from diffjax import main, sample
from diffjax.build.stages import loading, places
from diffjax.core import trees
from tests import lora_base


def train(teacher, folder, *flags, preset="own"):
    where = ["--config", f"configs/distil.py:{preset}:{teacher}", "--workdir", str(folder)]
    short = ["num_steps=4", "sample_every=0", "save_every=2", "log_every=2"]
    return main.main([*where, *(f"--config.train.{one}" for one in short), *flags])


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """An export that teaches."""
    return lora_base.write(tmp_path_factory.mktemp("distil") / "teacher.safetensors")


@pytest.fixture(scope="module")
def made(teacher, tmp_path_factory):
    """(the teacher, the workdir of a student of two steps)."""
    folder = tmp_path_factory.mktemp("distil")
    flags = ["--config.sample.num_steps=2", "--config.distil.teacher_steps=4"]
    assert train(teacher, folder / "run", *flags) == 0
    return teacher, folder / "run"


@pytest.mark.slow
def test_a_student_has_the_network_and_takes_its_steps_without_flags(made, tmp_path):
    teacher, run = made
    was, now = (
        trees.named_leaves(jax.device_get(loading.load([place]).stages[0].params))
        for place in (teacher, run)
    )
    assert was.keys() == now.keys()
    assert not all(np.array_equal(was[name], now[name]) for name in was)
    settings = loading.load([run]).stages[0].settings
    assert (settings.num_steps, settings.sampler, settings.guidance_weight) == (2, "ddim", 1.0)
    asked = ["--class", "7", "--stages", str(run), "--out", str(tmp_path)]
    assert sample.main(asked) == 0
    assert (tmp_path / "0000_seed0_8px.png").exists()


@pytest.mark.slow
def test_a_student_of_a_student_takes_half_its_steps(made, tmp_path):
    assert train(made[1], tmp_path / "one", preset="halve") == 0
    options = places.options_of(tmp_path / "one")
    assert (options.sample.num_steps, options.distil.teacher_steps) == (1, 2)
    assert options.distil.guidance_weight == 1.0


@pytest.mark.slow
def test_a_student_that_was_stopped_twice_ends_like_one_that_was_not(made, tmp_path, capsys):
    teacher, run = made
    flags = ["--config.sample.num_steps=2", "--config.distil.teacher_steps=4"]
    for steps in (1, 3, 4):
        capsys.readouterr()
        assert train(teacher, tmp_path / "b", *flags, f"--config.train.num_steps={steps}") == 0
    again = capsys.readouterr().out
    assert train(teacher, run, *flags) == 0
    ends = [
        next(line for line in text.splitlines() if line.startswith("digest of step 4"))
        for text in (again, capsys.readouterr().out)
    ]
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_a_run_does_not_go_on_with_another_teacher(made, tmp_path, capsys):
    other = tmp_path / "teacher.safetensors"
    lora_base.write(other, change=lambda tree: jax.tree.map(lambda x: x + 1, tree))
    shutil.copytree(made[1], tmp_path / "run")
    capsys.readouterr()
    flags = ["--config.sample.num_steps=2", "--config.distil.teacher_steps=4"]
    assert train(other, tmp_path / "run", *flags) == 2
    said = capsys.readouterr().err
    assert "is another one than the run began with" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("which", ["distil.py:own", "lora.py:dreambooth"])
def test_a_place_that_a_config_names_and_is_not_there_is_one_line(which, tmp_path, capsys):
    spec = f"configs/{which}:{tmp_path / 'nowhere'}"
    assert main.main(["--config", spec, "--workdir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "--config = " in said
    assert "nowhere': holds no trained stage" in said
    assert said.count("\n") == 1


def test_a_student_of_one_step_has_no_half(tmp_path, capsys):
    options = lora_base.options()
    options.sample.num_steps = 1
    one = lora_base.write(tmp_path / "one.safetensors", options)
    assert train(one, tmp_path / "run", preset="halve") == 2
    said = capsys.readouterr().err
    assert "sample.num_steps" in said
    assert "has no half" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("sample.sampler=heun", "a student takes ddim"),
        ("sample.spacing=karras", "uniform, logsnr, trailing"),
        ("sample.guidance_weight=2.0", "distil.guidance_weight"),
        ("distil.teacher_steps=7", "a multiple of sample.num_steps, 4, and above it"),
        ("distil.teacher_steps=4", "a multiple of sample.num_steps, 4, and above it"),
        ("distil.teacher=nowhere", "nowhere"),
        ("model.width=32", "was trained with 16"),
    ],
)
def test_what_cannot_be_a_student_is_refused_in_one_line(teacher, tmp_path, capsys, flag, says):
    assert train(teacher, tmp_path / "run", f"--config.{flag}") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {flag.partition('=')[0]}") or flag.partition("=")[0] in said
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run/checkpoints").exists()
