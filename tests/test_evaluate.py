"""What a run says of held-out data, and the command that says it: real runs of toy networks."""

import json
import os
import re
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffjax import evaluate, main
from diffjax.build import evaluation, tasks
from diffjax.build.inputs import reading
from diffjax.build.options import config
from diffjax.build.reports.sets import part
from diffjax.core.errors import ConfigError
from diffjax.data.sources import tfds
from diffjax.devices import mesh
from diffjax.evaluation.pictures import Fidelity
from tests import runs
from tests.evaluation.toys import extractor
from tests.tiny_t5 import save_tiny

EVERY = ("train.evaluate_every=2", "train.evaluate_examples=8", "optim.decay=constant",
         "train.evaluate_scores=('lite0',)",
         "train.sample_every=0", "train.snapshot_every=0", "train.log_every=4")  # fmt: skip


class Toy(nn.Module):
    """A guess of x_0 from each pixel, the level, and the sum of all that is told."""

    sharding: ClassVar = ((r".*", (None, None)),)

    @nn.compact
    def __call__(self, x_t, logsnr_t, low_res=None, text=None, text_mask=None, **told):
        seen = jnp.stack([logsnr_t / 10, jnp.sum(text, axis=(1, 2))], -1)[:, None, None]
        seen = jnp.broadcast_to(seen, (*x_t.shape[:3], 2))
        small = jnp.zeros_like(x_t) if low_res is None else low_res
        return nn.Dense(3)(jnp.tanh(nn.Dense(8)(jnp.concatenate([x_t, seen, small], -1))))


@pytest.fixture(scope="module", autouse=True)
def toys(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "model_of", lambda config: Toy())
        # the command has one CPU of its own; here it shares the programs of the training's eight
        patch.setattr(mesh, "sampling_devices", jax.local_devices)
        # six means in the place of a large network, which is in a wheel that need not be installed
        patch.setattr(evaluation, "open_extractor", lambda name: extractor())
        patch.setattr(part, "not_installed", lambda asked: "not asked for here")
        patch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("t5"))


def base(workdir, encoder, *flags):
    """Train the first stage alone; the exit code."""
    return runs.run(workdir, encoder, *EVERY, *flags)


def held_out(workdir):
    """The lines of metrics.jsonl that evaluations wrote."""
    return [line for line in runs.lines(workdir) if "evaluate/loss" in line]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, encoder):
    """A stage, trained and evaluated."""
    workdir = tmp_path_factory.mktemp("whole")
    assert base(workdir, encoder) == 0
    return workdir


@pytest.fixture(scope="module")
def said(whole, tmp_path_factory):
    """What the command says of the stage, and where it wrote it."""
    out = tmp_path_factory.mktemp("said") / "deep" / "stage.json"
    assert evaluate.main([str(whole), "--out", str(out)]) == 0
    return json.loads(out.read_text()), out


def same_numbers(workdir, stage):
    """The numbers of a stage's report are those that its loop logged last."""
    *_, last = held_out(workdir)
    assert last.pop("step") == 4
    assert {f"evaluate/{key}" for key in stage["numbers"]} == set(last)
    for key, value in stage["numbers"].items():
        assert value == pytest.approx(last[f"evaluate/{key}"], rel=1e-5), key


def test_the_command_says_what_the_loop_logged_at_that_step(whole, said):
    assert said[0]["of"][0]["step"] == 4
    same_numbers(whole, said[0]["stages"][0])
    assert said[0].keys() == {"format", "asked", "made_with", "of", "stages"}


@pytest.mark.slow
def test_the_command_says_of_a_cascade_what_each_loop_logged_and_the_sum_of_what_is_lowest(
    tmp_path, encoder, monkeypatch, capsys
):
    """The loop has eight devices, and the command here one."""
    monkeypatch.setattr(mesh, "sampling_devices", lambda: jax.local_devices()[:1])
    flags = [
        f"--config.{stage}.{flag}"
        for stage in ("base64", "sr256")
        for flag in (f"text.encoder={encoder}", "text.max_tokens=32", *EVERY)
    ]
    given = ["--config", "configs/cascade.py:tiny", "--workdir", str(tmp_path / "run"), *flags]
    assert main.main(given) == 0
    out = tmp_path / "all.json"
    assert evaluate.main([str(tmp_path / "run"), "--out", str(out)]) == 0
    assert "no emoji: fake/16 is not the emoji data set" in capsys.readouterr().out
    found = json.loads(out.read_text())
    for name, stage in zip(("base64", "sr256"), found["stages"], strict=True):
        same_numbers(tmp_path / "run" / name, stage)
        assert ("psnr_bicubic" in stage["numbers"]) == (name == "sr256")
    chain, numbers = found["chain"], found["chain"]["numbers"]
    for name, best in chain["stages"].items():
        ends = [value for key, value in numbers.items() if key.startswith(f"{name}_bits_per_dim")]
        assert best["share"] == min(ends)
        assert len(ends) == 5
    shares = [best["share"] for best in chain["stages"].values()]
    assert chain["bits_per_dim"] == pytest.approx(sum(shares))
    assert chain["dims"] == 64 * 64 * 3


def test_the_report_says_all_that_its_numbers_depend_on(said):
    found, path = said
    assert path.read_text() == json.dumps(found, indent=1, sort_keys=True) + "\n"
    (stage,), (whose,) = found["stages"], found["of"]
    asked = {"data": "fake/16", "split": "validation", "examples": 8, "seed": 0}
    assert asked.items() <= stage.items()
    assert len(whose["checkpoint"]) == len(whose["encoder"]) == 64
    assert whose["average"] == "decay_0.999"
    assert whose["settings"]["num_steps"] == 2
    assert found["made_with"]["jax"] == jax.__version__
    assert stage["bits_per_dim"]["lowest"] == min(
        value for name, value in stage["numbers"].items() if name.startswith("bits_per_dim")
    )


def test_the_losses_by_noise_level_are_drawn_beside_the_report(said):
    picture = np.asarray(Image.open(said[1].with_suffix(".png")))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 4


def test_evaluating_changes_nothing_of_the_training_and_resuming_nothing_of_it(
    whole, encoder, tmp_path, capsys
):
    """Also where a process ended between saving and evaluating: the next one evaluates."""
    assert base(whole, encoder) == 0  # nothing is left but to say the digest
    out = capsys.readouterr().out
    assert "evaluation at step" not in out
    wanted = runs.digest(out)
    assert base(tmp_path / "off", encoder, "train.evaluate_every=0") == 0
    assert runs.digest(capsys.readouterr().out) == wanted
    assert not held_out(tmp_path / "off")
    assert base(tmp_path / "parts", encoder, "train.num_steps=2") == 0
    log = tmp_path / "parts" / "metrics.jsonl"
    lines = [line for line in log.read_text().splitlines() if "evaluate/" not in line]
    log.write_text("".join(f"{line}\n" for line in lines))
    capsys.readouterr()
    assert base(tmp_path / "parts", encoder) == 0
    assert runs.digest(capsys.readouterr().out) == wanted
    assert held_out(tmp_path / "parts") == held_out(whole)
    assert [line["step"] for line in held_out(whole)] == [2, 4]


def test_a_curve_of_the_distance_of_sets_is_logged_when_it_is_asked_for(whole):
    """Eight examples are more than the six features, so it is a distance of full rank."""
    curve = [(line["step"], line["evaluate/fd_lite0"]) for line in held_out(whole)]
    assert [step for step, _ in curve] == [2, 4]
    assert all(value > 0 for _, value in curve)
    assert all("evaluate/kid_lite0" in line for line in held_out(whole))


def test_what_the_demo_learns_by_heart_is_what_its_evaluation_looks_at():
    options = config.load("configs/base64.py:demo")
    found = reading.held_out(options, options.data.validation_split)
    names = {str(found[i]["name"]) for i in range(len(found))}
    assert names == set(options.data.names)
    options.data.validation_names = ("banana",)
    assert len(reading.held_out(options, "train")) < len(found)
    with pytest.raises(ConfigError, match=r"data\.validation_split = 'validation'"):
        reading.held_out(options, "validation")


def test_other_examples_and_another_seed_give_other_numbers(whole, said, tmp_path):
    before = said[0]["stages"][0]["numbers"]
    for flag, value in (("--num", "16"), ("--seed", "1"), ("--split", "test")):
        out = tmp_path / f"{flag}.json"
        asked = [str(whole), "--parts", "stages", flag, value, "--out", str(out)]
        assert evaluate.main(asked) == 0
        (stage,) = json.loads(out.read_text())["stages"]
        named = {"--num": "examples", "--seed": "seed", "--split": "split"}[flag]
        assert str(stage[named]) == value
        assert stage["numbers"]["loss"] != pytest.approx(before["loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["train.evaluate_every=2", "data.validation_split=dev"],
         "data.validation_split = 'dev': made-up pictures have no split 'dev', only train, "
         "validation, test; name another, or train with train.evaluate_every=0"),
        (["train.evaluate_every=-1"], "train.evaluate_every = -1: must be at least 0"),
        (["train.evaluate_examples=0"], "train.evaluate_examples = 0: must be "),
        (["train.evaluate_every=2", "train.evaluate_scores=('clip:./no where',)"],
         "train.evaluate_scores = './no where': CLIP './no where' is neither a folder, a file"),
        (["train.evaluate_every=2", "train.evaluate_scores=('lite0',)",
          "train.evaluate_examples=1"], "real: 1 pictures, want at least 2"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_be_evaluated_is_refused_before_it_compiles(
    encoder, tmp_path, capsys, flags, words
):
    assert runs.run(tmp_path, encoder, *flags) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert words in err
    assert "compiling" not in out


def test_a_data_set_without_the_split_is_refused_with_those_that_it_has(monkeypatch):
    def opened(name, split, data_dir, **fields):
        raise ValueError(f"{name} has no split {split!r}, only ['test', 'train']")

    monkeypatch.setattr(tfds, "open_source", opened)
    options = config.load("configs/base64.py:emoji")
    with pytest.raises(ConfigError) as refused:
        reading.held_out(options, options.data.validation_split)
    assert str(refused.value) == (
        "config error: data.validation_split = 'validation': emoji/64 has no split 'validation', "
        "only ['test', 'train']; name another, or train with train.evaluate_every=0"
    )


def test_digits_have_nothing_to_be_evaluated_on(tmp_path, capsys):
    flags = ["--config", "configs/digits.py:tiny", "--workdir", str(tmp_path)]
    assert main.main([*flags, "--config.train.evaluate_every=2"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "data.validation_split = 'validation': digits (1797 records) has no splits, all of" in line
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--num", "0"], "--num = 0: must be at least 1"),
        (["--seed", "-1"], "--seed = -1: 0 to 2147483647"),
        (["--split", " "], "--split = ' ': name one"),
        (["--split", "dev"], "data.validation_split = 'dev': made-up pictures have no"),
        (["--parts", "stages,fid"], "'fid': allowed: stages, chain, emoji, guidance, sets"),
        (["--parts", "emoji"], "--parts = 'emoji': fake/16 is not the emoji data set"),
        (["--parts", "chain"], "--parts = 'chain': wants two stages or more"),
        (["--out", "report.txt"], "--out = 'report.txt': must end with .json"),
        (["--ema", "decay_0.5"], "--ema = 'decay_0.5': no average is called decay_0.5"),
    ],
)  # fmt: skip
def test_a_bad_flag_is_one_line_and_exit_code_2(whole, tmp_path, capsys, flags, words):
    given = [
        str(whole),
        *(() if "--out" in flags else ("--out", f"{tmp_path}/a.json")),
    ]
    assert evaluate.main([*given, *flags]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert words in err
    assert not os.listdir(tmp_path)


def test_what_is_there_already_is_replaced_only_when_asked(whole, tmp_path, capsys):
    out = tmp_path / "a.json"
    out.write_text("mine")
    asked = [str(whole), "--parts", "stages", "--out", str(out)]
    assert evaluate.main(asked) == 2
    assert f"--out = '{out}': is there already; --overwrite" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert evaluate.main([*asked, "--overwrite"]) == 0
    assert json.loads(out.read_text())["format"] == 1


def test_a_folder_without_a_stage_is_named(tmp_path, capsys):
    assert evaluate.main([str(tmp_path), "--out", str(tmp_path / "a.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(rf"WHERE = '{tmp_path}': holds no trained stage", line)


def test_a_stage_that_starts_from_a_picture_is_compared_with_the_true_one():
    """And says which numbers it cannot have: those of levels beyond its schedule, a small SSIM."""
    options = config.load("configs/sr256.py:tiny")
    task = tasks.task_of(options, 16)
    assert evaluation.scores_of(options, task) == (Fidelity(),)
    assert evaluation.left_out(options, task) == []
    options.data.size_px, options.low_res.size_px, options.data.crop_px = 8, 4, 0
    options.diffusion.logsnr_max = 8.0
    lines = evaluation.left_out(options, tasks.task_of(options, 16))
    assert lines == [
        "no loss_logsnr_8_12: the schedule does not go there",
        "no ssim: pictures of 8 px are smaller than its window, 11",
    ]


def test_numbers_that_json_has_not_are_null():
    found = evaluate.finite({"a": [float("inf"), 1.0], "b": {"c": float("nan")}, "d": "x"})
    assert found == {"a": [None, 1.0], "b": {"c": None}, "d": "x"}
