"""The class-conditional configuration learns the digits that it is asked for."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import main, sample
from diffjax.build import tasks
from diffjax.build.options import config
from diffjax.build.stages import places
from diffjax.core import rng
from diffjax.data.sources.digits import load
from diffjax.images import pixels, png
from diffjax.tasks.sampling import compiled
from diffjax.tasks.sampling import sample as sample_stage

ROOT = Path(__file__).resolve().parents[2]
# A network that compiles soon.
SMALL = ("model.mults=(1,)", "model.patch=4")


def trained(folder, preset, *flags):
    """The task of a run, the averaged parameters, and its settings."""
    where = ["--config", f"configs/digits.py:{preset}", "--workdir", str(folder), *flags]
    if preset == "tiny":
        assert main.main(where) == 0
    else:  # in a process of its own, on one device: eight virtual ones share two cores
        environ = {**os.environ, "XLA_FLAGS": ""}
        command = [sys.executable, "-m", "diffjax.main", *where]
        subprocess.run(command, cwd=ROOT, env=environ, check=True)
    options = places.options_of(folder)
    task = tasks.task_of(options, 0)
    return task, places.params_of(options, folder, task, None)[0]


def drawn(task, params, labels):
    """Bytes [n 8 8] of samples of these classes."""
    keys = rng.per_example(jnp.arange(len(labels)))
    run = compiled(sample_stage, task.settings)
    made = run(params, {"label": jnp.asarray(labels, jnp.int32)}, keys, task=task)
    return np.asarray(pixels.to_uint8(made))[..., 0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the tiny preset, its task and its parameters; steps 2 and 4 are on the disk."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    return folder, *trained(folder, "tiny", *(f"--config.{one}" for one in SMALL))


@pytest.mark.slow
def test_a_class_conditional_run_trains_previews_and_samples_by_class(run, tmp_path, capsys):
    folder, task, params = run
    assert set(task.columns()) == {"image", "label"}
    assert (folder / "samples/0000004.png").exists()
    asked = ["--workdir", str(folder), "--out", str(tmp_path / "out")]
    assert sample.main([*asked, "--class", "seven", "--class", "3", "--steps", "2"]) == 0
    for i, label in enumerate((7, 3)):
        path = tmp_path / f"out/{i:04d}_seed0_8px.png"
        assert png.read_metadata(path)["label"] == label
        made = of_seed_0(label, task, params, task.settings)
        np.testing.assert_array_equal(png.read(path), np.asarray(pixels.to_uint8(made))[0])
    assert sample.main([*asked, "--class", "sevne"]) == 2
    assert "did you mean seven?" in capsys.readouterr().err


def of_seed_0(label, task, params, settings):
    """The picture [1 8 8 1] of a class with seed 0."""
    keys = rng.per_example(jnp.zeros(1, jnp.int32))
    run_ = compiled(sample_stage, settings)
    return run_(params, {"label": jnp.array([label])}, keys, task=task)


@pytest.mark.slow
def test_an_earlier_step_guides_a_picture_and_is_named_in_it(run, tmp_path, capsys):
    folder, task, params = run
    asked = ["--workdir", str(folder), "--class", "7", "--steps", "2", "--guidance", "3"]
    where = f"{folder}@2@live"
    assert sample.main([*asked, "--guide-by", where, "--out", str(tmp_path / "guided")]) == 0
    path = tmp_path / "guided/0000_seed0_8px.png"
    said = png.read_metadata(path)["stages"][0]
    assert (said["step"], said["guide"]["step"], said["guide"]["average"]) == (4, 2, "live")
    weak, *_ = places.params_of(places.options_of(folder), folder, task, "live", step=2)
    pair = dataclasses.replace(task, guide=task, frozen={"guide": weak})
    settings = dataclasses.replace(task.settings, guidance_weight=3.0)
    made = of_seed_0(7, pair, params, settings)
    np.testing.assert_array_equal(png.read(path), np.asarray(pixels.to_uint8(made))[0])
    plain = of_seed_0(7, task, params, settings)
    assert float(jnp.abs(made - plain).max()) > 1e-4
    like = ["--workdir", str(folder), "--like", str(path), "--out", str(tmp_path / "again")]
    assert sample.main(like) == 0
    assert "in every pixel" in capsys.readouterr().out


@pytest.mark.slow
def test_a_guide_that_cannot_be_is_refused_in_one_line(run, tmp_path, capsys):
    folder, *_ = run
    asked = ["--workdir", str(folder), "--class", "7", "--out", str(tmp_path / "no")]
    wrong = {
        str(folder): "is the very checkpoint of digits: name an earlier step or another average",
        f"{folder}@3": "has no such step; its newest is 4",
        f"{folder}@decay_0.5": "no average is called decay_0.5",
        f"{folder}/nowhere": "holds no trained stage",
        "@2": "want a workdir or an export",
    }
    for place, words in wrong.items():
        assert sample.main([*asked, "--guidance", "3", "--guide-by", place]) == 2
        err = capsys.readouterr().err
        assert words in err
        assert err.count("\n") == 1
    assert sample.main([*asked, "--guidance", "1", "--guide-by", f"{folder}@2@live"]) == 2
    assert "--guide-by = 1: has no effect without guidance" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_digit_is_read_with_its_class_and_a_caption():
    images, labels = load()
    assert images.shape == (1797, 8, 8)
    assert images.max() == 255
    assert np.bincount(labels).min() > 170
    options = config.load("configs/digits.py:tiny")
    from diffjax.build.inputs.reading import source_of

    record = source_of(options)[0]
    assert record["captions"] == ("the digit zero",)
    assert record["label"] == labels[0] == 0


@pytest.mark.slow
def test_a_classifier_of_true_digits_names_95_percent_of_the_samples_right(tmp_path):
    """The classifier is scikit-learn's support vectors: right on 94 % of held-out true digits."""
    from sklearn.svm import SVC

    images, labels = load()
    rows = images.reshape(len(images), -1) / 255.0
    judge = SVC(gamma=1.0 / 16).fit(rows[:1200], labels[:1200])
    assert judge.score(rows[1200:], labels[1200:]) > 0.9
    task, params = trained(tmp_path, "classes")
    wanted = np.arange(500) % 10
    named = judge.predict(drawn(task, params, wanted).reshape(500, -1) / 255.0)
    assert np.mean(named == wanted) >= 0.95
