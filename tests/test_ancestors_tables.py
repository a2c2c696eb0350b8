"""The tool that makes the tables of the ancestors, with stand-ins for what is dear."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from diffjax.build.check import check
from diffjax.build.options import config
from diffjax.data.sources import digits
from tools.ancestors_tables import judge, runs, sets, tables
from tools.ancestors_tables.judge import Scores

PAGE = (Path(__file__).resolve().parents[1] / "docs/ancestors.md").read_text()


@pytest.mark.parametrize("name", runs.RUNS)
def test_every_training_is_a_config_that_is_allowed(name):
    run = runs.RUNS[name]
    options = config.load(run.config)
    config.override(options, [f"--config.{change}" for change in run.changes])
    check(options)
    assert options.data.name == "digits"


def test_runs_that_are_compared_differ_in_what_is_compared_alone():
    loaded = {}
    for name, run in runs.RUNS.items():
        loaded[name] = config.load(run.config)
        config.override(loaded[name], [f"--config.{change}" for change in run.changes])
    compared = [name for name in loaded if "_" in name]
    assert len(compared) == 5
    for name in compared:
        schedule, objective = name.split("_")
        noise = loaded[name].diffusion
        assert noise.objective == objective
        assert noise.schedule == {"cosine": "discrete_cosine"}.get(schedule, schedule)
        for section in ("model", "data", "optim", "train"):
            assert loaded[name][section] == loaded["cosine_hybrid"][section]


@pytest.fixture
def stood(tmp_path, monkeypatch):
    """A folder in which nothing is trained or sampled; what was asked for."""
    asked = []

    def scores(out, way, count, seeds):
        asked.append((way, count, seeds))
        share = 1 / (way.steps * (1 + way.scale + way.noise))
        return [Scores(10 * share + 0.1 * i, 1 - share, 0.9, 0.8 - share) for i in range(seeds)]

    def bound(out, name):
        schedule, objective = name.split("_")
        schedule = {"cosine": "discrete_cosine"}.get(schedule, schedule)
        numbers = {"prior": 0.0, "diffusion": 1.25, "decoder": 0.5, "bits_per_dim": 1.75}
        said = {"objective": objective, "schedule": schedule, "variance": "learned"}
        return [{**said, **numbers, "terms": [0.1, 0.5, 1.15]}]

    monkeypatch.setattr(sets, "scores", scores)
    monkeypatch.setattr(tables, "bound", bound)
    monkeypatch.setattr(judge, "trained", lambda out: {})
    monkeypatch.setattr(judge, "of_real", lambda params, count: Scores(0.5, 0.99, 0.95, 0.9))
    return tmp_path, asked


@pytest.mark.parametrize("name", tables.TABLES)
def test_a_table_has_its_rows_and_a_plot(name, stood):
    out, asked = stood
    head, _, *rows = tables.TABLES[name](out).splitlines()
    assert {row.count("|") for row in (head, *rows)} == {head.count("|")}
    ways = {way for way, *_ in asked}
    many = {"cosine": 3, "variance": 4, "steps": 5, "bits": 5}
    assert len(rows) == many.get(name, len(ways) + 1)
    if name in ("cosine", "variance", "steps"):
        assert len(ways) == (len(rows) - 1) * len(tables.STEPS)
        assert re.search(r"\d\.\d\d ± \d\.\d\d", rows[0])
    assert np.asarray(Image.open(out / f"{name}.png").convert("L")).std() > 10


def test_guidance_is_compared_at_equal_network_calls(stood):
    """A step of classifier-free guidance asks the U-Net twice, one by a classifier both once."""
    out, asked = stood
    tables.guidance(out)
    calls = {way.steps * (1 + (way.weight != 1) + (way.scale != 0)) for way, *_ in asked}
    assert calls == {2 * tables.GUIDED_STEPS}
    assert not any(way.weight != 1 and way.scale for way, *_ in asked)


def test_a_spread_is_the_deviation_of_a_sample():
    assert tables.spread([1.0, 2.0, 6.0]) == "3.00 ± 2.65"
    assert tables.spread([2.0]) == "2.00"


@pytest.mark.slow
def test_real_digits_are_near_real_digits_and_noise_is_far():
    images, labels = (part[:400] for part in digits.load())
    params = jax.jit(judge.Net().init)(jax.random.key(0), judge.inputs(images[:1]))["params"]
    half = judge.scores(params, images[::2], labels[::2], images[1::2])
    noise = np.random.default_rng(0).integers(0, 256, (200, 8, 8), np.uint8)
    far = judge.scores(params, noise, sets.labels(200), images[1::2])
    assert far.fd > 5 * half.fd
    assert half.precision > 0.7 > far.precision
    assert np.bincount(sets.labels(600)).tolist() == [60] * 10


def test_the_page_names_each_table_s_command():
    for name in tables.TABLES:
        assert f"python -m tools.ancestors_tables {name} " in PAGE
        assert f"ancestors_{name}.png" in PAGE
