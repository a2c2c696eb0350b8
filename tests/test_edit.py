"""python -m diffjax.edit: what it writes, what it says of it, and what it refuses in one line."""

import dataclasses
import functools
import re
import shlex
import struct
import zlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffjax import edit
from diffjax.build.stages import loading
from diffjax.editing import img2img, request
from diffjax.editing import interpolate as interpolate_lib
from diffjax.generation import parse
from diffjax.generation import rows as rows_lib
from diffjax.images import png, read, square
from tests import tiny_cascade

PAGE = (Path(__file__).resolve().parents[1] / "docs/editing.md").read_text()
APPLE = "a red apple"
COLOURS = np.random.default_rng(0).integers(0, 256, (20, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def cascade(tmp_path_factory):
    return tiny_cascade.cascade(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A picture, and a mask of its middle."""
    folder = tmp_path_factory.mktemp("files")
    Image.fromarray(COLOURS).save(folder / "a.png")
    Image.fromarray(COLOURS[::-1].copy()).save(folder / "b.png")
    mask = np.zeros((20, 16), np.uint8)
    mask[6:12, 5:12] = 255
    Image.fromarray(mask).save(folder / "m.png")
    return folder


@pytest.fixture
def run(cascade, files, tmp_path, monkeypatch, capsys):
    """run(words of a command) -> (exit code, printed, files written); {f} is the files' folder."""
    monkeypatch.setattr(loading, "load", lambda dirs, ema, verify: cascade)
    monkeypatch.setattr(loading, "stage_dirs", lambda workdir, stages: [])
    out = tmp_path / "out"

    def call(line, *more):
        words = [word.format(f=files) for word in line.split()]
        code = edit.main([*words, *more, "--workdir", "w", "--out", str(out)])
        printed = capsys.readouterr()
        there = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
        return code, printed, {name: out / name for name in there}

    return call


def test_inpainting_leaves_what_is_not_masked_as_it_was_byte_for_byte(run, files, cascade):
    line = "inpaint --picture {f}/a.png --mask {f}/m.png --prompt apple --seeds 0,3"
    code, printed, made = run(line)
    assert code == 0
    assert printed.out.strip().endswith("inpaint_grid.png")
    assert list(made) == ["inpaint_grid.png", "inpaint_seed0_16px.png", "inpaint_seed0_8px.png",
                          "inpaint_seed3_16px.png", "inpaint_seed3_8px.png"]  # fmt: skip
    given = square.fit_square(COLOURS, 16)
    mask = square.fit_square_mask(read.read_mask(files / "m.png"), 16)
    first, other = (png.read(made[f"inpaint_seed{seed}_16px.png"]) for seed in (0, 3))
    for picture in (first, other):
        np.testing.assert_array_equal(picture[~mask], given[~mask])
        assert (picture[mask] != given[mask]).any()
    assert (first != other).any()
    said = png.read_metadata(made["inpaint_seed3_16px.png"])
    assert (said["kind"], said["prompt"], said["seed"]) == ("inpaint", "apple", 3)
    assert said["edit"]["resample"] == [10, 1]
    assert re.fullmatch("[0-9a-f]{64}", said["edit"]["mask"])
    assert str(files) not in str(said)
    with pytest.raises(ValueError, match=r"only pictures of diffjax\.sample"):
        parse.from_json(said)


def test_the_pictures_own_transparency_can_be_the_mask(run, files):
    """It makes the picture that a file with the same mask makes, byte for byte."""
    mask = read.read_mask(files / "m.png")
    clear = np.dstack([COLOURS, np.where(mask, 0, 255).astype(np.uint8)])
    Image.fromarray(clear).save(files / "clear.png")
    line = "inpaint --picture {f}/clear.png --prompt apple --steps 2 --resample 1 --mask "
    code, _, made = run(line + "alpha")
    assert code == 0
    name = "inpaint_seed0_16px.png"
    first, said = png.read(made[name]), png.read_metadata(made[name])
    code, _, made = run(line + "{f}/m.png", "--overwrite")
    assert code == 0
    np.testing.assert_array_equal(png.read(made[name]), first)
    assert png.read_metadata(made[name]) == said
    hidden = square.fit_square_mask(mask, 16)
    np.testing.assert_array_equal(first[~hidden], square.fit_square(COLOURS, 16)[~hidden])


@pytest.mark.parametrize("line", ["img2img --prompt apple --strength 0.7", "vary"])
def test_a_seed_is_a_picture_in_any_company(run, line):
    """Byte for byte, and the second run replaces the first only when told to."""
    line += " --picture {f}/a.png --seeds "
    code, _, made = run(line + "2,0")
    assert code == 0
    name = f"{line.split()[0]}_seed2_16px.png"
    first = png.read(made[name])
    code, printed, _ = run(line + "2")
    assert code == 2
    assert re.search(r"is there already; --overwrite replaces it", printed.err)
    assert len(printed.err.splitlines()) == 1
    code, _, made = run(line + "2", "--overwrite", "--no-metadata")
    assert code == 0
    np.testing.assert_array_equal(png.read(made[name]), first)
    assert png.read_metadata(made[name]) is None


@pytest.mark.slow
def test_a_full_batch_gives_the_same_pictures_to_one_level(run, monkeypatch):
    """As accelerators take it: 3 rows a call, the last call filled up."""
    line = "vary --picture {f}/a.png --seeds 0-3 --steps 1"
    path = ("interpolate --frames 4 --steps 1 --png", "--prompt", APPLE, "--prompt", "a frog")
    alone = {}
    for rows in (1, 3):
        monkeypatch.setattr(rows_lib, "rows_per_call", lambda rows=rows: rows)
        assert run(line, "--overwrite")[0] == 0
        code, _, made = run(*path, "--overwrite")
        assert code == 0
        pixels = {n: png.read(p).astype(int) for n, p in made.items() if n.endswith("px.png")}
        alone = alone or pixels
    assert len(pixels) == 4 * 2 + 4
    for name, picture in pixels.items():
        # the weights of a film's frames are found from its pictures
        most = 3 if name.startswith("interpolate") else 1
        assert np.abs(picture - alone[name]).max() <= most, name


@pytest.mark.slow
def test_a_film_begins_and_ends_with_the_pictures_of_its_prompts(run, cascade):
    words = ("--prompt", APPLE, "--prompt", "a frog", "--prompt", "a frog on a red apple")
    code, printed, made = run("interpolate --frames 4 --seeds 5 --png --bounce", *words)
    assert code == 0
    assert printed.out.strip().endswith("interpolate.webp")
    stills = [png.read(path) for name, path in made.items() if re.search(r"_\d{4}_", name)]
    assert len(stills) == 7
    prompts = words[1::2]
    wanted = list(rows_lib.make(cascade, [rows_lib.Job(prompt, 5) for prompt in prompts]))
    for still, want in zip(stills[::3], wanted, strict=True):
        assert np.abs(still.astype(int) - want[-1]).max() <= 1
    for name in ("interpolate.webp", "interpolate.gif"):
        with Image.open(made[name]) as film:
            # there and back; writers join frames that are the same
            assert 3 <= film.n_frames <= 12
            assert film.size == (16, 16)


@pytest.mark.slow
def test_a_film_between_two_pictures_needs_no_prompt(run):
    code, _, made = run("interpolate --picture {f}/a.png --picture {f}/b.png --frames 3 --steps 2")
    assert code == 0
    assert list(made) == ["interpolate.gif", "interpolate.webp", "interpolate_grid.png"]


def test_seeds_of_a_film_may_differ_where_the_sampler_draws_nothing(run, monkeypatch):
    words = ("--prompt", APPLE, "--prompt", "a frog")
    made_with = []

    def interpolate(cascade, ask, where, reel):
        made_with.extend(cascade.stages)
        return where.out

    monkeypatch.setattr(interpolate_lib, "write_film", interpolate)
    assert run("interpolate --frames 3 --seeds 1,2", *words)[0] == 0
    assert [one.settings.sampler for one in made_with] == ["ddim", "ddpm"]
    code, printed, _ = run("interpolate --frames 3 --seeds 1,2 --sampler ddpm", *words)
    assert code == 2
    assert "such as ddim" in printed.err


def test_a_picture_of_any_shape_is_enlarged(run, files):
    Image.fromarray(COLOURS[:3, :11]).save(files / "odd.png")
    code, printed, made = run("upscale --picture {f}/odd.png")
    assert code == 0
    assert "11 x 3 -> 22 x 6 px, tiles: [2]" in printed.out
    assert list(made) == ["upscale_seed0_22x6px.png"]
    assert png.read(made["upscale_seed0_22x6px.png"]).shape == (6, 22, 3)


def test_a_picture_of_one_pixel_is_enlarged_and_edited(run, files):
    Image.fromarray(COLOURS[:1, :1]).save(files / "one.png")
    assert run("upscale --picture {f}/one.png")[0] == 0
    assert run("vary --picture {f}/one.png")[0] == 0


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("vary --picture {f}/none.png", "no such file"),
        ("vary --picture {f}", "a folder"),
        ("vary --picture {f}/text.png", "not a picture of PNG, JPEG"),
        ("vary --picture {f}/bomb.png", "13000 x 13000 px is more than 64 million pixels"),
        ("vary --picture {f}/a.png --strength 0", "--strength = 0.0: above 0 and at most 1"),
        ("vary --picture {f}/a.png --strength nan", "must be from 0 to 1"),
        ("vary --picture {f}/a.png --guidance 3", "--guidance = '3': needs a --prompt or a"),
        ("vary --picture {f}/a.png --seeds -1", "--seeds"),
        ("vary --picture {f}/a.png --steps 0", "--steps"),
        ("inpaint --prompt a --picture {f}/a.png --mask {f}/small.png",
         "is 4 x 3 px, the picture 16 x 20; they must have the same size"),
        ("inpaint --prompt a --picture {f}/a.png --mask {f}/black.png", "all black; paint white"),
        ("inpaint --prompt a --picture {f}/a.png --mask {f}/text.png", "--mask = .*not a picture"),
        ("inpaint --prompt a --picture {f}/a.png --mask {f}/edge.png", "cropped away.*--fit pad"),
        ("inpaint --prompt a --picture {f}/a.png --mask alpha",
         "--mask = 'alpha': .*a.png has no transparency; name a mask's file"),
        ("inpaint --prompt a --picture {f}/opaque.png --mask alpha",
         "no pixel of .*opaque.png is more than half transparent"),
        ("inpaint --prompt a --picture {f}/a.png --mask ./alpha", "no such file"),
        ("inpaint --prompt a --picture {f}/a.png --mask {f}/m.png --resample 0", "1 to 100"),
        ("inpaint --prompt a --picture {f}/a.png --mask {f}/m.png --resample 3,2,1", "2 times"),
        ("img2img --prompt " + "x" * 10_001 + " --picture {f}/a.png", "at most 10000"),
        ("interpolate --prompt a", "--prompt = 1: 2 to 50"),
        ("interpolate --picture {f}/a.png", "--picture = 1: 2 to 50"),
        ("interpolate --prompt a --prompt b --frames 1", "--frames = 1: must be from 2 to 1000"),
        ("interpolate --prompt a --prompt b --seeds 1,2,3", "1 seed, or 2"),
        ("interpolate --prompt a --picture {f}/a.png --picture {f}/b.png", "none, or one for each"),
        ("interpolate --prompt a --prompt b --ms 1", "--ms"),
        ("interpolate --picture {f}/a.png --picture {f}/b.png --sampler heun", "uses ddim"),
        ("interpolate --frames 1000 --prompt " + " --prompt ".join("a" * 50), "at most 26"),
        ("upscale --picture {f}/a.png --factor 3", "--factor = 3: allowed: 2"),
        ("upscale --picture {f}/wide.png", "2 times as large is more than 16 million pixels"),
    ],
)  # fmt: skip
def test_an_impossible_request_is_refused_in_one_line_with_exit_code_2_and_writes_nothing(
    run, files, monkeypatch, line, words
):
    monkeypatch.setattr(interpolate_lib, "MAX_BYTES", 20_000)
    (files / "text.png").write_text("no picture")
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 13_000, 13_000, 8, 2, 0, 0, 0))
    (files / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", bytes(99)))
    Image.new("L", (4, 3), 255).save(files / "small.png")
    Image.new("L", (16, 20)).save(files / "black.png")
    Image.new("RGBA", (16, 20), (9, 9, 9, 128)).save(files / "opaque.png")
    edge = Image.new("L", (16, 20))
    edge.paste(255, (0, 0, 16, 1))
    edge.save(files / "edge.png")
    Image.new("1", (4001, 1000)).save(files / "wide.png")
    code, printed, made = run(line)
    assert code == 2
    assert re.search(words, printed.err), printed.err
    assert len(printed.err.splitlines()) == 1
    assert not made


def test_a_name_that_leads_out_of_the_folder_is_replaced_and_not_followed(run, files, tmp_path):
    """A link of the name that a picture will have: refused, and with --overwrite taken away."""
    outside = tmp_path / "outside.png"
    outside.write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "vary_seed0_16px.png").symlink_to(outside)
    code, printed, _ = run("vary --picture {f}/a.png")
    assert code == 2
    assert "is there already" in printed.err
    assert run("vary --picture {f}/a.png --overwrite")[0] == 0
    assert outside.read_text() == "precious"
    assert not (tmp_path / "out" / "vary_seed0_16px.png").is_symlink()


def text_seen(x_t, logsnr_t, *, text, text_mask, **told):
    """A network that paints 0.5 where it sees any text, and else 0."""
    return jnp.full_like(x_t, 0.5) * jnp.any(text != 0) + 0 * x_t


def test_no_prompt_reaches_the_network_as_the_null_text(cascade, files):
    """A network that says whether it sees text: vary without a prompt sees none."""
    first = cascade.stages[0]
    seeing = dataclasses.replace(
        first,
        task=dataclasses.replace(first.task, model=tiny_cascade.Told(text_seen)),
        settings=dataclasses.replace(first.settings, guidance_weight=1.0),
    )
    seeing = dataclasses.replace(cascade, stages=(seeing,))
    small = request.repeated_image(COLOURS[:8, :8])
    edit = functools.partial(img2img.img2img, seeing.stages, picture=small, strength=1.0)
    for prompts, want in (((), 128), (("apple",), 191)):
        ask = request.Ask("vary", [COLOURS], prompts, [0], strength=1.0)
        todo = request.all_jobs(list(prompts) or [""], [0])
        (made,) = request.edited(seeing, todo, edit, ask)
        assert (made[-1] == want).all()


@pytest.mark.slow
def test_every_command_of_the_page_runs(cascade, tmp_path, monkeypatch):
    small = COLOURS[:3, :11]
    for name, colours in (("apple", small), ("heart", small[::-1].copy())):
        Image.fromarray(colours).save(tmp_path / f"{name}.png")
    Image.fromarray(np.eye(3, 11, 5, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load", lambda *dirs_ema_verify: cascade)
    monkeypatch.setattr(loading, "stage_dirs", lambda workdir, stages: [])
    lines = re.findall(r"^python -m diffjax\.edit (.*)$", PAGE, re.M)
    kinds = [line.split()[0] for line in lines]
    assert set(kinds) == {"inpaint", "img2img", "vary", "interpolate", "upscale"}
    for i, line in enumerate(lines):
        assert edit.main([*shlex.split(line), "--out", f"out{i}", "--steps", "2"]) == 0, line
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(code, names)
    painted = np.asarray(rows_lib.to_bytes(names["large"]))[0]
    np.testing.assert_array_equal(painted, png.read(tmp_path / "out0/inpaint_seed0_16px.png"))
