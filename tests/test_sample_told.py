"""The command for models that are told a class, nothing, or a picture with a hole."""

import dataclasses
from unittest.mock import ANY

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffjax import edit, sample, serving
from diffjax.build.stages import loading
from diffjax.core.errors import ConfigError
from diffjax.generation import folder, jobs
from diffjax.generation.chain import Cascade, TrainedStage
from diffjax.generation.recipe import Origin
from diffjax.images import png
from diffjax.tasks.conditions import Class, Embedding, Masked
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.settings import SampleSettings
from tests import tiny_cascade
from tests.tiny_cascade import Told

NAMES = ("cat", "red dog", "fox, grey", "hen")
HOW = SampleSettings(num_steps=1, threshold="none")


def by_label(x_t, logsnr_t, *, label):
    """A picture of the brightness of its class."""
    return jnp.zeros_like(x_t) + label[:, None, None, None] / 8.0


def by_noise(x_t, logsnr_t):
    return jnp.tanh(x_t)


def by_hole(x_t, logsnr_t, *, masked, mask):
    """White where the hole is."""
    return masked + mask


def by_vector(x_t, logsnr_t, *, vector):
    return jnp.zeros_like(x_t) + 0.5 + jnp.sum(vector, axis=-1)[:, None, None, None]


def cascade_of(answer, *conditions, **settings):
    task = Denoising("toy", Told(answer), (8, 8, 3), conditions, predict="x_0")
    stage = TrainedStage(task, {}, dataclasses.replace(HOW, **settings))
    return Cascade((stage,), (Origin("toy", 8, 7, "decay_0.9", "1" * 64),), None)


CLASSES = cascade_of(by_label, Class(4, names=NAMES))


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """command(cascade, *flags) -> (exit code, stdout, stderr)."""
    monkeypatch.setattr("diffjax.devices.mesh.keep_compilations", lambda: None)

    def run(cascade, *flags, out="out"):
        monkeypatch.setattr(loading, "load", lambda *_: cascade)
        code = sample.main(["--stages", "a", "--out", str(tmp_path / out), *map(str, flags)])
        return code, *capsys.readouterr()

    return run


def brightness(path):
    """The value of a picture of one colour, in [-1, 1]."""
    (value,) = np.unique(png.read(path))
    return value / 127.5 - 1.0


def test_each_class_asked_for_is_drawn_whether_by_name_or_by_number(command, tmp_path):
    asked = ["--class", "3", "--class", "RED dog", "--class", "fox, grey", "--class", "0,none"]
    code, _, err = command(CLASSES, *asked, "--seeds", "5")
    assert (code, "5 of 5 pictures" in err) == (0, True)
    for i, label in enumerate((3, 1, 2, 0, 4)):
        path = tmp_path / "out" / f"{i:04d}_seed5_8px.png"
        assert brightness(path) == pytest.approx(label / 8, abs=0.01)
        found = png.read_metadata(path)
        assert (found["label"], found["prompt"], found["encoder"]) == (label, "", None)


def test_a_picture_of_a_class_is_made_again_and_its_class_can_be_changed(command, tmp_path):
    assert command(CLASSES, "--class", "3", "--seeds", "2")[0] == 0
    like = tmp_path / "out" / "0000_seed2_8px.png"
    code, out, _ = command(CLASSES, "--like", like, out="again")
    assert (code, "in every pixel" in out) == (0, True)
    assert (tmp_path / "again" / like.name).read_bytes() == like.read_bytes()
    assert command(CLASSES, "--like", like, "--class", "hen,cat", out="other")[0] == 0
    assert brightness(tmp_path / "other" / "0001_seed2_8px.png") == pytest.approx(0, abs=0.01)


def test_a_picture_of_another_class_is_not_taken_for_the_one_that_is_wanted(command):
    """Their recipes differ in the class alone."""
    assert command(CLASSES, "--class", "3")[0] == 0
    code, _, err = command(CLASSES, "--class", "1")
    assert (code, "is a picture of another class" in err) == (2, True)


def test_guidance_leads_away_from_no_class(command, tmp_path):
    """2 * 1/8 - 4/8 = -2/8."""
    assert command(CLASSES, "--class", "1", "--guidance", "2")[0] == 0
    assert brightness(tmp_path / "out" / "0000_seed0_8px.png") == pytest.approx(-0.25, abs=0.01)


def test_a_model_that_is_told_nothing_makes_a_picture_a_seed(command, tmp_path):
    code, _, err = command(cascade_of(by_noise), "--seeds", "0-2", "--film")
    assert (code, "3 of 3" in err) == (0, True)
    made = [png.read(path) for path in sorted((tmp_path / "out").glob("*_8px.png"))]
    assert len({one.tobytes() for one in made}) == 3
    like = tmp_path / "out" / "0001_seed1_8px.png"
    assert command(cascade_of(by_noise), "--like", like, out="again")[0] == 0
    assert (tmp_path / "again" / "0000_seed1_8px.png").read_bytes() == like.read_bytes()


def test_what_cannot_be_said_by_a_flag_is_nothing(command, tmp_path):
    """All is hole, and the vector is zeros."""
    assert command(cascade_of(by_hole, Masked(8)))[0] == 0
    assert brightness(tmp_path / "out" / "0000_seed0_8px.png") == 1.0
    assert command(cascade_of(by_vector, Embedding("clip", 3)), out="b")[0] == 0
    assert brightness(tmp_path / "b" / "0000_seed0_8px.png") == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("cascade", "flags", "words"),
    [
        (CLASSES, [], "--class = '': give one: 0 to 3, or none"),
        (CLASSES, ["--class", "4"], "--class = '4': a number from 0 to 3, a name such as cat"),
        (CLASSES, ["--class", "red dg"], "did you mean red dog? a number from 0 to 3"),
        (CLASSES, ["--class", "9" * 5000], "a number from 0 to 3"),
        (CLASSES, ["--class", "2-9"], "--class = '2-9': a number from 0 to 3"),
        (CLASSES, ["--class", "-1"], "--class = '-1'"),
        (CLASSES, ["--class", "\u00b2"], "--class = '\u00b2'"),
        (CLASSES, ["--prompt", "a cat"], "--prompt = 'a cat': toy takes no text: give --class"),
        (CLASSES, ["--class", "1", "--negative", "x"], "--negative = 'x': toy takes no text"),
        (cascade_of(by_noise), ["--prompt", "a"], "toy takes no text: give --seeds alone"),
        (cascade_of(by_noise), ["--class", "1"], "--class = '1': toy takes no class"),
    ],
)
def test_a_condition_that_the_model_does_not_have_is_refused_in_one_line(
    cascade, flags, words, command, tmp_path
):
    code, out, err = command(cascade, *flags)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_text_model_is_told_no_class(command, tmp_path):
    made = tiny_cascade.cascade(tmp_path)
    code, _, err = command(made, "--prompt", "a", "--class", "3")
    assert (code, "small takes no class" in err) == (2, True)


def test_a_command_that_needs_text_says_so_in_one_line(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loading, "load", lambda *_: CLASSES)
    assert serving.main(["--stages", "a", "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert "'toy': takes no text" in err
    assert err.count("\n") == 1
    with pytest.raises(ConfigError, match="takes no text"):
        CLASSES.text_encoder()


@pytest.fixture
def edited(tmp_path, monkeypatch, capsys):
    """edited(cascade, words) -> (exit code, stderr) of the editing command, on a picture."""
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(tmp_path / "a.png")
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    monkeypatch.setattr("diffjax.devices.mesh.keep_compilations", lambda: None)
    monkeypatch.setattr(loading, "stage_dirs", lambda workdir, stages: [])

    def run(cascade, line):
        monkeypatch.setattr(loading, "load", lambda *_: cascade)
        words = line.format(here=tmp_path).split()
        code = edit.main([*words, "--picture", f"{tmp_path}/a.png", "--out", f"{tmp_path}/out"])
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("line", "label", "value"),
    [
        ("inpaint --mask {here}/m.png --class hen", 3, 3 / 8),
        ("inpaint --mask {here}/m.png --class 1 --guidance 2", 1, -2 / 8),
        ("img2img --class 1", 1, 1 / 8),
        ("vary", 4, 4 / 8),  # no class
        ("vary --class 2", 2, 2 / 8),
    ],
)
def test_a_picture_is_changed_to_a_class(line, label, value, edited, tmp_path):
    assert edited(CLASSES, line) == (0, ANY)
    kind = line.split()[0]
    path = tmp_path / f"out/{kind}_seed0_8px.png"
    assert png.read(path)[3, 3, 0] / 127.5 - 1 == pytest.approx(value, abs=0.01)
    assert (png.read(path)[0, 0, 0] == 7) == (kind == "inpaint")
    found = png.read_metadata(path)
    assert (found["kind"], found["label"], found["prompt"]) == (kind, label, "")


def test_a_model_that_is_told_nothing_changes_pictures(edited, tmp_path):
    assert edited(cascade_of(by_noise), "vary --strength 1 --seeds 0,1") == (0, ANY)
    first, other = (png.read(tmp_path / f"out/vary_seed{seed}_8px.png") for seed in (0, 1))
    assert (first != other).any()


@pytest.mark.parametrize(
    ("cascade", "line", "words"),
    [
        (CLASSES, "img2img", "--class = '': give one: 0 to 3, or none"),
        (CLASSES, "img2img --class 4", "--class = '4': a number from 0 to 3"),
        (CLASSES, "img2img --class 0-2", "--class = '0-2': one class at a time"),
        (CLASSES, "vary --prompt cat", "--prompt = 'cat': toy takes no text: give --class"),
        (CLASSES, "vary --guidance 2", "--guidance = '2': needs a --prompt or a --class"),
        (CLASSES, "interpolate --picture {here}/a.png", "'toy': takes no text"),
        (cascade_of(by_label, Class(4, null=False)), "vary", "give one: 0 to 3"),
        (cascade_of(by_noise), "vary --class 1", "--class = '1': toy takes no class"),
        (cascade_of(by_noise), "vary --prompt a", "toy takes no text: leave it out"),
    ],
)
def test_an_edit_that_cannot_be_is_refused_in_one_line(cascade, line, words, edited, tmp_path):
    code, err = edited(cascade, line)
    assert (code, words in err, err.count("\n")) == (2, True, 1), err
    assert not (tmp_path / "out").exists()


def test_a_text_model_needs_a_prompt_and_no_class(edited, tmp_path):
    made = tiny_cascade.cascade(tmp_path)
    assert edited(made, "img2img --class 1")[1].count("small takes no class") == 1
    assert edited(made, "img2img")[1].count("--prompt = '': say what to draw") == 1


def test_the_sheet_calls_a_class_by_its_name():
    job = jobs.Job("", 0, label=2)
    assert folder.words_of(job, CLASSES) == "fox, grey"
    assert folder.words_of(dataclasses.replace(job, label=4), CLASSES) == "no class"
    unnamed = cascade_of(by_label, Class(4))
    assert folder.words_of(job, unnamed) == "class 2"
    assert folder.words_of(jobs.Job("a cat", 0), cascade_of(by_noise)) == "a cat"
