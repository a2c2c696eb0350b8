"""Which autoencoder a stage of latents gets, and what is refused."""

import json

import jax
import numpy as np
import pytest

from diffjax.build import check, tasks
from diffjax.build.inputs import moments
from diffjax.build.kinds import latents
from diffjax.build.options import config, resume
from diffjax.build.stages import autoencoders
from diffjax.checkpoint import portable
from diffjax.core import tensorfile
from diffjax.core.errors import ConfigError
from diffjax.encoders.autoencoder import weights
from diffjax.models.autoencoder.network import Sizes

SIZES = Sizes(32, (1, 1), 1, latent=2, groups=32)


@pytest.fixture(autouse=True)
def fresh():
    """Places are opened anew in each test."""
    autoencoders.opened.cache_clear()


def tiny(**changes):
    options = config.load("configs/latent.py:tiny")
    for key, value in changes.items():
        options.latent[key] = value
    return options


@pytest.fixture
def folder(tmp_path):
    """An autoencoder as diffusers saves it."""
    random = np.random.default_rng(0)
    shapes = autoencoders._shapes(SIZES)
    params = jax.tree.map(
        lambda x: 0.1 * random.standard_normal(x.shape).astype(np.float32), shapes
    )
    weights.save(tmp_path / "vae", weights.Loaded(SIZES, params, 0.18215))
    return tmp_path / "vae", params


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("prefix", ["", "diffusers:"])
def test_an_autoencoder_that_diffusers_saved_is_opened(folder, prefix):
    place, params = folder
    space, frozen = latents.space_of(tiny(autoencoder=f"{prefix}{place}", scale=(3.0,)))
    same(frozen["space"], params)
    assert space.scale == (3.0,)
    assert space.model.sizes == SIZES


def test_a_copy_in_a_workdir_is_the_autoencoder_again(folder, tmp_path):
    place, params = folder
    options = tiny(autoencoder=str(place))
    mark = latents.opened_for(options).mark
    latents.keep(options, tmp_path / "run")
    there = latents.placed(options, tmp_path / "run")
    assert there.latent.autoencoder == str(tmp_path / "run" / portable.FROZEN)
    copied = latents.opened_for(there)
    same(copied.params, params)
    assert (copied.mark, copied.sizes) == (mark, SIZES)


def test_a_task_of_latents_has_their_shape_and_makes_pictures_of_its_size():
    task = tasks.task_of(tiny(scale=(2.0, 3.0), shift=(0.5,)), 8)
    assert (task.of, task.shape, task.size_px) == ("latent", (8, 8, 2), 16)
    assert (task.space.scale, task.space.shift) == ((2.0, 3.0), (0.5,))
    assert task.columns()["latent"].shape == (8, 8, 4)


def test_without_a_place_the_weights_are_the_papers_shapes():
    options = tiny(autoencoder="", factor=8, channels=4)
    space, frozen = latents.space_of(options)
    assert sum(np.prod(x.shape) for x in jax.tree.leaves(frozen)) == 83_653_863
    assert space.factor == 8
    with pytest.raises(ConfigError, match=r"latent.autoencoder = '': name an autoencoder"):
        moments.measured(options, pytest.fail)


def test_another_autoencoder_than_the_one_of_the_latents_is_refused(folder):
    place, _ = folder
    mark = latents.opened_for(tiny(autoencoder=str(place))).mark
    assert latents.opened_for(tiny(autoencoder=str(place), mark=mark)).mark == mark
    with pytest.raises(ConfigError, match=r"is another autoencoder, .* name that one"):
        latents.opened_for(tiny(autoencoder=str(place), mark="0" * 64))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"factor": 4}, r"latent.factor = 4: .* makes sides so many times shorter: 2; say 2"),
        ({"channels": 3}, r"latent.channels = 3: .* has so many channels: 2; say 2"),
    ],
)
def test_an_autoencoder_of_another_scale_is_refused_with_its_own(folder, changes, said):
    with pytest.raises(ConfigError, match=said):
        latents.opened_for(tiny(autoencoder=str(folder[0]), **changes))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda at: at / "nothing", "there is no such workdir, folder or file"),
        (lambda at: at, "no config.json: want an autoencoder that diffusers saved"),
        (lambda at: written(at / "a.safetensors", {}), "no autoencoder of latent diffusion's code"),
        (lambda at: written(at / "b.safetensors", {"autoencoder": "[]"}), "autoencoder"),
        (lambda at: workdir(at / "run"), "was trained to do something else"),
    ],
)
def test_a_place_without_an_autoencoder_is_refused_in_one_line(tmp_path, make, said):
    with pytest.raises(ConfigError, match=said) as failed:
        latents.opened_for(tiny(autoencoder=str(make(tmp_path))))
    assert "\n" not in str(failed.value)
    assert str(failed.value).startswith("config error: latent.autoencoder = ")


def written(file, metadata):
    tensorfile.write(file, {"x": np.zeros(3, np.float32)}, metadata)
    return file


def workdir(place):
    (place / "checkpoints").mkdir(parents=True)
    text = json.dumps(config.load("configs/base64.py:tiny").to_dict())
    (place / "config.json").write_text(text)
    return place


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("latent.factor", 3, "must be a power of 2"),
        ("latent.scale", (1.0, 2.0, 3.0), r"one number, 2 numbers, or \(\) to measure it"),
        ("latent.scale", (-1.0,), "must be between 1e-06 and 1e\\+06"),
        ("latent.shift", ("a",), "must be between"),
        ("latent.tile_px", 3, "0, or a multiple of 2 and at least 8"),
        ("latent.crops", 2, "has an effect only with latent.cached"),
        ("data.size_px", 17, "must be a multiple of 2"),
        ("data.crop_px", 8, "latents are of whole pictures: must be 0"),
        ("data.aspect", "random", "say how many of each picture are kept"),
        ("sample.threshold", "dynamic", 'latents are not bounded, as pictures are: want "none"'),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_with_its_key(key, value, said):
    options = config.load("configs/latent.py:tiny")
    section, _, last = key.partition(".")
    options[section][last] = value
    with pytest.raises(ConfigError, match=said):
        check.check(options, devices=1)


def test_holes_and_moments_that_are_made_once_do_not_go_together():
    options = config.load("configs/latent.py:tiny")
    with options.unlocked():
        options.mask = {"drop": 0.1}
    with pytest.raises(ConfigError, match="mask cuts holes anew in each step: want false"):
        check.check(options, devices=1)
    options.latent.cached = False
    check.check(options, devices=1)


@pytest.mark.parametrize("preset", ["emoji", "tiny"])
def test_every_preset_is_valid(preset):
    check.check(config.load(f"configs/latent.py:{preset}"), devices=1)


def test_a_run_goes_on_with_what_was_measured_when_it_began(tmp_path):
    before = tiny(scale=(2.0, 3.0), shift=(0.5, 0.25), mark="1" * 64)
    config.save(before, tmp_path / "config.json")
    now = latents.begun(tiny(), tmp_path)
    assert (now.latent.scale, now.latent.shift) == ((2.0, 3.0), (0.5, 0.25))
    assert now.latent.mark == "1" * 64
    assert resume.allowed_changes(now, tmp_path) == []
    other = latents.begun(tiny(scale=(1.0,)), tmp_path)
    with pytest.raises(ConfigError, match=r"was begun with \(2.0, 3.0\)"):
        resume.allowed_changes(other, tmp_path)


def test_a_decoder_can_be_another_for_the_same_latents_and_an_encoder_cannot(folder):
    place, params = folder
    mark = latents.opened_for(tiny(autoencoder=str(place))).mark
    for part, same_latents in [("decoder", True), ("last", True), ("encoder", False)]:
        changed = {**params, part: jax.tree.map(lambda x: x + 1, params[part])}
        weights.save(place.parent / part, weights.Loaded(SIZES, changed, 0.18215))
        found = latents.opened_for(tiny(autoencoder=str(place.parent / part))).mark
        assert (found == mark) == same_latents
