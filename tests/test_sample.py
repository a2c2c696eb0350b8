"""The command, with a cascade that compiles at once; with real networks in test_end_to_end."""

import dataclasses
import json
import os
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffjax import sample
from diffjax.build.guides import clips
from diffjax.build.stages import loading
from diffjax.generation import best, folder, rows
from diffjax.images import film, png
from tests import tiny_cascade
from tests.encoders.clip import small
from tests.images.crafted import crafted, ours

NASTY = ["../../x", "/etc/passwd", "..", ".", "\0", "a\nb", "a/b\\c", "🍏" * 40, "x" * 5000, "",
         "%s{0}$(id)`id`", "con", "grid", "-", "\x1b[31m", "a" * 300 + "/../b"]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tiny_cascade.cascade(tmp_path_factory.mktemp("t5"))


@pytest.fixture
def command(whole, tmp_path, monkeypatch, capsys):
    """command(*flags) -> (exit code, stdout, stderr); its pictures go to tmp_path/out."""
    loaded = {"cascade": whole}

    def load(dirs, ema=None, verify="full", steps=None):
        cascade = loaded["cascade"]
        count = len(dirs)
        return dataclasses.replace(
            cascade, stages=cascade.stages[:count], origins=cascade.origins[:count]
        )

    monkeypatch.setattr(loading, "load", load)
    monkeypatch.setattr("diffjax.devices.mesh.keep_compilations", lambda: None)

    def run(*flags, cascade=whole, out="out"):
        loaded["cascade"] = cascade
        code = sample.main(["--stages", "a,b", "--out", str(tmp_path / out), *map(str, flags)])
        return code, *capsys.readouterr()

    return run


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_picture_says_what_it_was_made_of_and_is_made_again(command, tmp_path):
    asked = [
        "--prompt",
        "a red apple",
        "--prompt",
        "🍏 \0",
        "--seeds",
        "3-4",
        "--negative",
        "pears",
    ]
    code, out, err = command(*asked, "--guidance", "4,2", "--sampler", "ddim", "--steps", "3,2")
    assert (code, err.splitlines()[-1].split(",")[0]) == (0, "4 of 4 pictures")
    like = tmp_path / "out" / "0003_seed4_16px.png"
    found = png.read_metadata(like)
    assert (found["prompt"], found["negative"], found["seed"]) == ("🍏 \0", "pears", 4)
    assert [stage["settings"]["num_steps"] for stage in found["stages"]] == [3, 2]
    code, out, _ = command("--like", like, out="again")
    assert code == 0
    assert (
        f"{tmp_path / 'again' / '0000_seed4_16px.png'}: the same as {like}, in every pixel" in out
    )
    assert contents(tmp_path / "again")["0000_seed4_16px.png"] == like.read_bytes()
    assert (
        contents(tmp_path / "again")["0000_seed4_8px.png"]
        == (tmp_path / "out" / "0003_seed4_8px.png").read_bytes()
    )


def test_a_picture_of_several_prompts_says_their_shares_and_is_made_again(command, tmp_path):
    asked = ["--prompt", "a red apple", "--and", "a pear:0.5", "--and", "worms:-1"]
    assert command(*asked)[0] == 0
    like = tmp_path / "out" / "0000_seed0_16px.png"
    found = png.read_metadata(like)
    assert found["also"] == [["a pear", 0.5], ["worms", -1.0]]
    code, out, _ = command("--like", like, out="again")
    assert (code, "in every pixel" in out) == (0, True)
    assert (tmp_path / "again" / like.name).read_bytes() == like.read_bytes()
    assert command("--prompt", "a red apple", out="alone")[0] == 0
    alone = tmp_path / "alone" / like.name
    assert "also" not in png.read_metadata(alone)
    assert (png.read(alone) != png.read(like)).any()
    code, _, err = command("--prompt", "a red apple")
    assert (code, "is a picture of another list of prompts" in err) == (2, True)


def test_the_picture_of_an_early_stage_is_made_by_the_early_stages_alone(command, tmp_path):
    assert command("--prompt", "x")[0] == 0
    code, out, _ = command("--like", tmp_path / "out" / "0000_seed0_8px.png", out="again")
    assert (code, "in every pixel" in out) == (0, True)
    assert sorted(contents(tmp_path / "again")) == ["0000_seed0_8px.png", "grid.png"]


def test_flags_beside_like_change_what_they_name(command, tmp_path):
    assert command("--prompt", "x", "--guidance", "5")[0] == 0
    like = tmp_path / "out" / "0000_seed0_16px.png"
    code, out, _ = command("--like", like, "--seeds", "1-2", out="again")
    assert (code, "other settings" in out) == (0, True)
    found = png.read_metadata(tmp_path / "again" / "0001_seed2_16px.png")
    assert (found["prompt"], found["seed"]) == ("x", 2)
    assert found["stages"][1]["settings"]["guidance_weight"] == 5


def test_a_picture_that_is_edited_is_said_to_differ(command, tmp_path):
    assert command("--prompt", "x")[0] == 0
    path = tmp_path / "out" / "0000_seed0_16px.png"
    picture = png.read(path).copy()
    picture[3, 4, 1] ^= 64
    metadata = png.read_metadata(path) | {
        "made_with": {"diffjax": "0.0.1", "jax": "0.1", "platform": "tpu"}
    }
    png.write(tmp_path / "edited.png", picture, metadata)
    code, out, _ = command("--like", tmp_path / "edited.png", out="again")
    assert code == 0
    assert "1 of 768 values differ" in out
    assert "by at most 64 of 255" in out
    assert "platform tpu then, cpu now" in out


def test_another_checkpoint_is_told_from_the_one_that_made_it(command, whole, tmp_path):
    assert command("--prompt", "x")[0] == 0
    like = tmp_path / "out" / "0000_seed0_16px.png"
    origins = (whole.origins[0], dataclasses.replace(whole.origins[1], step=9, checkpoint="f" * 64))
    other = dataclasses.replace(whole, origins=origins)
    code, _, err = command("--like", like, cascade=other, out="again")
    assert code == 2
    assert "'large step 7 decay_0.9 111111111111': made the picture" in err
    assert "here is another checkpoint: large step 9 decay_0.9 ffffffffffff" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "again").exists()
    code, out, _ = command("--like", like, "--anyway", cascade=other, out="again")
    assert (code, "other settings" in out) == (0, True)


def test_a_batch_that_was_cut_off_goes_on(command, tmp_path, monkeypatch):
    asked = ["--prompt", "x", "--prompt", "y", "--seeds", "0-1"]
    assert command(*asked, out="whole")[0] == 0
    made, make = [], rows.make

    def cut_off(cascade, jobs):
        for i, pictures in enumerate(make(cascade, jobs)):
            if i == 2:
                raise OSError("the power went")
            made.append(jobs[i])
            yield pictures

    with monkeypatch.context() as patch:
        patch.setattr(rows, "make", cut_off)
        assert command(*asked)[0] == 2
    assert len(contents(tmp_path / "out")) == 4
    (tmp_path / "out" / "0001_seed1_8px.png").unlink()  # cut off between two files
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    monkeypatch.setattr(rows, "make", lambda c, jobs: (made.append(len(jobs)), make(c, jobs))[1])
    code, _, err = command(*asked)
    assert code == 0
    assert made[-1] == 3
    assert "4 of 4 pictures" in err
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert command(*asked)[0] == 0
    assert made[-1] == 0  # nothing is left to do


@pytest.fixture
def judged(monkeypatch):
    """A CLIP that likes bright pictures; how often it was asked."""
    asked = []

    def score(prompt, picture):
        asked.append(prompt)
        return float(picture.mean()) / 255

    monkeypatch.setattr(clips, "load", lambda where, **more: small.fake())
    monkeypatch.setattr(clips, "named_by", lambda dirs: "shipped")
    monkeypatch.setattr(best, "scorer", lambda clip: score)
    return asked


def test_of_several_candidates_the_best_is_kept_and_made_again_without_the_others(
    command, judged, tmp_path
):
    assert command("--prompt", "a red apple", "--seeds", "3-4", "--best-of", "4")[0] == 0
    assert len(judged) == 8
    names = ["0000_seed3_16px.png", "0000_seed3_8px.png", "0001_seed4_16px.png"]
    assert sorted(contents(tmp_path / "out"))[:3] == names
    every = ",".join(map(str, best.seeds_of(4, 4)))
    assert command("--prompt", "a red apple", "--seeds", every, out="every")[0] == 0
    all_four = {
        png.read(path).mean(): path for path in sorted((tmp_path / "every").glob("*_16px.png"))
    }
    kept = tmp_path / "out" / "0001_seed4_16px.png"
    found, alone = png.read_metadata(kept), png.read_metadata(all_four[max(all_four)])
    assert (png.read(kept) == png.read(all_four[max(all_four)])).all()
    chosen = found.pop("chosen")
    assert found == alone
    assert chosen == {"seed": 4, "of": 4, "clip": "c" * 64, "score": max(all_four) / 255}
    judged.clear()
    code, out, _ = command("--like", kept, out="again")
    assert (code, "in every pixel" in out, judged) == (0, True, [])


def test_a_choice_that_was_cut_off_goes_on_and_what_was_chosen_is_not_chosen_again(
    command, judged, tmp_path
):
    asked = ["--prompt", "x", "--prompt", "y", "--best-of", "3"]
    assert command(*asked)[0] == 0
    whole_run = contents(tmp_path / "out")
    for name in ("0000_seed0_16px.png", "0001_seed0_8px.png", "0001_seed0_16px.png", "grid.png"):
        (tmp_path / "out" / name).unlink()
    judged.clear()
    assert command(*asked)[0] == 0
    assert contents(tmp_path / "out") == whole_run
    assert judged == ["y"] * 3
    for other in (["--best-of", "2"], []):
        code, _, err = command("--prompt", "x", "--prompt", "y", *other)
        assert code == 2
        assert "is a picture of another" in err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--best-of", "0"], "must be from 1 to 1000"),
        (["--best-of", "1001"], "must be from 1 to 1000"),
        (["--clip", "runs/clip"], "has no effect without --best-of"),
        (["--best-of", "2", "--prompt", " "], "one is blank"),
        (["--best-of", "2", "--clip", "/absent"], "neither a folder, a file, nor a name"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused_in_one_line(flags, words, command):
    code, _, err = command("--prompt", "x", *flags)
    assert (code, words in err, err.count("\n")) == (2, True, 1)


def test_what_a_killed_process_left_half_written_goes_and_nothing_else(command, tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / "out").mkdir()
    half = [f".0000_seed7_16px.png.{gone.pid}.tmp", f".grid.png.{gone.pid}.tmp"]
    kept = [f".0000_seed7_16px.png.{os.getpid()}.tmp", f".mine.{gone.pid}.tmp", ".0000_seed7.tmp"]
    for name in (*half, *kept):
        (tmp_path / "out" / name).write_text("half")
    assert command("--prompt", "x")[0] == 0
    hidden = {name for name in contents(tmp_path / "out") if name.startswith(".")}
    assert hidden == set(kept)


def flipped(path):
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: p.write_text("a letter"), "is not a PNG"),
        (lambda p: p.write_bytes(p.read_bytes()[:-9]), "is cut off"),
        (flipped, "is damaged"),
        (lambda p: png.write(p, np.zeros((16, 16, 3), np.uint8)), "is a picture of another"),
        (lambda p: (p.unlink(), p.mkdir()), "is a folder"),
        (lambda p: (p.unlink(), p.symlink_to("nowhere")), "is there already"),
    ],
)
def test_what_else_is_there_is_an_error_and_stays(spoil, words, command, tmp_path):
    assert command("--prompt", "x")[0] == 0
    path = tmp_path / "out" / "0000_seed0_16px.png"
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    code, _, err = command("--prompt", "x")
    assert code == 2
    assert f"{path}" in err
    assert words in err
    assert err.count("\n") == 1
    assert (path.read_bytes() if path.is_file() else None) == before
    code, _, err = command("--prompt", "x", "--overwrite")
    assert code == (2 if words == "is a folder" else 0)
    if code == 0:
        png.check_whole(path)
        assert not path.is_symlink()


def test_other_prompts_do_not_overwrite_those_that_are_there(command, tmp_path):
    assert command("--prompt", "x")[0] == 0
    before = contents(tmp_path / "out")
    code, _, err = command("--prompt", "y")
    assert code == 2
    assert "is a picture of another prompt; --overwrite replaces it" in err
    code, _, err = command("--prompt", "x", "--no-metadata")
    assert code == 2
    assert "without metadata nothing tells what it is" in err
    assert contents(tmp_path / "out") == before
    assert command("--prompt", "y", "--overwrite")[0] == 0
    assert contents(tmp_path / "out") != before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "grid.png").write_text("mine")
    assert command("--prompt", "x", out="other")[0] == 2
    assert contents(tmp_path / "other") == {"grid.png": b"mine"}


def test_without_metadata_a_picture_says_nothing(command, tmp_path):
    assert command("--prompt", "x", "--no-metadata", "--film")[0] == 0
    for path in (tmp_path / "out").glob("*.png"):
        assert png.read_metadata(path) is None
    assert film.read_metadata(tmp_path / "out" / "0000_seed0.gif") is None
    code, _, err = command("--like", tmp_path / "out" / "0000_seed0_16px.png", out="again")
    assert code == 2
    assert "do not say what it was made of" in err


@pytest.mark.slow
def test_a_film_is_made_of_every_picture_and_kept(command, tmp_path):
    asked = ["--prompt", "x", "--seeds", "0-1", "--film", "--steps", "4"]
    assert command(*asked)[0] == 0
    names = sorted(contents(tmp_path / "out"))
    assert [n for n in names if not n.endswith(".png")] == [
        "0000_seed0.gif", "0000_seed0.webp", "0001_seed1.gif", "0001_seed1.webp",
    ]  # fmt: skip
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "0001_seed1.gif").unlink()
    assert command(*asked)[0] == 0
    assert contents(tmp_path / "out") == before


def test_no_path_host_or_secret_gets_into_a_file(command, tmp_path, monkeypatch):
    import socket

    monkeypatch.setenv("HF_TOKEN", "hf_thisIsASecret0123")
    monkeypatch.setenv("WANDB_API_KEY", "anotherSecret0123")
    assert command("--prompt", "x", "--film")[0] == 0
    secrets = [b"thisIsASecret", b"anotherSecret", str(tmp_path).encode(), b"/tmp", b"/root"]
    secrets += [name.encode() for name in (socket.gethostname(),) if len(name) > 3]
    for name, data in contents(tmp_path / "out").items():
        assert not [secret for secret in secrets if secret in data], name


def test_a_picture_without_pixels_is_made_and_not_compared(command, tmp_path):
    assert command("--prompt", "x")[0] == 0
    text = json.dumps(png.read_metadata(tmp_path / "out" / "0000_seed0_16px.png")).encode()
    like = forged(tmp_path / "empty.png", text=text)
    code, out, _ = command("--like", like, out="again")
    assert (code, "cannot be compared" in out) == (0, True)
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


def forged(path, *, size=(16, 16), text=None):
    return crafted(path, *([] if text is None else [ours(text)]), size=size)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p, _: None, "no such file"),
        (lambda p, _: p.mkdir(), "no such file"),
        (lambda p, _: p.write_bytes(b"GIF89a"), "is not a PNG"),
        (lambda p, _: forged(p), "do not say what it was made of"),
        (lambda p, text: forged(p, size=(1, 1), text=text), "is 1 x 1 px and says 16 x 16"),
        (lambda p, text: forged(p, size=(13_000, 13_000), text=text), "its header says 13000 x"),
        (lambda p, _: forged(p, text=b"{}"), "metadata: lacks format"),
        (lambda p, text: forged(p, text=text.replace(b'"seed": 0', b'"seed": -1')), "seed: want"),
        (
            lambda p, text: forged(p, text=text.replace(b"decay_0.9", b"/etc/a.safetensors", 1)),
            "average: want",
        ),
        (lambda p, text: forged(p, text=text.replace(b"0" * 64, b"e" * 64)), "another checkpoint"),
        (lambda p, text: forged(p, text=text.replace(b'"small"', b'"other"')), "here is small, 8"),
        (lambda p, text: crafted(p, ours(bytes(3 * 10**7), packed=True)), "is too long"),
    ],
)
def test_a_forged_picture_ends_in_one_line_and_writes_nothing(make, words, command, tmp_path):
    assert command("--prompt", "x", out="true")[0] == 0
    metadata = png.read_metadata(tmp_path / "true" / "0000_seed0_16px.png")
    text = json.dumps(metadata).encode()
    make(tmp_path / "forged.png", text)
    code, out, err = command("--like", tmp_path / "forged.png")
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert len(err) < 600
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--prompt = '': give at least one prompt"),
        (["--prompt", "x" * 10_001], "10001 characters, at most 10000"),
        (["--prompt", "\udcff"], "not valid Unicode"),
        (["--prompt", "x", "--negative", "y" * 10_001], "--negative"),
        (["--prompt", "x", "--negative", "y", "--guidance", "1"], "has no effect without guid"),
        (["--prompt", "x", "--steps", "3,3,3"], "one value, or 2 with commas"),
        (["--prompt", "x", "--and", "y:99"], "--and = 'y:99': a share from -10 to 10"),
        (["--prompt", "x", *["--and", "y"] * 5], "--and = 5: at most 4"),
        (["--prompt", "x", "--and", "y", "--guidance-rescale", "0.5"], "must be 0 beside --and"),
        (["--prompt", "x", "--out", __file__], "is not a folder"),
    ],
)
def test_bad_input_ends_with_one_line_and_code_2(flags, words, command):
    code, out, err = command(*flags)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("a red apple", "a red apple"),
        ("a\n b\0c\x1b[31m", "a b c [31m"),
        ("x" * 40, f"{'x' * 18} {'x' * 18} xxxx"),
        ("", ""),
        ("word " * 100, ("word " * 100)[:156] + " ..."),
    ],
)
def test_a_caption_is_printable_and_breaks_long_words(prompt, shown):
    assert folder.caption(prompt) == shown


class Painted:
    """Pictures of one colour each, at once."""

    def __init__(self):
        self.count = 0

    def __call__(self, cascade, jobs):
        for _ in jobs:
            self.count += 1
            colour = np.array([self.count % 256, self.count // 256, 7], np.uint8)
            yield [np.broadcast_to(colour, (px, px, 3)) for px in (8, 16)]


@settings(max_examples=25, deadline=None)
@given(
    prompts=st.lists(
        st.sampled_from(NASTY)
        | st.text(min_size=1, max_size=60)
        | st.text(alphabet="./\\\0\n ~", min_size=1, max_size=30),
        min_size=20,
        max_size=24,
    ),
    data=st.data(),
)
def test_names_come_from_numbers_alone(whole, tmp_path_factory, prompts, data):
    """Whatever the prompts: all inside --out, no two alike, and what was there is not touched."""
    folder = tmp_path_factory.mktemp("names")
    (folder / "bystander").write_text("kept")
    out = folder / "out"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    seed = data.draw(st.integers(0, 2**31 - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load", lambda *args: whole)
        patch.setattr(rows, "make", Painted())
        patch.setattr("os.fsync", lambda descriptor: None)
        flags = [f"--prompt={prompt}" for prompt in prompts]
        flags += ["--stages", "a,b", "--seeds", str(seed), "--out", str(out)]
        assert sample.main(flags) == 0
    names = {f"{i:04d}_seed{seed}_{px}px.png" for i in range(len(prompts)) for px in (8, 16)}
    assert set(contents(out)) == names | {"grid.png", "mine.txt"}
    assert sorted(path.name for path in folder.iterdir()) == ["bystander", "out"]
    assert (folder / "bystander").read_text() == (out / "mine.txt").read_text() == "kept"
    for i in range(len(prompts)):
        red, green, _ = np.asarray(Image.open(out / f"{i:04d}_seed{seed}_16px.png"))[0, 0]
        assert int(red) + 256 * int(green) == i + 1


def test_a_sheet_shows_the_first_hundred_pictures(command, tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "TILE_PX", (8, 8))
    for out, seeds in (("few", "0-99"), ("many", "0-100")):
        monkeypatch.setattr(rows, "make", Painted())
        assert command("--prompt", "x", "--seeds", seeds, out=out)[0] == 0
    assert len(contents(tmp_path / "many")) == 2 * 101 + 1
    few, many = (png.read(tmp_path / out / folder.SHEET) for out in ("few", "many"))
    np.testing.assert_array_equal(many, few)
