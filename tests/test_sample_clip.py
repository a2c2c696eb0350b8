"""diffjax.sample guided by a CLIP: what flags and the config say, recipes, and refusals."""

import dataclasses

import numpy as np
import pytest

from diffjax import sample
from diffjax.build.guides import clips
from diffjax.build.stages import loading
from diffjax.core.errors import ConfigError
from diffjax.encoders.clip import encoder
from diffjax.images import png
from diffjax.tasks import critic
from tests import tiny_cascade
from tests.encoders.clip import small


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tiny_cascade.cascade(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return small.write(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def command(whole, tmp_path, monkeypatch, capsys):
    """command(*flags, scale, where) -> (code, stdout, stderr); the last two are of the config."""
    monkeypatch.setattr("diffjax.devices.mesh.keep_compilations", lambda: None)

    def run(*flags, scale=0.0, where="shipped", out="out"):
        stages = tuple(
            dataclasses.replace(one, task=dataclasses.replace(one.task,
            settings=dataclasses.replace(one.task.settings, clip_guidance=scale)))
            for one in whole.stages
        )  # fmt: skip
        monkeypatch.setattr(loading, "load", lambda *_: dataclasses.replace(whole, stages=stages))
        monkeypatch.setattr(clips, "named_by", lambda dirs: str(where))
        code = sample.main(["--stages", "a,b", "--out", str(tmp_path / out), *map(str, flags)])
        return code, *capsys.readouterr()

    return run


def last(folder, seed=0):
    return folder / f"0000_seed{seed}_16px.png"


def test_a_guided_picture_fits_better_says_its_clip_and_is_made_again(command, clip, tmp_path):
    asked = ["--prompt", "a red apple", "--threshold", "none"]
    assert command(*asked, out="plain")[0] == 0
    assert command(*asked, "--clip", clip, "--clip-guidance", "0,2", out="guided")[0] == 0
    plain, guided = last(tmp_path / "plain"), last(tmp_path / "guided")
    judge = encoder.load(clip)
    said = png.read_metadata(guided)
    assert said["clip"] == judge.fingerprint
    scales = [stage["settings"].get("clip_guidance", 0.0) for stage in said["stages"]]
    assert scales == [0.0, 2.0]
    assert "clip" not in png.read_metadata(plain)
    small_one = plain.with_name("0000_seed0_8px.png")
    assert "clip" not in png.read_metadata(tmp_path / "guided" / small_one.name)
    assert (tmp_path / "guided" / small_one.name).read_bytes() == small_one.read_bytes()
    text = judge.of_captions(["a red apple"])[0]
    fits = [judge.of_pictures(png.read(path)[None])[0] @ text for path in (plain, guided)]
    assert fits[1] > fits[0] + 0.01
    code, out, _ = command("--like", guided, "--clip", clip, out="again")
    assert (code, "in every pixel" in out) == (0, True)


@pytest.mark.slow
def test_the_config_says_the_scale_and_the_clip_and_flags_say_otherwise(command, clip, tmp_path):
    assert command("--prompt", "x", scale=2.0, where=clip)[0] == 0
    flags = ["--prompt", "x", "--clip", clip, "--clip-guidance", "2"]
    assert command(*flags, out="flags")[0] == 0
    assert last(tmp_path / "out").read_bytes() == last(tmp_path / "flags").read_bytes()
    assert command("--prompt", "x", "--clip-guidance", "0", scale=2.0, out="off")[0] == 0
    assert command("--prompt", "x", out="plain")[0] == 0
    assert last(tmp_path / "off").read_bytes() == last(tmp_path / "plain").read_bytes()
    assert np.any(png.read(last(tmp_path / "off")) != png.read(last(tmp_path / "out")))


def test_another_clip_than_that_of_the_picture_is_refused_unless_anyway(
    command, clip, tmp_path, monkeypatch
):
    asked = ["--clip", clip, "--prompt", "x", "--clip-guidance", "1"]
    assert command(*asked)[0] == 0
    load = clips.load
    other = lambda *args, **more: dataclasses.replace(load(*args, **more), fingerprint="0" * 64)  # noqa: E731
    monkeypatch.setattr(clips, "load", other)
    again = ["--like", last(tmp_path / "out"), "--clip", clip]
    code, _, err = command(*again, out="again")
    assert (code, "is the CLIP that guided the picture, here is 000000000000" in err) == (2, True)
    assert err.count("\n") == 1
    assert command(*again, "--anyway", out="again")[0] == 0


def noised(clip, side_px=16):
    """A CLIP that takes noised pictures; its weights are never used."""
    found = encoder.load(clip)
    config = dataclasses.replace(found.config, noised=True, size_px=side_px)
    return dataclasses.replace(found, config=config)


def test_a_clip_of_noised_pictures_guides_stages_of_its_own_size_alone(whole, clip):
    how = [dataclasses.replace(one.settings, clip_guidance=1.0) for one in whole.stages]
    with pytest.raises(
        ConfigError, match="takes noised pictures of 16 px, small makes 8; give it 0"
    ):
        clips.guided(whole.with_settings(how), noised(clip))
    only_large = whole.with_settings([whole.stages[0].settings, how[1]])
    made = clips.guided(only_large, noised(clip))
    assert made.stages[0].task.critic is None
    assert isinstance(made.stages[1].task.critic, critic.ClipCritic)
    assert not made.stages[1].task.critic.of_clean


def test_a_model_without_text_is_not_guided_by_a_clip(whole, clip):
    how = [dataclasses.replace(one.settings, clip_guidance=1.0) for one in whole.stages]
    told_nothing = dataclasses.replace(whole.with_settings(how), encoder=None)
    with pytest.raises(ConfigError, match="small takes no text"):
        clips.guided(told_nothing, encoder.load(clip))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--clip-guidance", "-1"], "a number from 0 to 1000"),
        (["--clip-guidance", "1,2,3"], "one value, or 2 with commas"),
        (["--clip-guidance", "1", "--clip", "/absent"], "neither a folder, a file, nor a name"),
        (["--clip-guidance", "0", "--clip", "x"], "has no effect without --best-of"),
    ],
)
def test_guidance_that_cannot_be_is_refused_in_one_line(flags, words, command):
    code, _, err = command("--prompt", "x", *flags)
    assert (code, words in err, err.count("\n")) == (2, True, 1)
