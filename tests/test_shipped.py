"""The cascade that ships: small, whole, told about truly, and able to draw."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors import safe_open

from diffjax.build.stages import loading, places, students
from diffjax.core import tensorfile
from diffjax.evaluation import retrieval
from diffjax.evaluation.drawings import drawings
from diffjax.generation import rows
from diffjax.generation.jobs import Job
from diffjax.sample import parser
from tools.ship import cascade as ship_cascade

PLACES = places.stage_dirs()
STUDENTS = places.stage_dirs(places.shipped() / students.FEW)


def test_the_files_are_whole_small_and_in_bfloat16():
    assert [place.name for place in PLACES] == ["base64.safetensors", "sr256.safetensors"]
    assert sum(place.stat().st_size for place in PLACES) <= 40_000_000
    for place in PLACES:
        assert int(tensorfile.verify(place)["step"]) >= 900
        names = tensorfile.shapes(place)
        assert {tensorfile.read(place, name).dtype.name for name in names} == {"bfloat16"}


def test_the_students_are_whole_and_in_bytes_and_draw_unless_more_is_asked():
    assert [place.name for place in STUDENTS] == [place.name for place in PLACES]
    for place in STUDENTS:
        assert int(tensorfile.verify(place)["step"]) >= 700
        with safe_open(place, framework="np") as reader:
            codes = {reader.get_slice(name).get_dtype() for name in reader.keys()}  # noqa: SIM118
        assert codes == {"I8", "F32"}
    assert students.instead(PLACES, parser().parse_args([])) == STUDENTS
    assert students.instead(PLACES, parser().parse_args(["--guidance", "2"])) == PLACES
    assert students.instead(PLACES, parser().parse_args(["--steps", "4"])) == [
        STUDENTS[0],
        PLACES[1],
    ]


def test_all_weights_that_come_along_have_at_most_40_megabytes():
    files = places.shipped().parent.rglob("*.safetensors")
    assert sum(file.stat().st_size for file in files) <= 40_000_000


def test_the_card_has_the_figures_that_were_measured():
    """If not: python -m tools.ship.cascade --card."""
    card = (places.shipped() / "README.md").read_text()
    assert card == ship_cascade.card(card, json.loads(ship_cascade.FIGURES.read_text()))


def test_scores_of_sets_stand_in_the_card_with_their_spread():
    found = {
        "examples": 78, "seeds": [0, 1], "clip": {"name": "emoji", "weights": "a" * 64},
        "extractor": {"name": "a network"},
        "numbers": {"kid_lite0": 0.0123, "clip_score": 25.0, "fd_lite0_of_78": 9.0},
        "deviation": {"kid_lite0": 0.001, "fd_lite0_of_78": 0.5},
    }  # fmt: skip
    rows = ship_cascade.scores({"style": found})
    assert "by a network and the CLIP emoji (aaaaaaaaaaaa); means over the seeds 0, 1" in rows[1]
    (row,) = [row for row in rows if row.startswith("| style")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "style",
        "78",
        "9.00 ± 0.50 (of 78)",
        "1.230 ± 0.100",
        "-",
        "-",
        "25.00",
        "-",
        "-",
        "-",
    ]
    assert len(rows[3].split("|")) == len(row.split("|"))


def test_the_files_are_those_that_the_configs_train():
    for place in PLACES:
        options = places.options_of(place)
        last = {"base64": "emoji", "sr256": "fine"}[options.stage]
        preset = ship_cascade.config.load(f"configs/{options.stage}.py:{last}")
        for part in ("data", "text", "model", "diffusion", "low_res", "optim", "sample"):
            found, values = options[part].to_dict(), preset[part].to_dict()
            # how many pictures may be broken has no part in what was trained
            for given in (found, values):
                given.pop("max_bad_fraction", None)
            assert found == values, (place, part)
        check_trained(place, preset)


@pytest.mark.parametrize(("place", "preset"), zip(STUDENTS, ("emoji", "sr256"), strict=True))
def test_a_student_is_the_one_that_its_config_trains(place, preset):
    options = places.options_of(place)
    wanted = ship_cascade.config.load(f"configs/rehearse.py:{preset}")
    of_the_run = ("train.", "sample.num_images")
    ours, theirs = (
        {
            key: value
            for key, value in ship_cascade.config.leaves(one)
            if not key.startswith(of_the_run)
        }
        for one in (options, wanted)
    )
    assert ours == theirs
    check_trained(place, wanted)


def check_trained(place, preset):
    """To the end, and with the average that is sampled."""
    metadata = tensorfile.read_metadata(place)
    assert int(metadata["step"]) == preset.train.num_steps
    assert metadata["ema"] == preset.train.ema[0]


@pytest.mark.slow
def test_it_draws_what_it_is_asked_for():
    """Of eight drawings of each style, the one that was asked for is nearest for most prompts."""
    every = drawings(64)
    names = ("red_apple", "frog", "pizza", "red_heart", "rainbow", "cactus", "penguin", "sunflower")
    wanted = [(every.names.index(name) + i, name) for name in names for i in range(2)]
    cascade = loading.load(PLACES[:1])
    jobs = [Job(every.captions[index], 0) for index, _ in wanted]
    made = np.stack([pictures[0] for pictures in rows.make(cascade, jobs)])
    real = np.stack([every.images[index] for index, _ in wanted])
    rank = retrieval.ranks(
        retrieval.small_pixels(made), retrieval.small_pixels(real), np.arange(len(wanted))
    )
    assert (rank == 0).mean() >= 0.75, rank
    jax.clear_caches()


@pytest.mark.slow
def test_a_picture_is_the_same_on_one_core_and_on_all(tmp_path):
    everywhere = os.sched_getaffinity(0)
    for name, cores in (("one", set(list(everywhere)[:1])), ("all", everywhere)):
        command = (
            sys.executable,
            "-m",
            "diffjax.sample",
            "--prompt",
            "a red apple",
            "--seeds",
            "0-1",
        )
        drawn = subprocess.run(
            [*command, "--out", str(tmp_path / name)],
            preexec_fn=lambda cores=cores: os.sched_setaffinity(0, cores),
            env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache" / name)},
            check=False,
        )
        assert drawn.returncode == 0
    one, every = (sorted((tmp_path / name).glob("*px.png")) for name in ("one", "all"))
    assert len(one) == len(every) == 4
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in every]
