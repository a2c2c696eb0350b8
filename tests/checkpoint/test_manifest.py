import hashlib
import random
import shutil

import pytest

from diffjax import checkpoint
from diffjax.checkpoint import manifest
from diffjax.core import digest
from tests.checkpoint.states import array_files, fill, like, state


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    fill(path, 1, 2)
    return path


def test_the_manifest_holds_the_size_and_sha256_of_every_file(saved):
    content = manifest._from_bytes((saved / "2/manifest.json").read_bytes())
    files = [f for f in (saved / "2").rglob("*") if f.is_file() and f.name != "manifest.json"]
    assert len(content["files"]) == len(files) > 5
    for file in files:
        entry = content["files"][file.relative_to(saved / "2").as_posix()]
        assert entry["bytes"] == file.stat().st_size
        assert entry["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


DAMAGES = {
    "flip": lambda raw, r: _flip(raw, r.randrange(len(raw) * 8)),
    "cut": lambda raw, r: raw[: r.randrange(len(raw))],
    "zeros": lambda raw, r: bytes(len(raw)),
    "hole": lambda raw, r: _hole(raw, r.randrange(len(raw)), r.randrange(1, 64)),
    "longer": lambda raw, r: raw + r.randbytes(r.randrange(1, 64)),
    "gone": lambda raw, r: None,
}


def _flip(raw, bit):
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _hole(raw, start, length):
    return raw[:start] + bytes(x ^ 255 for x in raw[start : start + length]) + raw[start + length :]


def damaged(path, r):
    """Damage a random file below `path`; returns its name and a function that undoes it."""
    file = r.choice(sorted(f for f in path.rglob("*") if f.is_file() and f.stat().st_size))
    raw = file.read_bytes()
    changed = raw
    while changed == raw:
        changed = r.choice(list(DAMAGES.values()))(raw, r)
    if changed is None:
        file.unlink()
    else:
        file.write_bytes(changed)
    return file.relative_to(path).as_posix(), lambda: file.write_bytes(raw)


def test_every_damage_is_noticed_and_the_damaged_file_is_named(saved, capsys):
    r = random.Random(0)
    checkpoints = checkpoint.open_to_read(saved)
    for _ in range(30):
        name, undo = damaged(saved / "2", r)
        assert checkpoint.choose(checkpoints).name == "1"
        assert name in capsys.readouterr().out
        undo()
    assert checkpoint.choose(checkpoints).name == "2"


@pytest.mark.slow
def test_after_each_of_two_hundred_damages_the_previous_step_is_restored(saved, capsys):
    r = random.Random(1)
    good = digest.leaf_digests(state(1))
    for _ in range(200):
        name, undo = damaged(saved / "2", r)
        restored, _ = checkpoint.restore(checkpoint.open_to_read(saved), like())
        assert digest.leaf_digests(restored) == good
        assert name in capsys.readouterr().out
        undo()


def test_orbax_alone_loads_a_flipped_bit_without_an_error(saved, tmp_path):
    """This is why there is a manifest. If it fails one day, orbax has learnt to check."""
    shutil.copytree(saved / "2", tmp_path / "2")
    good = digest.leaf_digests(state(2))
    file = array_files(tmp_path / "2")[0]
    raw, silent = file.read_bytes(), 0
    for position in range(0, len(raw), max(1, len(raw) // 12)):
        file.write_bytes(_flip(raw, position * 8))
        try:
            silent += digest.leaf_digests(checkpoint.read(tmp_path / "2")[0]) != good
        except Exception:  # any error counts as noticed
            continue
    assert silent > 0


def test_a_partly_copied_step_is_never_the_newest(saved, tmp_path):
    fill(tmp_path, 1)
    for names in (["_CHECKPOINT_METADATA"], ["state"], ["manifest.json", "_CHECKPOINT_METADATA"]):
        half = tmp_path / "7"
        half.mkdir()
        for name in names:
            copy = shutil.copytree if (saved / "2" / name).is_dir() else shutil.copy
            copy(saved / "2" / name, half / name)
        (found,) = (f for f in checkpoint.survey(tmp_path) if f.step == 7)
        assert found.state in ("incomplete", "corrupt", "foreign")
        assert checkpoint.open_to_read(tmp_path).latest_step() == 1
        shutil.rmtree(half)
    shutil.copytree(saved / "2", tmp_path / "7")
    (tmp_path / "7/commit_success.txt").unlink(missing_ok=True)
    assert checkpoint.open_to_read(tmp_path).latest_step() == 1


@pytest.mark.parametrize("name", ["cut", "longer", "gone"])
def test_a_file_of_another_size_is_noticed_without_reading_it(name, tmp_path):
    folder = tmp_path / "3"
    folder.mkdir()
    for file in ("state", "data"):
        (folder / file).write_bytes(b"0123456789")
    manifest.write(folder)
    assert manifest.inspect(folder, full=False).state == "good"
    changed = DAMAGES[name](b"0123456789", random.Random(0))
    (folder / "data").unlink() if changed is None else (folder / "data").write_bytes(changed)
    found = manifest.inspect(folder, full=False)
    assert (found.state, found.why.split()[0]) == ("corrupt", "data")
