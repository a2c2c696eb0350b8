"""diffjax.edit with a decoder of vectors: variations, paths between pictures, and text diffs."""

import dataclasses
import re

import numpy as np
import pytest
from PIL import Image

from diffjax import edit
from diffjax.build.stages import decoders, loading
from diffjax.encoders.clip import encoder
from diffjax.images import png
from diffjax.tasks.conditions import Embedding
from tests import tiny_cascade, tiny_prior
from tests.encoders.clip import small

COLOURS = np.random.default_rng(0).integers(0, 256, (20, 16, 3), np.uint8)
PAIR = "--picture {f}/a.png --picture {f}/b.png"
DIFF = ("--prompt", "a red apple", "--prompt", "a green pear")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return encoder.load(small.write(tmp_path_factory.mktemp("clip") / "small"))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    told = Embedding("image_vector", small.CONFIG.embed)
    return tiny_cascade.cascade(tmp_path_factory.mktemp("t5"), told)


@pytest.fixture
def run(decoder, clip, tmp_path, monkeypatch, capsys):
    """run(words of a command) -> (exit code, printed, files written); {f} is the files' folder."""
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    Image.fromarray(COLOURS[::-1].copy()).save(tmp_path / "b.png")
    monkeypatch.setattr(loading, "load", lambda dirs, ema, verify: decoder)
    monkeypatch.setattr(loading, "stage_dirs", lambda workdir, stages: [])
    monkeypatch.setattr(decoders, "clip_of", lambda dirs: clip)
    out = tmp_path / "out"

    def call(line, *more):
        words = [word.format(f=tmp_path) for word in line.split()]
        code = edit.main([*words, *more, "--workdir", "w", "--out", str(out), "--steps", "3"])
        printed = capsys.readouterr()
        there = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
        return code, printed, {name: out / name for name in there}

    return call


@pytest.mark.slow
def test_variations_differ_by_their_seeds_and_say_their_eta(run):
    code, printed, made = run("variations --picture {f}/a.png --seeds 0,3")
    assert code == 0, printed.err
    assert list(made) == [
        "variations_grid.png", "variations_seed0_16px.png", "variations_seed0_8px.png",
        "variations_seed3_16px.png", "variations_seed3_8px.png",
    ]  # fmt: skip
    first, other = (png.read(made[f"variations_seed{seed}_8px.png"]) for seed in (0, 3))
    assert (first != other).any()
    said = png.read_metadata(made["variations_seed3_8px.png"])
    assert (said["kind"], said["edit"]["eta"], said["seed"]) == ("variations", 1.0, 3)
    assert "strength" not in said["edit"]


@pytest.mark.slow
def test_without_noise_all_variations_are_the_one_reconstruction(run):
    _, _, made = run("variations --picture {f}/a.png --seeds 0,3 --noise 0")
    first, other = (png.read(made[f"variations_seed{seed}_8px.png"]) for seed in (0, 3))
    np.testing.assert_array_equal(first, other)


def test_a_path_between_pictures_goes_by_their_vectors_if_there_is_a_decoder(run):
    code, printed, made = run(f"interpolate {PAIR} --frames 3 --png --pace prompt")
    assert code == 0, printed.err
    frames = [png.read(made[f"interpolate_000{i}_16px.png"]) for i in range(3)]
    assert (frames[0] != frames[1]).any()
    assert (frames[1] != frames[2]).any()
    _, _, again = run(f"interpolate {PAIR} --frames 2 --png --pace prompt --overwrite")
    for i, end in ((0, frames[0]), (1, frames[2])):
        np.testing.assert_array_equal(png.read(again[f"interpolate_000{i}_16px.png"]), end)


def test_a_text_diff_begins_with_the_reconstruction_and_leads_away_from_it(run):
    code, printed, made = run("diff --picture {f}/a.png --frames 3 --png", *DIFF)
    assert code == 0, printed.err
    assert {"diff.webp", "diff.gif", "diff_grid.png"} <= set(made)
    frames = [png.read(made[f"diff_000{i}_16px.png"]).astype(int) for i in range(3)]
    near, far = (np.abs(frames[i] - frames[0]).mean() for i in (1, 2))
    assert 0 < near < far
    said = png.read_metadata(made["diff_0002_16px.png"])["edit"]
    assert (said["theta"], said["prompts"]) == (0.5, ["a red apple", "a green pear"])
    _, _, alone = run("variations --picture {f}/a.png --noise 0")
    np.testing.assert_array_equal(png.read(alone["variations_seed0_16px.png"]), frames[0])


@pytest.mark.slow
def test_three_ways_to_tell_a_prompt_are_shown_side_by_side(run, decoder, clip, monkeypatch):
    words = ("--prompt", "a red apple", "--seeds", "0,1")
    code, printed, _ = run("ways", *words)
    assert code == 2
    assert "wants a prior beside it" in printed.err
    whole = dataclasses.replace(decoder, teller=tiny_prior.teller(decoder, clip))
    monkeypatch.setattr(loading, "load", lambda dirs, ema, verify: whole)
    code, printed, made = run("ways", *words)
    assert code == 0, printed.err
    pictures = {
        way: png.read(made[f"ways_0000_{way}_seed1_16px.png"])
        for way in ("caption", "text", "prior")
    }
    assert (pictures["caption"] != pictures["text"]).any()
    assert (pictures["text"] != pictures["prior"]).any()
    said = png.read_metadata(made["ways_0000_prior_seed1_16px.png"])
    assert (said["told"]["by"], said["edit"]["way"]) == ("prior", "prior")
    assert len(made) == 7


@pytest.mark.slow
def test_paths_between_prompts_tell_a_decoder_no_vector(run):
    code, printed, made = run("interpolate --frames 2 --png --pace prompt", *DIFF)
    assert code == 0, printed.err
    frames = [png.read(made[f"interpolate_000{i}_16px.png"]) for i in (0, 1)]
    assert (frames[0] != frames[1]).any()


def test_a_prior_tells_the_vector_of_a_prompt_in_edits_and_none_where_there_is_no_prompt(
    run, decoder, clip, monkeypatch
):
    """And the metadata say so."""
    whole = dataclasses.replace(decoder, teller=tiny_prior.teller(decoder, clip))
    line = "img2img --picture {f}/a.png --strength 1"
    pictures = []
    for one in (decoder, whole):
        monkeypatch.setattr(loading, "load", lambda dirs, ema, verify, one=one: one)
        code, printed, made = run(line, "--prompt", "a red apple", "--overwrite")
        assert code == 0, printed.err
        pictures.append(png.read(made["img2img_seed0_16px.png"]))
    assert (pictures[0] != pictures[1]).any()
    assert png.read_metadata(made["img2img_seed0_16px.png"])["told"]["by"] == "prior"
    _, _, made = run("vary --picture {f}/a.png")
    assert "told" not in png.read_metadata(made["vary_seed0_16px.png"])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("diff --picture {f}/a.png --prompt a", "--prompt = 1: 2: the text it has"),
        ("diff --picture {f}/a.png --prompt a --prompt a", "means the same as the first one"),
        ("diff --picture {f}/a.png --prompt a --prompt b --theta 0", "--theta = 0.0: above 0"),
        ("diff --picture {f}/a.png --prompt a --prompt b --seeds 1,2", "1 seed"),
        ("variations --picture {f}/a.png --sampler heun", "must be ddim for the first stage"),
        ("variations --picture {f}/none.png", "no such file"),
    ],
)
def test_an_impossible_request_is_refused_in_one_line(run, line, words):
    code, printed, made = run(line)
    assert code == 2
    assert re.search(words, printed.err), printed.err
    assert len(printed.err.splitlines()) == 1
    assert not made


def test_stages_without_a_decoder_make_no_variations(run, monkeypatch, tmp_path):
    plain = tiny_cascade.cascade(tmp_path / "t5")
    monkeypatch.setattr(loading, "load", lambda dirs, ema, verify: plain)
    code, printed, _ = run("variations --picture {f}/a.png")
    assert code == 2
    assert "small: is told no vector of a picture" in printed.err.replace("'", "").replace(
        " =", ":"
    )
    assert len(printed.err.splitlines()) == 1
