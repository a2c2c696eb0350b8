"""Stages of DDPMs of others: which config a file has, and the pictures that they make."""

import dataclasses
import functools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffjax import edit, sample
from diffjax.app import drawing, limits, uploads
from diffjax.app.values import Refused
from diffjax.build import check
from diffjax.build.options import config
from diffjax.build.others import ancestors
from diffjax.build.stages import loading, places
from diffjax.core import rng
from diffjax.core.errors import ConfigError
from diffjax.generation import parse
from diffjax.images import png
from diffjax.tasks import sampling
from tests.encoders.ancestors import made
from tools.inputs import ancestors_inputs
from tools.inputs.ancestors_inputs import NETS

SLOW = pytest.mark.slow
RELEASED = [
    f"{name}:{preset}"
    for name in ("adm", "iddpm", "glide64", "glide256", "glide_inpaint")
    for preset in config.presets_of(name)
    if not preset.startswith(("digits", "emoji", "tiny", "upsampler_digits"))
]
# Those whose files cannot be told from others', of which they differ in training alone.
ALIKE = {"adm:lsun": "adm:256_uncond", "iddpm:cifar10_vlb": "iddpm:cifar10",
         "iddpm:imagenet64_vlb": "iddpm:imagenet64_uncond"}  # fmt: skip


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return loading.load([made.folder(tmp_path_factory.mktemp("ddpm"))])


@pytest.mark.parametrize("steps", [50, pytest.param(1000, marks=SLOW)])
def test_a_trajectory_ends_at_the_picture_of_the_pipeline_of_diffusers(pipeline, steps):
    stage = pipeline.stages[0]
    settings = dataclasses.replace(stage.settings, num_steps=steps)
    assert (stage.settings.num_steps, settings.threshold) == (1000, "static")
    keys = rng.per_example(jnp.array([ancestors_inputs.SEED]))
    run = sampling.compiled(sampling.sample, settings)
    found = run(stage.params, {}, keys, task=stage.task)
    np.testing.assert_allclose(found / 2 + 0.5, made.answers()[f"drawn_{steps}"], atol=1e-3)


def test_each_released_file_is_known_by_its_shapes(tmp_path, monkeypatch):
    load = functools.cache(config.load)
    monkeypatch.setattr(config, "load", load)
    for spec in RELEASED:
        facts = ancestors.facts_of_config(load(spec), spec)
        assert ancestors.preset_of(facts, tmp_path) is load(ALIKE.get(spec, spec)), spec


@pytest.mark.parametrize("name", ["adm", "plain"])
def test_a_file_of_one_s_own_needs_its_config(name, tmp_path):
    file = made.write_pt(tmp_path / "model.pt", made.weights(name))
    own = made.config_file(tmp_path / "own.py", name)
    with pytest.raises(ConfigError, match=r"say its config: --checkpoint CONFIG\.py:PRESET="):
        ancestors.load_stage(file)
    stage, origin = ancestors.load_stage(Path(f"{own}={file}"))
    assert origin.size_px == 8
    classes = [one.num for one in stage.task.conditions]
    assert classes == [NETS[name].classes] * bool(NETS[name].classes)


@pytest.mark.parametrize(
    ("name", "spec", "said"),
    [
        ("adm", "ddpm:tiny", r"predicts the noise and a variance \(6 channels\), and the config's"),
        ("plain", "iddpm:tiny", r"predicts the noise alone \(3 channels\), and the config's"),
        ("adm", "adm:64", "knows 5 classes, and the config's knows 1000 classes"),
        ("adm", "adm:tiny_upsampler", "starts from noise alone, and the config's enlarges"),
        ("adm", "base64:tiny", "its network is none of OpenAI's U-Nets"),
        ("adm", "adm:65", "unknown preset; allowed: digits"),
    ],
)
def test_a_file_that_is_named_as_another_is_one_line_before_anything_compiles(
    name, spec, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    made.write_pt(tmp_path / "model.pt", made.weights(name))
    with pytest.raises(ConfigError, match=said) as caught:
        loading.load([Path(f"{spec}=model.pt")])
    assert "\n" not in str(caught.value)


def test_places_of_others_are_told_apart(tmp_path):
    folder = made.folder(tmp_path / "a")
    assert places.is_others(folder)
    assert not places.is_stable_diffusion(folder)
    assert places.stage_dirs(folder) == [folder]
    assert not ancestors.is_one(tmp_path)
    with pytest.raises(ConfigError, match="there is no such file"):
        loading.load([tmp_path / "absent.pt"])


@SLOW
def test_the_command_draws_classes_and_refuses_those_that_do_not_exist(
    tmp_path, monkeypatch, capsys
):
    """A base and its upsampler, each from a file of its own."""
    monkeypatch.chdir(tmp_path)
    base, upper = tmp_path / "base", tmp_path / "upper"
    for name, where in (("adm", base), ("upsampler", upper)):
        where.mkdir()
        made.write_pt(where / "model.pt", made.weights(name))
        made.config_file(where / "own.py", name)
    text = (base / "own.py").read_text()
    (base / "own.py").write_text(
        text.replace("    return", "    config.data.size_px = 4\n    return")
    )
    flags = ["--stages", "base/own.py=base/model.pt,upper/own.py=upper/model.pt", "--steps", "2"]
    assert sample.main([*flags, "--class", "3", "--out", "a"]) == 0
    said = parse.read(next((tmp_path / "a").glob("*_8px.png")))
    assert [settings.sampler for _, settings in said.stages] == ["ddpm_learned"] * 2
    capsys.readouterr()
    for wrong, line in (
        (("--class", "5"), "a number from 0 to 4"),
        (("--class", "none"), "a number from 0 to 4"),
        ((), "give one: 0 to 4"),
        (("--class", "1", "--guidance", "2"), "must be 1: adm always knew the class"),
        (("--class", "1", "--size", "16"), "makes pictures of 4 px alone"),
    ):
        assert sample.main([*flags, *wrong, "--out", "b"]) == 2
        assert line in capsys.readouterr().err, wrong


@SLOW
def test_pictures_are_edited_by_a_checkpoint_of_others(tmp_path, monkeypatch, capsys):
    """One that is told a class, and one that is told nothing."""
    monkeypatch.chdir(tmp_path)
    made.write_pt(tmp_path / "model.pt", made.weights("adm"))
    made.config_file(tmp_path / "own.py", "adm")
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(colours).save("a.png")
    hole = np.zeros((8, 8), np.uint8)
    hole[2:5] = 255
    Image.fromarray(hole).save("m.png")
    common = ["--picture", "a.png", "--steps", "4", "--out", "out"]
    told = ["--workdir", "own.py=model.pt", *common]
    painted = ["inpaint", "--mask", "m.png", "--resample", "2", "--class", "3"]
    assert edit.main([*painted, *told]) == 0
    picture = png.read(tmp_path / "out/inpaint_seed0_8px.png")
    np.testing.assert_array_equal(picture[hole == 0], colours[hole == 0])
    assert (picture[hole > 0] != colours[hole > 0]).any()
    assert png.read_metadata(tmp_path / "out/inpaint_seed0_8px.png")["label"] == 3
    assert edit.main(["vary", "--class", "1", *told]) == 0
    capsys.readouterr()
    assert edit.main(["vary", "--overwrite", *told]) == 2  # it always knew the class
    assert "--class = '': give one: 0 to 4" in capsys.readouterr().err
    folder = made.folder(tmp_path / "ddpm")
    Image.fromarray(np.repeat(np.repeat(colours, 2, 0), 2, 1)).save("a.png")
    assert edit.main(["img2img", "--workdir", str(folder), *common, "--out", "b"]) == 0
    assert len(list((tmp_path / "b").glob("img2img_seed0_*px.png"))) == 1


@SLOW
def test_the_page_draws_and_paints_with_a_checkpoint_of_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made.write_pt(tmp_path / "model.pt", made.weights("adm"))
    made.config_file(tmp_path / "own.py", "adm")
    cascade = drawing.at_start(loading.load([Path("own.py=model.pt")]))
    told = drawing.told_of(cascade)
    assert (told.text, told.classes.num, told.weighed, told.scaled) == (False, 5, False, False)
    wish = limits.wish([4, 2], steps=2, told=told)
    here = drawing.wished(cascade, wish)
    drawn = [one.picture for one in drawing.draw(here, wish.jobs)]
    assert (drawn[0] != drawn[1]).any()
    hole = np.zeros((8, 8), bool)
    hole[2:5] = True
    painting = uploads.Painting(drawn[0], hole)
    (painted,) = drawing.paint(here, wish.jobs[1:], painting)
    np.testing.assert_array_equal(painted.picture[~hole], drawn[0][~hole])
    for many in (5, -1):
        with pytest.raises(Refused, match="class: want a whole number from 0 to 4"):
            limits.wish([many], steps=2, told=told)


@pytest.mark.peers
@SLOW
def test_a_file_that_pytorch_saved_is_the_same(tmp_path):
    import torch

    from diffjax.encoders.ancestors import openai

    stored = made.weights("plain")
    state = {name: torch.from_numpy(x) for name, x in stored.items()}
    for zipped in (True, False):
        file = tmp_path / f"{zipped}.pt"
        torch.save(state, file, _use_new_zipfile_serialization=zipped)
        found = openai.read(file)
        assert all(np.array_equal(found[name], x) for name, x in stored.items())


def test_settings_of_the_three_ways_of_sampling_keep_one_program_length(pipeline):
    """1,000 steps, 250 of them and 25 of DDIM: the same number of lines, so one compile time."""
    stage = pipeline.stages[0]
    lines = set()
    for sampler, noise, spacing, steps in (
        ("ddpm", 1.0, "linspace", 1000),
        ("ddpm", 1.0, "linspace", 250),
        ("ddim", 0.0, "leading", 25),
        ("ddim", 0.0, "leading", 50),
    ):
        settings = dataclasses.replace(
            stage.settings, sampler=sampler, noise=noise, spacing=spacing, num_steps=steps
        )
        run = sampling.compiled(sampling.sample, settings)
        keys = rng.per_example(jnp.array([0]))
        jaxpr = run.trace(stage.params, {}, keys, task=stage.task).jaxpr
        lines.add((sampler, len(str(jaxpr).splitlines())))
    assert len(lines) == 2


@pytest.mark.parametrize("name", ["ddpm", "iddpm", "adm"])
def test_every_preset_is_a_config_that_is_allowed(name):
    for preset in config.presets_of(name):
        check.check(config.load(f"{name}:{preset}"))


@pytest.mark.parametrize(
    ("spec", "values", "said"),
    [
        ("ddpm:tiny", {"diffusion.schedule": "cosine"}, "discrete = True: needs a schedule with"),
        ("ddpm:tiny", {"diffusion.num_levels": 20}, "num_levels = 20: at least 21 for a discrete"),
        ("ddpm:tiny", {"diffusion.over": "logsnr"}, "the steps of a chain are fixed"),
        (
            "ddpm:tiny",
            {"diffusion.discrete": False, "diffusion.schedule": "cosine"},
            "model.steps = 1000: a network that is told steps needs diffusion.schedule linear",
        ),
        ("ddpm:tiny", {"sample.num_steps": 51}, "num_steps = 51: at most 50 with spacing trailing"),
        ("adm:tiny", {"model.null_class": False}, "classes.drop = 0.1: must be 0, as model.null"),
        (
            "adm:tiny",
            {"model.null_class": False, "classes.drop": 0.0, "sample.guidance_weight": 2.0},
            "sample.guidance_weight = 2.0: must be 1, as model.null",
        ),
        ("adm:tiny", {"model.head_width": 0, "model.num_heads": 5}, "num_heads = 5: must divide"),
        ("adm:tiny", {"model.head_width": 0}, "head_width = 0: must divide"),
        ("adm:tiny", {"model.norm_groups": 12}, "norm_groups = 12: must divide"),
        ("adm:tiny", {"model.resample": "pool"}, "resample = 'pool': .*conv_after"),
        ("adm:tiny_upsampler", {"low_res.max_aug_level": 0.5}, "or low_res.max_aug_level must"),
    ],
)
def test_what_the_ancestors_cannot_be_is_one_line(spec, values, said):
    options = config.load(spec).copy_and_resolve_references().unlock()
    for key, value in values.items():
        section, _, last = key.partition(".")
        options[section][last] = value
    with pytest.raises(ConfigError, match=said) as caught:
        check.check(options)
    assert "\n" not in str(caught.value)
