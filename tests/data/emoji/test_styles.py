"""The two further styles: what is fetched, what it is divided into, and how it is captioned."""

import dataclasses
import hashlib
import io
import json
import tarfile

import pytest

from diffjax.core.errors import StorageError
from diffjax.data.emoji import aliases, drawings, splits, styles
from diffjax.data.emoji.builder import EmojiStyles
from diffjax.data.emoji.drawings import rasterise
from diffjax.data.sources import tfds
from diffjax.data.sources.open import split_mixture
from diffjax.images.read import read_bytes

SQUARE = '<path fill="#f00" d="M4 4h24v24H4z"/>'
# A thing, a skin tone, and a name that no emoji has.
CHARS = {"1f34e": "red-apple", "1f44b-1f3ff": "waving-hand-dark", "e000": "nothing"}


def archive():
    """The archive of a package with three icons."""
    icons = {
        "icons": {name: {"body": SQUARE} for name in CHARS.values()},
        "height": 32,
        "width": 32,
    }
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as tar:
        files = {"icons.json": icons, "chars.json": CHARS, "info.json": {}, "index.js": {}}
        for name, content in files.items():
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return written.getvalue()


@pytest.fixture
def fetched(monkeypatch, tmp_path):
    """Both packages with three icons each, in a cache of their own."""
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "cache"))
    data = archive()
    sha256 = hashlib.sha256(data).hexdigest()
    packages = tuple(dataclasses.replace(one, sha256=sha256) for one in styles.PACKAGES)
    monkeypatch.setattr(styles, "PACKAGES", packages)
    for package in packages:
        styles.unpack(data, package)
    return packages


def test_drawings_have_the_names_of_emoji_and_no_others(fetched):
    drawn = styles.drawn_by(fetched[0])
    assert [(one.name, one.style) for one in drawn] == [
        ("red_apple", "fluent"),
        ("waving_hand_dark_skin_tone", "fluent"),
    ]
    png = rasterise(drawn[0], 16)
    assert png.startswith(b"\x89PNG")
    assert read_bytes(png).getpixel((8, 8)) == (255, 0, 0)


def test_only_the_files_that_are_read_are_kept(fetched):
    assert sorted(path.name for path in fetched[0].folder.iterdir()) == [
        "chars.json", "icons.json", "info.json",
    ]  # fmt: skip


def test_another_archive_than_the_expected_one_is_refused(fetched):
    with pytest.raises(StorageError, match="is not the expected one"):
        styles.unpack(archive() + b"x", fetched[0])


def test_the_two_embedded_styles_are_divided_as_without_the_further_ones(fetched):
    split = styles.assign_splits(styles.catalogue())
    before = splits.assign_splits(drawings.catalogue())
    for name, some in split.items():
        embedded = [one for one in some if one.style in drawings.STYLES]
        assert embedded == before[name]
    further = sum(len(some) for some in split.values()) - len(drawings.catalogue())
    assert further == 4


def test_no_name_that_is_held_out_is_trained_on_in_a_further_style(fetched):
    some = [
        drawings.Drawing(one.name, "noto", one.codes, "", "<svg/>") for one in drawings.catalogue()
    ]
    split = styles.assign_splits(tuple(some))
    named = {name: {splits.kin_of(one.name) for one in some} for name, some in split.items()}
    assert not named["train"] & (named["test"] | named["validation"])
    assert not split["style"]
    pairs = {
        name: {splits.profession_and_tone(one.name) for one in some} - {None}
        for name, some in split.items()
    }
    assert pairs["compositional"]
    assert not pairs["train"] & pairs["compositional"]


def test_aliases_are_captions_that_belong_to_no_other_emoji():
    found = aliases.aliases()
    assert len(found) > 300
    assert found["red_apple"] == "an apple"
    phrases = {aliases.noun_phrase(name).lower() for name in drawings.named_codes()}
    assert not phrases & {phrase.lower() for phrase in found.values()}
    one = drawings.Drawing("red_apple", "noto", (0x1F34E,), "", "<svg/>")
    assert aliases.all_captions(one)[-2:] == ("a noto drawing of an apple", "an apple")


def test_records_have_all_captions_and_licences(fetched, monkeypatch, tmp_path):
    held = {split: some[0] for split, some in splits.assign_splits(drawings.catalogue()).items()}
    few = [one for one in styles.catalogue() if one.name == "red_apple"]
    few += [one for split, one in held.items() if split != "train"]
    monkeypatch.setattr(styles, "assign_splits", lambda _: divided(held, few))
    source = tfds.open_source("emoji_styles/64", "train", tmp_path)
    assert {source.captions(i)[0] for i in range(len(source))} == {
        f"{article} {style} drawing of a red apple"
        for article, style in (("an", "openmoji"), ("a", "twemoji"), ("a", "fluent"), ("a", "noto"))
    }
    licence = (tmp_path / f"emoji_styles/64/{EmojiStyles.VERSION}/LICENSE").read_text()
    assert all(word in licence for word in ("CC BY-SA 4.0", "MIT", "Apache-2.0"))


def divided(held, few):
    """Red apples to train on, and the others where they are held out."""
    apples = [one for one in few if one.name == "red_apple"]
    return {split: apples if split == "train" else [one] for split, one in held.items()}


def test_without_its_packages_one_line_says_how_to_fetch_them(monkeypatch, tmp_path):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="`make styles` fetches it"):
        tfds.open_source("emoji_styles/64", "train", tmp_path / "data")


def test_without_npm_one_line_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StorageError, match="needs npm"):
        styles.fetch(styles.PACKAGES[0])


def test_it_can_be_a_part_of_a_mixture():
    assert [part for part, _ in split_mixture("folder:a+emoji_styles/64")] == [
        "folder:a", "emoji_styles/64",
    ]  # fmt: skip
