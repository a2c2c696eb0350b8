"""The sets of pictures of `diffjax.evaluate`: real samples of networks of one line.

The stages are put in the place of trained ones, and an extractor of six means in that of a large
network; all else is the command's.
"""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from diffjax import evaluate
from diffjax.build.options import config
from diffjax.build.reports import matching, report
from diffjax.build.reports.loaded import Asked, Loaded, tell_of
from diffjax.build.reports.sets import drawing, flags, folder, opening, part, sweep
from diffjax.build.stages import places, priors
from diffjax.devices import mesh as mesh_lib
from diffjax.encoders.clip import encoder
from diffjax.evaluation import fid
from diffjax.evaluation.metrics import statistics
from diffjax.evaluation.metrics.diversity import diversity
from diffjax.evaluation.metrics.moments import moments_of
from diffjax.generation import rows
from diffjax.generation.jobs import Job
from diffjax.tasks.conditions import Embedding
from diffjax.tasks.vectors import IMAGE_VECTOR
from tests import tiny_cascade, tiny_prior
from tests.encoders.clip import small
from tests.evaluation import toys


@pytest.fixture(scope="module")
def cascade(tmp_path_factory):
    """Both stages, with the configs of a toy data set."""
    made = tiny_cascade.cascade(tmp_path_factory.mktemp("t5"))
    stages = []
    for stage, origin in zip(made.stages, made.origins, strict=True):
        options = config.load("configs/base64.py:tiny").copy_and_resolve_references().unlock()
        options.data.update(name="fake/24", size_px=stage.task.size_px)
        options.text.update(max_tokens=16)
        options.train.evaluate_examples = 8
        stages.append(Loaded(options, stage, origin, made.encoder))
    return stages


@pytest.fixture(scope="module")
def unclip(cascade, tmp_path_factory):
    """(the stages of a decoder and an upsampler, the first told by a prior; the whole chain)."""
    clip = encoder.load(small.write(tmp_path_factory.mktemp("clip") / "small"))
    told = Embedding(IMAGE_VECTOR, clip.width)
    made = tiny_cascade.cascade(tmp_path_factory.mktemp("t5"), told)
    made = dataclasses.replace(made, teller=tiny_prior.teller(made, clip))
    first, last = (
        dataclasses.replace(one, stage=stage)
        for one, stage in zip(cascade, made.stages, strict=True)
    )
    return [dataclasses.replace(first, teller=made.teller), last], made


@pytest.fixture(autouse=True)
def toys_in_place(cascade, unclip, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(mesh_lib, "sampling_devices", lambda: jax.local_devices()[:1])
    monkeypatch.setattr(opening, "open_extractor", lambda name: toys.extractor())
    monkeypatch.setattr(opening.clips, "load", lambda *where: toys.Words())
    monkeypatch.setattr(part, "not_installed", lambda asked: "")
    monkeypatch.setattr(places, "stage_dirs", lambda *where, flag: list(where))
    monkeypatch.setattr(matching, "only_clip", lambda where: False)
    monkeypatch.setattr(priors, "only_prior", lambda where: False)
    loaded = {"both": cascade, "base": cascade[:1], "unclip": unclip[0]}
    monkeypatch.setattr(report, "load", lambda where, *more: loaded[str(where[0])])


@pytest.fixture
def ask(tmp_path):
    """ask(words, ...) -> the report."""

    def run(*words, out="a.json", where="base"):
        path = tmp_path / out
        parts = () if where.startswith("folder:") else ("--parts", "sets")
        parts = () if "--sweep" in words else parts
        assert evaluate.main([where, *parts, "--out", str(path), *words]) == 0
        return json.loads(path.read_text())

    return run


@pytest.fixture
def refused(tmp_path, capsys):
    """refused(words, ...) -> the line of the refusal."""

    def run(*words, where="base"):
        out = () if "--out" in words else ("--out", str(tmp_path / "none.json"))
        assert evaluate.main([where, *out, *words]) == 2
        assert not (tmp_path / "none.json").exists()
        return capsys.readouterr().err

    return run


def asked(**options):
    return Asked(num=8, seed=0, split=None, classifier=Path("c"), **options)


def made_by(stages, seed, count=8):
    """The pictures of a set, sampled here."""
    mesh = mesh_lib.make_mesh(devices=jax.local_devices()[:1])
    prompts = drawing.prompts_of(stages, asked())
    drawn = drawing.draw([one.stage for one in stages], prompts, seed, mesh)
    return np.concatenate(list(drawn))[:count], np.concatenate(list(prompts.true()))


def test_the_numbers_are_of_the_pictures_that_the_stages_make(cascade, ask):
    found = ask("--num", "8", "--seed", "0,3", "--clip", "words")["sets"]
    sets = [made_by(cascade[:1], seed)[0] for seed in (0, 3)]
    features = [np.asarray(toys.halves({}, one)) for one in sets]
    real = np.asarray(toys.halves({}, made_by(cascade[:1], 0)[1]))
    wanted = [fid.distance(moments_of(rows), moments_of(real)) for rows in features]
    each = [one["fd_lite0"] for one in found["by_seed"]]
    np.testing.assert_allclose(each, wanted, rtol=1e-4)
    assert found["numbers"]["fd_lite0"] == pytest.approx(np.mean(wanted), rel=1e-4)
    assert found["deviation"]["fd_lite0"] == pytest.approx(np.std(wanted, ddof=1), rel=1e-3)
    spread = diversity(np.stack(features, axis=1)).mean()
    assert found["numbers"]["diversity"] == pytest.approx(spread, rel=1e-4)
    assert {"kid_lite0", "clip_score", "clip_score_real", "drift_red"} <= found["numbers"].keys()


def test_the_report_says_all_that_the_numbers_depend_on(ask, capsys):
    found = ask("--num", "8", "--seed", "5")
    sets = found["sets"]
    assert (sets["examples"], sets["seeds"], sets["split"]) == (8, [5], "validation")
    (stage,) = sets["stages"]
    assert stage["average"] == "decay_0.9"
    how = stage["settings"]
    assert (how["sampler"], how["num_steps"], how["guidance_weight"]) == ("ddpm", 2, 3.0)
    assert sets["extractor"] == {"name": "six means", "resize": "none", "features": 6}
    assert sets["statistics"]["made"]["count"] == sets["statistics"]["real"]["count"] == 8
    assert len(sets["statistics_hash"]) == 64
    assert "several seeds" in sets["left_out"]["diversity"]
    said = capsys.readouterr().out
    hashed = sets["statistics_hash"][:16]
    for words in ("8 pictures of fake/24 validation, seeds 5", "ddpm, 2 steps, guidance 3",
                  "average decay_0.9 of step 7", "six means, none", hashed):  # fmt: skip
        assert words in said


def test_the_same_words_give_the_same_numbers_and_another_seed_others(ask):
    first, again = ask("--num", "8"), ask("--num", "8", out="b.json")
    assert first == again
    other = ask("--num", "8", "--seed", "1", out="c.json")["sets"]
    assert other["numbers"] != first["sets"]["numbers"]
    assert other["statistics"]["real"] == first["sets"]["statistics"]["real"]


def test_a_cascade_is_judged_by_its_last_pictures(cascade, ask):
    found = ask("--num", "8", where="both")["sets"]
    assert found["size_px"] == 16
    assert len(found["stages"]) == 2
    made, true = made_by(cascade, 0)
    assert made.shape == true.shape == (8, 16, 16, 3)
    assert found["numbers"]["drift_blue"] == pytest.approx(
        made[..., 2].mean() - true[..., 2].mean()
    )


def test_a_stage_of_super_resolution_starts_from_true_small_pictures(cascade):
    made, true = made_by(cascade[1:], 0)
    small = true.reshape(8, 8, 2, 8, 2, 3).mean((2, 4))
    seen = made.reshape(8, 8, 2, 8, 2, 3).mean((2, 4))
    assert np.corrcoef(small.ravel(), seen.ravel())[0, 1] > 0.3


def test_pictures_of_all_seeds_have_noise_of_their_own(cascade, monkeypatch):
    """Also where the examples are read in several blocks, and calls are filled up."""
    given, real = [], drawing.generate

    def noted(stages, columns, *, seeds):
        given.append(np.asarray(seeds).tolist())
        return real(stages, columns, seeds=seeds)

    monkeypatch.setattr(drawing, "generate", noted)
    whole = [made_by(cascade[:1], seed, 7)[0] for seed in (0, 1)]
    one_each = [set(seeds) for seeds in given]
    assert one_each == [set(range(8)), {drawing.STRIDE + i for i in range(8)}]
    monkeypatch.setattr(opening, "BLOCK", 3)
    parts = made_by(cascade[:1], 1, 7)[0]
    np.testing.assert_allclose(parts.astype(int), whole[1].astype(int), atol=1)
    assert (whole[0] != whole[1]).any()


def test_few_pictures_have_no_distance_of_full_rank(ask):
    found = ask("--num", "6")["sets"]
    assert "fd_lite0" not in found["numbers"]
    assert "fd_lite0_of_6" in found["numbers"]
    assert found["left_out"]["fd_lite0"].endswith("it wants at least 7, --num 7")


def test_statistics_are_written_and_compared_with(ask, refused, tmp_path):
    file = tmp_path / "made.safetensors"
    first = ask("--num", "8", "--statistics", str(file))["sets"]
    assert statistics.load(file).pictures == first["statistics"]["made"]["pictures"]
    found = ask("--num", "8", "--against", str(file), out="b.json")["sets"]
    assert found["numbers"]["fd_lite0"] < 1e-9
    assert "kid_lite0" in found["left_out"]
    line = refused("--parts", "sets", "--num", "7", "--against", str(file))
    assert "is of 8 pictures, and 7 are to be compared" in line
    more = ask("--num", "7", "--against", str(file), "--any-count", out="c.json")["sets"]
    assert more["numbers"]["fd_lite0"] > 0
    assert "is there already" in refused("--parts", "sets", "--statistics", str(file))


@pytest.mark.parametrize("other", [{"name": "seven means"}, {"resize": "bicubic 9 px"}])
def test_statistics_of_other_networks_are_refused_before_anything_is_drawn(
    ask, refused, tmp_path, monkeypatch, other
):
    file = tmp_path / "made.safetensors"
    ask("--num", "8", "--statistics", str(file))
    monkeypatch.setattr(opening, "open_extractor", lambda name: toys.extractor(**other))
    monkeypatch.setattr(drawing, "draw", None)
    assert "cannot be compared" in refused("--parts", "sets", "--num", "8", "--against", str(file))


def test_another_source_stands_in_for_the_true_pictures(ask, refused):
    own = ask("--num", "8")["sets"]
    found = ask("--num", "8", "--against", "fake:30", out="b.json")["sets"]
    assert found["against"] == "fake:30"
    assert found["numbers"]["fd_lite0"] != own["numbers"]["fd_lite0"]
    whole = ask("--num", "8", "--against", "fake:30", "--any-count", out="c.json")["sets"]
    assert whole["statistics"]["real"]["count"] == 30
    line = refused("--parts", "sets", "--num", "8", "--against", "fake:5")
    assert "--num = 8: fake:5 has 5 pictures" in line
    assert "--against = 'nothing:5'" in refused("--parts", "sets", "--against", "nothing:5")


def test_all_true_pictures_of_the_split_are_compared_with_when_asked(ask):
    found = ask("--num", "8", "--any-count")["sets"]
    assert found["statistics"]["real"]["count"] == 24


def test_more_pictures_than_examples_are_refused(refused):
    line = refused("--parts", "sets", "--num", "25")
    assert "--num = 25: the split validation of fake/24 has 24: lower it" in line


def test_pictures_that_show_nothing_are_refused(refused, monkeypatch):
    flat = np.full((8, 8, 8, 3), 255, np.uint8)
    monkeypatch.setattr(drawing, "draw", lambda *given: iter([flat]))
    assert "made with seed 0: all 8 pictures are the same" in refused("--parts", "sets")


def test_numbers_that_are_not_finite_are_refused(refused, monkeypatch):
    nan = lambda *given, **more: [np.full((8, 8, 8, 3), np.nan, np.float32)]  # noqa: E731
    monkeypatch.setattr(drawing, "generate", nan)
    line = refused("--parts", "sets")
    assert "made, pictures 0 to 7 of seed 0: 1536 of 1536 numbers are not finite" in line


def test_drawings_of_emoji_are_scored_by_the_clip_that_ships_if_it_is_there(
    cascade, monkeypatch, tmp_path
):
    drawings = config.load("configs/base64.py:emoji")
    emoji = [dataclasses.replace(cascade[0], options=drawings)]
    monkeypatch.setitem(part.encoder.SHIPPED, "emoji", tmp_path)
    assert part.clip_of(emoji, asked()) == "shipped"
    assert part.clip_of(emoji, asked(clip="another")) == "another"
    assert part.clip_of(cascade, asked()) is None
    monkeypatch.setitem(part.encoder.SHIPPED, "emoji", tmp_path / "not there")
    assert part.clip_of(emoji, asked()) is None


def test_a_missing_extractor_leaves_the_part_out_unless_it_is_asked_for(
    cascade, monkeypatch, capsys
):
    monkeypatch.setattr(part, "not_installed", lambda asked: "lite0 is not installed")
    made = {name: report.Part(lambda *given: 1, lambda loaded: "") for name in report.PARTS}
    monkeypatch.setattr(report, "PARTS", made)
    assert "sets" not in report.report(cascade, asked())
    assert "no sets: lite0 is not installed" in capsys.readouterr().out
    assert "sets" in report.report(cascade, asked(), ["sets"])


# --- decoders that a prior tells vectors


def test_a_prior_tells_the_decoder_what_it_tells_it_in_sample(unclip):
    stages, whole = unclip
    mesh = mesh_lib.make_mesh(devices=jax.local_devices()[:1])
    prompts = drawing.prompts_of(stages, asked())
    drawn = drawing.draw(list(whole.stages), prompts, 2, mesh, tell_of(stages))
    made = np.concatenate(list(drawn)).astype(int)
    jobs = [Job(one, 2 * drawing.STRIDE + i) for i, one in enumerate(prompts.captions())]
    wanted = np.stack([pictures[-1] for pictures in rows.make(whole, jobs)]).astype(int)
    assert np.abs(made - wanted).max() <= 1  # the rounding of a batch
    by_text = dataclasses.replace(whole.teller, by="text", prior=None)
    others = rows.make(dataclasses.replace(whole, teller=by_text), jobs[:1])
    assert np.abs(next(iter(others))[-1].astype(int) - wanted[0]).max() > 5


def test_the_report_on_a_chain_with_a_prior_says_whose_it_is(ask, unclip, capsys):
    found = ask("--num", "8", where="unclip")
    names = ["prior", "small", "large"]
    assert [one["name"] for one in found["of"]] == names
    assert [one["name"] for one in found["sets"]["stages"]] == names
    assert found["of"][0]["clip"] == unclip[1].teller.clip.fingerprint
    assert (
        "prior: ddpm, 2 steps, guidance 1, average decay_0.9 of step 5" in capsys.readouterr().out
    )
    assert "a decoder's bound is of pictures whose vector is known" in report.PARTS["chain"].fault(
        unclip[0]
    )


def test_an_upsampler_that_is_told_no_text_follows_a_stage_that_is(cascade):
    small, large = cascade
    stages = [small, dataclasses.replace(large, encoder=None)]
    assert part.fault(stages) == ""
    assert "unequal encoders" in report.PARTS["chain"].fault(stages)


# --- sweeps

GRID = ("--sweep", "guidance=1,4", "--sweep", "steps=1,2", "--num", "8", "--clip", "words")


def test_a_sweep_has_a_row_for_each_combination_and_a_plot(ask, tmp_path):
    found = ask(*GRID)
    rows = found["sweep"]["rows"]
    points = [(row["at"]["guidance_weight"], row["at"]["num_steps"]) for row in rows]
    assert points == [(1.0, 1), (1.0, 2), (4.0, 1), (4.0, 2)]
    assert len({row["numbers"]["fd_lite0"] for row in rows}) == 4
    assert rows[3]["stages"][0]["settings"]["guidance_weight"] == 4.0
    single = ask("--num", "8", "--clip", "words", "--sweep", "guidance=3", out="b.json")
    (row,) = single["sweep"]["rows"]
    plain = ask("--num", "8", "--clip", "words", out="c.json")["sets"]
    assert row["numbers"] == plain["numbers"]  # 3 is the guidance of the stage
    assert np.asarray(Image.open(tmp_path / "a.png")).ndim == 3


def test_a_sweep_goes_on_where_it_was_stopped(ask, refused, tmp_path, monkeypatch):
    drawn, real = [], drawing.draw

    def stops(*given):
        drawn.append(given)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(drawing, "draw", stops)
    with pytest.raises(KeyboardInterrupt):
        ask(*GRID)
    begun = json.loads((tmp_path / "a.json").read_text())["sweep"]["rows"]
    assert len(begun) == 2
    found = ask(*GRID)["sweep"]["rows"]
    assert found[:2] == begun
    assert len(drawn) == 5  # of the four rows, two were not made again
    more = ask("--sweep", "guidance=2", "--sweep", "steps=1", *GRID[4:])["sweep"]["rows"]
    assert more[:4] == found
    assert len(more) == 5
    words = ("--out", str(tmp_path / "a.json"))
    assert "is not this sweep" in refused(*words, "--sweep", "guidance=2", *GRID[4:])
    assert "is not this sweep" in refused(*words, *GRID, "--seed", "3")
    (tmp_path / "a.json").write_text("{")
    assert "is not this sweep" in refused(*words, *GRID)
    assert len(ask(*GRID, "--overwrite")["sweep"]["rows"]) == 4


def test_noise_on_the_small_picture_is_of_stages_that_have_one(cascade):
    small, large = sweep.at(cascade, {"aug_level": 0.3, "num_steps": 4})
    assert (small.stage.settings.aug_level, large.stage.settings.aug_level) == (0.1, 0.3)
    assert small.stage.settings.num_steps == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("guidance", "want NAME=VALUE,VALUE with a NAME of steps, guidance,"),
        ("colour=1", "want NAME=VALUE,VALUE"),
        ("steps=4,x", "a whole number from 1 to 10000"),
        ("sampler=none", "allowed: "),
        ("guidance=1,1", "has a value twice"),
        ("aug=2", "a number from 0 to 1"),
        ("sampler=ddpm_learned", "needs a learned variance"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(refused, text, words):
    assert words in refused("--sweep", text)


def test_an_axis_is_given_once(refused):
    assert "is swept twice" in refused("--sweep", "aug=0", "--sweep", "aug-level=0.1")


# --- pictures that are there already


@pytest.fixture
def shown(tmp_path):
    """folder:DIR with pictures and their captions."""
    here = tmp_path / "pictures"
    here.mkdir()
    for i, picture in enumerate(toys.pictures(12)):
        Image.fromarray(picture).save(here / f"{i:02}.png")
        (here / f"{i:02}.txt").write_text(f"{'rgb'[i % 3] * i} picture")
    return f"folder:{here}"


def test_a_folder_is_compared_with_a_source(ask, shown):
    found = ask("--against", "fake:24", "--clip", "words", where=shown)["sets"]
    assert (found["examples"], found["against"]) == (12, "fake:24")
    assert {"fd_lite0", "kid_lite0", "clip_score", "r_precision"} <= found["numbers"].keys()
    some = ask("--against", "fake:24", "--num", "8", out="b.json", where=shown)["sets"]
    assert some["statistics"]["real"]["count"] == 8
    split = ask("--against", "fake:24", "--split", "test", out="c.json", where=shown)["sets"]
    assert split["numbers"]["fd_lite0"] != found["numbers"]["fd_lite0"]


def test_a_folder_against_its_own_statistics_is_at_no_distance(ask, shown, tmp_path):
    file = tmp_path / "own.safetensors"
    ask("--statistics", str(file), where=shown)
    found = ask("--against", str(file), out="b.json", where=shown)["sets"]
    assert found["numbers"]["fd_lite0"] < 1e-9


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name the real pictures by --against"),
        (("--against", "fake:24", "--num", "13"), "--num = 13: "),
        (("--against", "fake:24", "--seed", "1"), "--seed = '1': the pictures are there already"),
        (("--against", "fake:24", "--sweep", "steps=2"), "--sweep = 'steps=2': the pictures are"),
        (("--against", "fake:24", "--ema", "live"), "--ema = 'live': the pictures are there"),
        (("--against", "fake:24", "--parts", "sets"), "--parts = 'sets': the pictures are there"),
        (("--against", "fake:24", "--classifier", "c"), "--classifier = 'c': the pictures"),
        (("--clip", "words", "--any-count"), "--any-count = True: is of --against"),
        (("--clip", "words", "--split", "test"), "--split = 'test': is of --against"),
        (("--against", "other.npz"), "does not say of which pictures, extractor and resize"),
        (("--against", "fake:7"), "--num = 12: fake:7 has 7 pictures"),
    ],
)
def test_what_a_folder_cannot_be_asked_is_refused(refused, shown, words, said):
    assert said in refused(*words, where=shown)


def test_pictures_of_several_sizes_and_broken_ones_are_refused_by_name(refused, shown):
    here = shown.removeprefix("folder:")
    Image.fromarray(toys.pictures(1, side=10)[0]).save(f"{here}/05.png")
    line = refused("--against", "fake:24", where=shown)
    assert "05.png is 10 x 10 px, 00.png is 8 x 8 px: pictures of a set must have one size" in line
    with open(f"{here}/05.png", "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
    assert "05.png: " in refused("--against", "fake:24", where=shown)


def test_only_a_kind_of_source_with_a_colon_is_a_source(tmp_path):
    assert folder.is_source(tmp_path.relative_to(tmp_path) / "folder:x")
    assert not folder.is_source(tmp_path / "folder")
    assert not folder.is_source(tmp_path / "c:x")


# --- flags that do not go together


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--parts", "chain", "--clip", "words"), "--clip = 'words': is of the part sets"),
        (("--parts", "chain", "--extractor", "clip:a"), "--extractor = 'clip:a': is of the part"),
        (("--parts", "chain", "--any-count"), "--any-count = 'True': is of the part sets"),
        (("--parts", "stages", "--sweep", "steps=2"), "--sweep = 'steps=2': is of the part sets"),
        (("--parts", "sets,chain", "--sweep", "steps=2"), "a sweep has sets alone"),
        (("--statistics", "a.safetensors", "--sweep", "steps=2"), "a sweep makes a set for each"),
        (("--statistics", "a.npz"), "--statistics = 'a.npz': must end with .safetensors"),
        (("--seed", "0,0"), "--seed = '0,0': names a seed twice"),
        (("--seed", "x"), "--seed = 'x': numbers from 0 to 2147483647, as 3 or 0,5 or 0-7"),
    ],
)
def test_flags_without_an_effect_are_refused(refused, words, said):
    assert said in refused(*words)


def test_seeds_are_read_as_those_of_sampling():
    assert flags.seeds_of(None) == ()
    assert flags.seeds_of("3") == (3,)
    assert flags.seeds_of("0-2,7") == (0, 1, 2, 7)
