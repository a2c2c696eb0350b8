"""A tiny CLIP, from its config to its report: it trains, resumes, plans and is evaluated."""

import json

import numpy as np
import pytest
from PIL import Image

from diffjax import evaluate, main, sample
from diffjax.build import check
from diffjax.build.guides import clips
from diffjax.build.kinds import contrastive
from diffjax.build.options import config
from diffjax.core.errors import ConfigError
from tests import runs

TINY = "configs/clip.py:tiny"
FLAGS = ("train.sample_every=4", "train.log_every=2", "mesh.data=8", "optim.decay=constant")


def train(workdir, *flags):
    options = [f"--config.{flag}" for flag in (*FLAGS, *flags)]
    return main.main(["--config", TINY, "--workdir", str(workdir), *options])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of four steps, evaluated at the end."""
    workdir = tmp_path_factory.mktemp("whole")
    assert train(workdir, "train.evaluate_every=4") == 0
    return workdir


def trained(workdir):
    """The lines of the training steps, in which gradients and scale tell whether bits are equal."""
    return [line for line in runs.lines(workdir) if "grad_norm" in line]


@pytest.mark.slow
def test_a_run_in_two_parts_ends_as_one_without_a_stop(whole, tmp_path, capsys):
    assert train(tmp_path, "train.num_steps=2") == 0
    assert train(tmp_path) == 0
    assert "resuming from step 2" in capsys.readouterr().out
    assert trained(tmp_path) == trained(whole)


@pytest.mark.slow
def test_a_run_logs_whether_it_learns_and_how_well_it_finds_held_out_pairs(whole):
    lines = runs.lines(whole)
    logged = [line for line in lines if "loss" in line]
    assert {"loss", "scale", "text_found", "image_found", "at_chance"} <= logged[0].keys()
    assert logged[-1]["at_chance"] == 0.0  # too few steps to tell
    (held_out,) = [line for line in lines if "evaluate/loss" in line]
    assert 0 <= held_out["evaluate/text_in_1"] <= held_out["evaluate/text_in_5"] <= 1
    assert "evaluate/top_1" in held_out
    assert (whole / "samples" / "0000004.png").exists()


def test_the_command_reports_zero_shot_classification_and_retrieval(whole, tmp_path):
    out = tmp_path / "clip.json"
    assert evaluate.main([str(whole), "--out", str(out), "--num", "12"]) == 0
    said = json.loads(out.read_text())
    assert said["of"][0]["step"] == 4
    assert said["retrieval"]["examples"] == 12
    zero_shot = said["zero_shot"]
    assert zero_shot["classes"] >= 2
    assert zero_shot["chance"] == 1 / zero_shot["classes"]
    for share in (zero_shot["top_1"], said["retrieval"]["text_in_5"]):
        assert share["low"] <= share["share"] <= share["high"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--parts", "stages"], "a CLIP has retrieval and zero_shot"),
        (["--split", "absent"], "data.validation_split"),
    ],
)
def test_what_a_clip_cannot_report_is_refused(whole, tmp_path, capsys, given, message):
    assert evaluate.main([str(whole), "--out", str(tmp_path / "x.json"), *given]) == 2
    assert message in capsys.readouterr().err


def test_a_clip_is_not_trained_on_pictures_without_captions(tmp_path, capsys):
    for index in range(8):
        Image.new("RGB", (16, 16), (index * 30, 0, 0)).save(tmp_path / f"{index}.png")
    assert train(tmp_path / "run", f"data.name=folder:{tmp_path}") == 2
    assert "has no captions, which a CLIP compares with pictures" in capsys.readouterr().err


def test_a_clip_makes_no_pictures(whole, tmp_path, capsys):
    given = ["--workdir", str(whole), "--prompt", "a frog", "--out", str(tmp_path / "x")]
    assert sample.main(given) == 2
    assert "compares pictures with texts, and makes none" in capsys.readouterr().err


def test_a_dry_run_reports_parameters_and_a_batch(capsys):
    assert main.main(["--config", TINY, "--dry_run", "--config.mesh.data=8"]) == 0
    said = capsys.readouterr().out
    assert "text/tokens" in said
    assert "tokens       int32" in said


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model.kind", "unet", "allowed: clip"),
        ("model.patch", 5, "data.size_px = 16: must be a multiple of 5"),
        ("model.image_heads", 3, "must divide model.image_width, 16"),
        ("tokens.length", 2, "at least 3"),
        ("tokens.vocabulary", "/absent", "neither 'emoji' nor 'openai'"),
        ("contrastive.loss", "triplet", "allowed: softmax, sigmoid"),
        ("contrastive.shift_px", 16, "must be below data.size_px, 16"),
        ("data.crop_px", 8, "a CLIP takes whole pictures"),
        ("data.caption_key", "", "needs captions"),
        ("train.accumulate", 2, "must be 1"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_with_its_key(key, value, said):
    options = config.load(TINY)
    section, _, last = key.partition(".")
    options[section][last] = value
    with pytest.raises(ConfigError, match=said):
        check.check(options, devices=1)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("text.drop", 0.1, "must be 0: a CLIP trains with every text"),
        ("text.encoder", "./no_such_t5", "text.encoder = './no_such_t5'"),
        ("contrastive.backbone", "", "want one beside a section text"),
        ("contrastive.shift_px", 1, "sees each picture once, as it is: must be 0"),
        ("data.flip", True, "sees each picture once, as it is: must be False"),
    ],
)
def test_heads_on_frozen_networks_refuse_what_these_do_not_see(key, value, said):
    options = config.load("configs/clip.py:emoji_frozen")
    section, _, last = key.partition(".")
    options[section][last] = value
    with pytest.raises(ConfigError, match=said):
        checked(options)


def checked(options):
    check.check(options, devices=1)
    return contrastive.task_of(options)


def test_a_share_to_drop_wants_a_frozen_network_whose_numbers_it_drops():
    options = config.load(TINY)
    options.contrastive.drop = 0.5
    with pytest.raises(ConfigError, match=r"must be 0 without a backbone or a text\.encoder"):
        check.check(options, devices=1)


@pytest.mark.slow
def test_a_clip_of_noised_pictures_is_trained_loaded_and_judges_clean_ones(tmp_path):
    steps = ["train.num_steps=2", "contrastive.noised=True"]
    assert train(tmp_path, *steps, "train.sample_every=2", "train.evaluate_every=2") == 0
    clip = clips.load(str(tmp_path))
    assert clip.config.noised
    picture = np.full((1, 16, 16, 3), 200, np.uint8)
    found = clip.of_pictures(picture) @ clip.of_captions(["a red apple"]).T
    assert -1 <= float(found[0, 0]) <= 1
    assert "level" in clip.params["image"]


@pytest.mark.parametrize("preset", ["emoji", "emoji_frozen", "tiny", "b32", "b16", "l14"])
def test_every_preset_is_valid(preset):
    options = config.load(f"configs/clip.py:{preset}")
    check.check(options, devices=8)
