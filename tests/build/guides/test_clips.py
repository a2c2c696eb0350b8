"""Which CLIP a name means, and what is no CLIP."""

import json
import shutil

import pytest

from diffjax.build.guides import clips
from diffjax.core.errors import ConfigError
from diffjax.encoders.clip import encoder
from tests.encoders.clip import small


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small.write(tmp_path_factory.mktemp("clip"))


def test_a_folder_of_others_is_read(folder):
    assert clips.load(str(folder)).fingerprint == encoder.load(folder).fingerprint


def test_shipped_is_the_clip_that_came_along(folder, monkeypatch):
    monkeypatch.setitem(encoder.SHIPPED, "emoji", folder)
    assert clips.load("shipped").fingerprint == encoder.load(folder).fingerprint


def test_without_a_shipped_clip_one_line_says_how_to_train_one(tmp_path, monkeypatch):
    monkeypatch.setitem(encoder.SHIPPED, "emoji", tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"no CLIP came along; train one with configs/clip.py"):
        clips.load("shipped")


def test_a_clip_with_the_vocabulary_of_another_is_refused(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    lines = (other / "merges.txt").read_text().splitlines()
    (other / "merges.txt").write_text("\n".join(lines[:-10]) + "\n")
    with pytest.raises(ConfigError, match=r"--clip = .*: 1538 tokens, its vocabulary has 1528"):
        clips.load(str(other))


def test_a_workdir_that_makes_pictures_is_no_clip(tmp_path):
    from diffjax.build.options import config

    options = config.load("configs/base64.py:tiny")
    (tmp_path / "config.json").write_text(json.dumps(options.to_dict()))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ConfigError, match="makes pictures; want a CLIP"):
        clips.load(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "name a CLIP"),
        ("/absent/clip", "neither a folder, a file, nor a name on the hub"),
        ("absent.safetensors", "there is no such file"),
    ],
)
def test_what_is_no_clip_is_refused_in_one_line(name, words):
    with pytest.raises(ConfigError, match=words) as error:
        clips.load(name)
    assert "\n" not in str(error.value)
