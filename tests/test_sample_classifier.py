"""A tiny classifier, from its config to what it guides: it trains, resumes, guides, is refused."""

import random
import re
import shutil

import jax
import numpy as np
import pytest

from diffjax import main, sample
from diffjax.build import check, tasks
from diffjax.build.guides import classifiers, guiding
from diffjax.build.options import config
from diffjax.build.stages import loading
from diffjax.core.errors import ConfigError
from diffjax.images import png
from tests import runs

TINY, MAKES = "configs/adm_classifier.py:tiny", "configs/digits.py:tiny"
# One level: its programs compile in half the time.
SMALL = ("model.mults=(1,)", "model.attention_levels=()", "mesh.data=8", "train.log_every=1")


def train(workdir, *flags, of=TINY):
    options = [f"--config.{flag}" for flag in (*SMALL, *flags)]
    return main.main(["--config", of, "--workdir", str(workdir), *options])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of four steps, evaluated at the end."""
    workdir = tmp_path_factory.mktemp("classifier")
    assert train(workdir, "train.evaluate_every=4") == 0
    return workdir


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("digits")
    assert train(workdir, of=MAKES) == 0
    return workdir


@pytest.fixture
def command(digits, tmp_path, monkeypatch, capsys):
    """command(*flags) -> (code, stdout, stderr)."""
    monkeypatch.setattr("diffjax.devices.mesh.keep_compilations", lambda: None)

    def run(*flags, out="out"):
        given = ["--workdir", str(digits), "--out", str(tmp_path / out), "--steps", "2"]
        code = sample.main([*given, *map(str, flags)])
        return code, *capsys.readouterr()

    return run


@pytest.mark.slow
def test_a_run_that_was_cut_goes_on_with_the_same_bits(tmp_path, capsys):
    """At two steps that chance chose; each step has a checkpoint."""

    def digest(workdir):
        assert train(workdir, "train.num_steps=6", "train.save_every=1", "train.keep=9") == 0
        (found,) = re.findall(r"^digest of step 6: (\w{64})$", capsys.readouterr().out, re.M)
        return found

    whole = digest(tmp_path / "whole")
    for cut in random.Random(0).sample(range(1, 6), 2):
        shutil.copytree(tmp_path / "whole", tmp_path / f"{cut}")
        for step in range(cut + 1, 7):
            shutil.rmtree(tmp_path / f"{cut}/checkpoints/{step}")
        assert digest(tmp_path / f"{cut}") == whole


@pytest.mark.slow
def test_a_run_logs_right_answers_by_noise_level_and_their_calibration(whole):
    (held_out,) = [line for line in runs.lines(whole) if "evaluate/loss" in line]
    assert {"evaluate/right", "evaluate/right_logsnr_0_4"} <= held_out.keys()
    assert 0 <= held_out["evaluate/calibration_error_logsnr_-4_0"] <= 1
    assert (whole / "samples" / "0000004.png").exists()


@pytest.mark.slow
def test_a_classifier_guides_a_picture_which_says_so_and_is_made_again(whole, command, tmp_path):
    asked = ["--class", "3", "--guidance", "1"]
    assert command(*asked, out="plain")[0] == 0
    by = ["--guide-by", whole, "--classifier-guidance", "50"]
    assert command(*asked, *by, out="guided")[0] == 0
    plain, guided = (next((tmp_path / out).glob("0000*.png")) for out in ("plain", "guided"))
    assert np.any(png.read(plain) != png.read(guided))
    (stage,) = png.read_metadata(guided)["stages"]
    assert (stage["classifier"]["name"], stage["classifier"]["step"]) == ("classifier", 4)
    assert stage["settings"]["classifier_guidance"] == 50
    assert "classifier" not in png.read_metadata(plain)["stages"][0]
    code, out, _ = command("--like", guided, "--guide-by", whole, out="again")
    assert (code, "in every pixel" in out) == (0, True)
    code, _, err = command("--like", guided, out="again")
    assert (code, "name it with --guide-by" in err, err.count("\n")) == (2, True, 1)


@pytest.mark.slow
def test_guidance_by_a_classifier_that_cannot_be_is_refused_in_one_line(whole, command):
    for flags, words in (
        (["--guide-by", whole], "is off, so the classifier of digits has no effect"),
        (["--classifier-guidance", "1"], "needs a classifier of digits's pictures"),
        (["--classifier-guidance", "-1"], "a number from 0 to 1000"),
        (["--guide-by", f"{whole}@9", "--classifier-guidance", "1"], "has no such step"),
        (["--class", "10", "--guide-by", whole, "--classifier-guidance", "1"], "0 to 9"),
    ):
        code, _, err = command("--class", "3", *flags)
        assert (code, words in err, err.count("\n")) == (2, True, 1), err


def task_of(**changes):
    options = config.load(TINY).copy_and_resolve_references().unlock()
    for key, value in changes.items():
        section, _, name = key.replace("__", ".").partition(".")
        options[section][name] = value
    check.check(options, devices=1)
    return tasks.classifying_of(options)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data__size_px": 16}, "noised pictures of 16 px; here are stages of 8 px"),
        ({"classes__num": 7, "classes__names": ()}, "knows 7 classes, and the stages 10"),
    ],
)
def test_a_classifier_of_another_size_or_class_count_is_refused(changes, words, monkeypatch):
    options = config.load(MAKES)
    task = tasks.task_of(options, 0)
    stage = loading.TrainedStage(task, {}, task.settings)
    origin = loading.Origin("digits", 8, 1, "live", "0" * 64)
    cascade = loading.Cascade((stage,), (origin,), None)
    monkeypatch.setattr(classifiers, "task_of", lambda place: task_of(**changes))
    with pytest.raises(ConfigError, match=words):
        classifiers.guided(cascade, guiding.parse("runs/c"))


def test_a_model_that_is_told_no_class_takes_those_of_its_classifier(monkeypatch):
    options = config.load("configs/digits.py:tiny_unconditional")
    task = tasks.task_of(options, 0)
    stage = loading.TrainedStage(task, {}, task.settings)
    origin = loading.Origin("digits", 8, 1, "live", "0" * 64)
    cascade = loading.Cascade((stage,), (origin,), None)
    assert cascade.classes is None
    monkeypatch.setattr(classifiers, "task_of", lambda place: task_of())
    monkeypatch.setattr(classifiers, "loaded", lambda *_: ({}, origin))
    guided = classifiers.guided(cascade, guiding.parse("runs/c"))
    assert (guided.classes.num, guided.classes.names[7]) == (10, "seven")
    off = classifiers.needed(guided, asked=False)  # its scale is 0
    assert (off.stages[0].task.classifier, off.origins[0].classifier) == (None, None)


@pytest.mark.parametrize(
    ("preset", "count"),
    [
        ("128", 42_568_040),
        pytest.param("64", 65_438_568, marks=pytest.mark.slow),
        pytest.param("256", 54_096_360, marks=pytest.mark.slow),
        pytest.param("512", 54_448_360, marks=pytest.mark.slow),
    ],
)
def test_the_networks_have_the_papers_numbers_of_parameters(preset, count):
    options = config.load(f"configs/adm_classifier.py:{preset}").copy_and_resolve_references()
    with options.unlocked():
        options.data.name = "fake/9"
        options.data.batch_size = jax.device_count()
    check.check(options)
    task = tasks.trained_task_of(options, 0)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model__kind": "unet"}, "allowed: classifier"),
        ({"model__attention_levels": (2,)}, "levels are 0 to 1"),
        ({"data__size_px": 7}, "must be a multiple of 2"),
        ({"data__crop_px": 4}, "must be 0"),
        ({"classifying__min_crop": 0.0}, "must be between 0.1 and 1"),
        ({"model__steps": 1000}, "a network that is told steps needs"),
        ({"classes__names": ("a", "b")}, "none, or 10 different ones"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_with_its_key(changes, words):
    with pytest.raises(ConfigError, match=words):
        task_of(**changes)


@pytest.mark.slow
def test_a_classifier_is_loaded_at_its_step_and_average(whole):
    guide = guiding.parse(f"{whole}@2@live")[0]
    assert classifiers.split([guide]) == ([guide], [])
    params, origin = classifiers.loaded(guide, classifiers.task_of(whole), "size")
    assert (origin.step, origin.average) == (2, "live")
    assert params["pool"]["out"]["bias"].shape == (10,)
