"""The race of cascades: its arithmetic, its line protocol, and that all programs run."""

import functools
import importlib.util
import json
import os
import sys

import jax
import pytest

from benchmarks import peers, sampling
from benchmarks.cascades import NAMES, SIZES
from benchmarks.sampling_worker import task_of
from diffjax.generation import chain
from diffjax.planning import jaxprs
from diffjax.tasks.sampling import sample
from diffjax.tasks.settings import SampleSettings

PROGRAM = """
import sys, time
from benchmarks.cascades import serve
serve(lambda count: time.sleep(0.02 * count), lambda: {"flops_picture": 7}, started=time.time())
"""


def turns(*seconds):
    return [peers.Turn(1e3 * s, 0.0) for s in seconds]


def test_seconds_are_medians_and_ratios_are_formed_within_a_round():
    found = sampling.result(4, 1e9, turns(3.0, 8.0, 4.0), turns(1.0, 2.0, 4.0))
    assert found["seconds"] == 4.0
    assert found["gflops"] == 1.0  # 4 pictures of 1 GFLOP in 4 s
    assert (found["ratio"], found["ratio_ends"]) == (3.0, [1.0, 4.0])


def test_turns_rotate_and_take_as_long_as_their_pictures(tmp_path):
    racers = [
        peers.Racer([sys.executable, "-c", PROGRAM], dict(os.environ), tmp_path / f"{i}")
        for i in range(2)
    ]
    assert racers[0].facts["first_picture_s"] >= 0.02
    found = [sampling.race(racers, count, 2) for count in (1, 10)]
    for racer, one, ten in zip(racers, *found, strict=True):
        assert len(one) == len(ten) == 2
        assert min(turn.ms for turn in one) >= 20
        assert min(turn.ms for turn in ten) >= 200
        racer.order("facts")
        assert racer.hear("flops_picture")["flops_picture"] == 7
        assert racer.end()["rss_peak_mb"] > 1


def test_every_program_makes_pictures_of_the_same_sizes_in_the_same_steps():
    for programs in SIZES.values():
        assert tuple(programs) == NAMES
        shapes = {
            (p.base.side, p.sr.side, p.base.text, p.sr.text, p.steps) for p in programs.values()
        }
        assert len(shapes) == 1


@pytest.mark.slow
def test_the_networks_of_the_race_have_the_documented_flops():
    """Ours, counted from their traces; those of others are torch's own count."""
    shape = SIZES["race"]["diffjax"]
    for work, low_px, gflop in ((shape.base, None, 17.05), (shape.sr, shape.base.side, 28.95)):
        task = task_of("one", work, low_px)
        params = jax.eval_shape(task.init, jax.random.key(0))
        settings = SampleSettings(num_steps=3, guidance_weight=7.5)
        run = functools.partial(sample, task=task, settings=settings)
        keys = jax.random.split(jax.random.key(0), 1)
        traced = jax.make_jaxpr(run)(params, chain.zeros(task, 1), keys)
        # three steps of a doubled batch
        assert jaxprs.flops(traced) / 6e9 == pytest.approx(gflop, rel=0.005)


@pytest.mark.slow
def test_all_programs_race_on_tiny_networks(tmp_path, capsys):
    torch = all(importlib.util.find_spec(name) for name in ("torch", "diffusers", "transformers"))
    names = [name for name in NAMES if name == "diffjax" or torch]
    if not importlib.util.find_spec("imagen_pytorch"):
        names = [name for name in names if name != "imagen"]
    sampling.main(
        ["--size", "tiny", "--peers", sys.executable, "--only", ",".join(names),
         "--pictures", "1,2", "--rounds", "2,1", "--out", str(tmp_path)]
    )  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "sampling.jsonl").read_text().splitlines()]
    assert [(line["name"], line["pictures"]) for line in lines] == [
        (name, count) for count in (1, 2) for name in names
    ]
    ours = lines[0]
    assert ours["ratio"] == 1.0
    assert ours["compile_s"] > 0
    assert ours["first_picture_s"] > 0
    assert "| diffjax, jax" in sampling.table(lines)
