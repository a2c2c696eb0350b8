"""What the page makes of a visitor's pictures with a decoder of vectors, without Gradio."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffjax import edit
from diffjax.app import __main__ as command
from diffjax.app import answers, edits, programs, uploads
from diffjax.app.answers import Studio
from diffjax.app.followers import Followers
from diffjax.app.limits import Told
from diffjax.app.room import Room
from diffjax.app.values import Refused
from diffjax.build.stages import decoders, loading
from diffjax.core.errors import ConfigError
from diffjax.encoders.clip import encoder
from diffjax.images import film, png
from diffjax.tasks.conditions import Embedding
from tests import tiny_cascade
from tests.app.test_app import HUGE, bomb, saved
from tests.encoders.clip import small

COLOURS = np.random.default_rng(0).integers(0, 256, (20, 16, 3), np.uint8)
TURNED = COLOURS[::-1].copy()
# The values of the controls, but for pictures.
GOOD = {
    "variations": {"eta": 0.5, "new_seed": False, "seed": 3, "steps": 3, "count": 2},
    "interpolation": {"frames": 3, "new_seed": False, "seed": 3, "steps": 3},
    "diff": {"shows": "a red apple", "shall": "a green pear", "theta": 0.5, "frames": 3,
             "new_seed": False, "seed": 3, "steps": 3},
}  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return encoder.load(small.write(tmp_path_factory.mktemp("clip") / "small"))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    told = Embedding("image_vector", small.CONFIG.embed)
    return tiny_cascade.cascade(tmp_path_factory.mktemp("t5"), told)


@pytest.fixture
def studio(decoder, clip, tmp_path):
    """One that keeps its files in `tmp_path`/room."""
    (tmp_path / "room").mkdir()
    return Studio(decoder, Room(tmp_path / "room"), Followers(), clip=clip)


def values(studio, kind, **changes):
    """What the controls send for a kind of edit, and an empty session."""
    pictures = [saved(studio.room.folder, "a.png", COLOURS)]
    if kind == "interpolation":
        pictures.append(saved(studio.room.folder, "b.png", TURNED))
    return [*pictures, *{**GOOD[kind], **changes}.values(), []]


def answered(studio, kind, **changes):
    """The last pictures of each stage that the page shows, and what the visitor has."""
    views = list(answers.edit(studio, None, values(studio, kind, **changes), kind=kind))
    assert (views[0].seed, views[-1].told) == (3, answers.DONE)
    shown = [view.stages for view in views if view.stages is not None][-1]
    return [[Path(path) for path, _ in stage] for stage in shown], views[-1].kept


@pytest.fixture
def commanded(decoder, clip, tmp_path, monkeypatch):
    """commanded(words of a command) -> the files of `diffjax.edit` by name."""
    for name, pixels in (("a", COLOURS), ("b", TURNED)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    monkeypatch.setattr(loading, "load", lambda dirs, ema, verify: decoder)
    monkeypatch.setattr(loading, "stage_dirs", lambda workdir, stages: [])
    monkeypatch.setattr(decoders, "clip_of", lambda dirs: clip)

    def call(line, *more):
        words = [word.format(f=tmp_path) for word in line.split()]
        out = tmp_path / "out"
        assert (
            edit.main([*words, *more, "--steps", "3,2", "--workdir", "w", "--out", str(out)]) == 0
        )
        return {path.name: path for path in out.iterdir()}

    return call


def test_variations_are_the_files_of_the_command_byte_for_byte(studio, commanded):
    stages, kept = answered(studio, "variations")
    made = commanded("variations --picture {f}/a.png --seeds 3,4 --noise 0.5,0.0")
    for px, paths in zip((8, 16), stages, strict=True):
        for seed, path in zip((3, 4), paths, strict=True):
            assert path.read_bytes() == made[f"variations_seed{seed}_{px}px.png"].read_bytes()
    assert [one.caption for one in kept] == ["variation (4)", "variation (3)"]
    assert answers.last_picture(kept) == str(stages[1][1])


def test_a_film_between_two_pictures_has_the_frames_of_the_command_and_stands_before_them(
    studio, commanded
):
    (small_, (whole, *frames)), kept = answered(studio, "interpolation")
    made = commanded(
        "interpolate --picture {f}/a.png --picture {f}/b.png --frames 3 --png --pace prompt "
        "--seeds 3"
    )
    for i, path in enumerate(frames):
        assert path.read_bytes() == made[f"interpolate_000{i}_16px.png"].read_bytes()
    assert len(small_) == 3
    with Image.open(whole) as shown:
        assert (shown.format, shown.n_frames) == ("WEBP", 4)  # and back
    assert film.read_metadata(whole) == png.read_metadata(frames[-1])
    assert [one.caption for one in kept] == ["film (3)"]
    assert answers.shelf(kept) == [(str(whole), "film (3)")]
    assert answers.last_picture(kept) == str(frames[-1])
    answers.forget(kept)
    assert {path.name for path in studio.room.folder.iterdir()} == {"a.png", "b.png"}


@pytest.mark.slow
def test_a_text_diff_has_the_frames_of_the_command(studio, commanded):
    (_, (_, *frames)), _ = answered(studio, "diff")
    texts = ("--prompt", "a red apple", "--prompt", "a green pear")
    made = commanded("diff --picture {f}/a.png --frames 3 --png --seeds 3", *texts)
    files = [made[f"diff_000{i}_16px.png"] for i in range(3)]
    for path, file in zip(frames, files, strict=True):
        assert path.read_bytes() == file.read_bytes()


BAD = [
    *[("variations", "eta", x) for x in (-0.25, 1.25, 0.3, None, "1", float("nan"), HUGE, True)],
    *[("variations", "count", x) for x in (0, 5, 1.5, None)],
    *[("variations", "seed", x) for x in (-1, 2**31 - 1, None)],
    *[("variations", "steps", x) for x in (0, 251, "3")],
    *[("interpolation", "frames", x) for x in (2, 25, 3.5, None, HUGE)],
    *[("interpolation", "new_seed", x) for x in (None, 1, "yes")],
    *[("diff", "theta", x) for x in (0, 1.125, 0.3, None)],
    *[("diff", "shows", x) for x in ("", "  ", None, 3, "x" * 10_001, "\ud800")],
    *[("diff", "shall", x) for x in ("", [], {})],
]


@pytest.mark.parametrize(("kind", "name", "value"), BAD)
def test_a_value_that_is_not_allowed_is_refused_in_one_line_before_anything_is_drawn(
    kind, name, value, studio
):
    with pytest.raises(Refused) as refused:
        next(answers.edit(studio, None, values(studio, kind, **{name: value}), kind=kind))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 120


def test_a_picture_that_is_none_or_lies_elsewhere_is_refused_in_one_line(studio, tmp_path):
    folder = studio.room.folder
    (folder / "letter.png").write_text("dear")
    desk, rest = edits.Desk(folder, Told()), [1.0, False, 0, 2, 1]
    for sent, words in (
        (None, "picture: upload one"),
        (3, "want an uploaded file"),
        ({"path": None}, "want an uploaded file"),
        (saved(tmp_path, "outside.png", COLOURS), "is no longer here"),
        ({"path": "/etc/passwd"}, "is no longer here"),
        ({"path": str(folder / "letter.png")}, "not a picture"),
        (bomb(folder / "bomb.png"), "16 million"),
    ):
        with pytest.raises(Refused, match=words) as refused:
            desk.variations(sent, *rest)
        assert "\n" not in str(refused.value)
        assert str(tmp_path) not in str(refused.value)
    with pytest.raises(Refused, match="second picture: upload one"):
        desk.interpolation(saved(folder, "a.png", COLOURS), None, 3, False, 0, 2)
    assert uploads.picture("x", saved(folder, "a.png", COLOURS), folder).shape == (20, 16, 3)


def test_two_texts_that_mean_the_same_are_refused_in_one_line(studio):
    asked = values(studio, "diff", shall="A red  apple")
    with pytest.raises(Refused, match=r"^what it shall show: means the same"):
        list(answers.edit(studio, None, asked, kind="diff"))


def test_without_a_decoder_nothing_is_made_and_a_visitor_who_left_is_not_drawn_for(
    studio, tmp_path
):
    asked = values(studio, "variations")
    with pytest.raises(Refused, match="without a decoder"):
        next(answers.edit(dataclasses.replace(studio, clip=None), None, asked, kind="variations"))
    with pytest.raises(Refused, match="You have left"):
        next(answers.edit(studio, "gone", asked, kind="variations"))
    assert decoders.seeing_clip(tiny_cascade.cascade(tmp_path / "t5"), []) is None


def test_a_decoder_whose_clip_is_gone_is_served_without_these_edits_after_a_warning(
    decoder, monkeypatch, capsys
):
    def gone(dirs):
        raise ConfigError("vectors.clip", "clip:gone", "is not there")

    monkeypatch.setattr(decoders, "clip_of", gone)
    assert command.seeing(decoder, []) is None
    warned = capsys.readouterr().err
    assert warned.startswith("warning: no variations, films and text diffs of pictures: ")
    assert len(warned.splitlines()) == 1


@pytest.mark.slow
def test_a_page_of_a_decoder_compiles_what_it_does_with_pictures_before_it_opens(studio):
    said = []
    programs.warm_up(studio.trained, said.append, clip=studio.clip)
    kinds = [re.match(r"compiled ([\w ]+), small", line) for line in said]
    assert [found[1] for found in kinds if found] == [
        "drawing", "drawing anew", "variations", "a path", "a text diff",
    ]  # fmt: skip
