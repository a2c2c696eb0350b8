"""python -m diffjax.checkpoint, and the page about it."""

import json
import re
import shlex
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from diffjax import checkpoint
from diffjax.checkpoint import __main__ as commands
from diffjax.core import digest
from tests.checkpoint.states import POSITION, array_files, fill, flip, like, state

PAGE = Path(__file__).resolve().parents[2] / "docs/checkpoints.md"
CONFIG = json.dumps({"train": {"ema": ["decay_0.9"]}})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir with steps 1 to 3. Tests must not change it."""
    path = tmp_path_factory.mktemp("run")
    fill(path / "checkpoints", 1, 2, 3)
    (path / "config.json").write_text(CONFIG)
    return path


def main(*arguments):
    return commands.main([str(a) for a in arguments])


def test_list_prints_state_size_date_and_fault_of_each_step(run, tmp_path, capsys):
    assert main("list", run) == 0
    head, *rows = capsys.readouterr().out.splitlines()[1:]
    assert head.split() == ["step", "state", "size", "saved"]
    for step, row in zip("123", rows, strict=True):
        assert re.fullmatch(rf" +{step} +good +[\d.]+ kB +20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", row)
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/checkpoints/2/manifest.json").unlink()
    (tmp_path / "run/checkpoints/3/data/metadata").unlink()
    assert main("list", tmp_path / "run") == 0
    _, second, third = capsys.readouterr().out.splitlines()[2:]
    assert "incomplete" in second
    assert third.endswith("data/metadata is missing")


def test_verify_checks_hashes_and_exits_with_5_if_a_step_is_damaged(run, tmp_path, capsys):
    assert main("verify", run) == 0
    assert "hashed in" in capsys.readouterr().out
    stages = tmp_path / "cascade"
    for stage in ("base64", "sr256"):
        shutil.copytree(run, stages / stage)
    assert main("verify", stages) == 0
    file = array_files(stages / "sr256/checkpoints/2")[0]
    flip(file, position=9)
    assert main("list", stages) == 0
    assert main("verify", stages) == 5
    (line,) = (x for x in capsys.readouterr().out.splitlines() if "corrupt" in x)
    assert f"{file.name} has bytes that differ from those written" in line


def test_digest_prints_the_digest_of_the_state_in_memory(run, capsys):
    assert main("digest", run, "--step", 2, "--arrays") == 0
    *arrays, whole = capsys.readouterr().out.splitlines()
    assert whole.split()[0] == digest.digest_of(state(2), POSITION)
    assert dict(x.split()[::-1] for x in arrays) == digest.leaf_digests(state(2))


def test_exporting_and_importing_a_whole_state_keeps_every_bit(run, tmp_path, capsys):
    file, other = tmp_path / "state.safetensors", tmp_path / "other"
    assert main("export", run, "--what", "state", "--step", 2, "--out", file) == 0
    assert main("import", other, file) == 0
    restored, position = checkpoint.restore(
        checkpoint.open_to_read(other / "checkpoints"), like(), step=2
    )
    assert jax.tree.structure(restored) == jax.tree.structure(state(2))
    assert digest.digest_of(restored, position) == digest.digest_of(state(2), POSITION)
    assert json.loads((other / "config.json").read_text()) == json.loads(CONFIG)
    assert main("import", other, file) == 2
    assert "has a step 2; name another workdir" in capsys.readouterr().err


def test_export_writes_the_default_average_in_a_file_that_safetensors_reads(run, tmp_path):
    file = tmp_path / "ema.safetensors"
    assert main("export", run, "--out", file) == 0
    with safe_open(file, framework="np") as reader:
        metadata = reader.metadata()
        names = list(reader.keys())
        kernel = reader.get_tensor("out/kernel")
    assert metadata["ema"] == "decay_0.9"
    assert metadata["step"] == "3"
    assert json.loads(metadata["config"]) == json.loads(CONFIG)
    assert sorted(names) == ["norm/bias", "out/kernel"]
    np.testing.assert_array_equal(kernel, state(3).ema_params["decay_0.9"]["out"]["kernel"])


def test_export_writes_the_live_parameters_of_a_run_without_averages(run, tmp_path):
    shutil.copytree(run / "checkpoints/3", tmp_path / "run/checkpoints/3")
    (tmp_path / "run/config.json").write_text('{"train": {"ema": []}}')
    assert main("export", tmp_path / "run", "--out", tmp_path / "live.safetensors") == 0
    with safe_open(tmp_path / "live.safetensors", framework="np") as reader:
        assert reader.metadata()["ema"] == "live"
        kernel = reader.get_tensor("out/kernel")
    np.testing.assert_array_equal(kernel, state(3).params["out"]["kernel"])


@pytest.mark.parametrize(("what", "where"), [("decay_0.9", "ema_params"), ("live", "params")])
def test_export_in_bfloat16_rounds_once_and_import_gives_float32(run, tmp_path, what, where):
    file, other = tmp_path / "half.safetensors", tmp_path / "other"
    assert main("export", run, "--what", what, "--dtype", "bfloat16", "--out", file) == 0
    assert main("import", other, file) == 0
    tree, _ = checkpoint.read(other / "checkpoints/3")
    assert sorted(tree) == sorted([where, "step"])
    part = tree["params"] if what == "live" else tree["ema_params"][what]
    want = getattr(state(3), where)
    want = want["out"]["kernel"] if what == "live" else want[what]["out"]["kernel"]
    assert part["out"]["kernel"].dtype == np.float32
    np.testing.assert_array_equal(
        part["out"]["kernel"], np.asarray(want).astype(ml_dtypes.bfloat16).astype(np.float32)
    )


def test_export_in_bytes_is_imported_as_near_numbers_in_less_than_half_of_the_size(run, tmp_path):
    files = {dtype: tmp_path / f"{dtype}.safetensors" for dtype in ("float32", "int8")}
    for dtype, file in files.items():
        assert main("export", run, "--what", "live", "--dtype", dtype, "--out", file) == 0
    assert files["int8"].stat().st_size < 0.5 * files["float32"].stat().st_size
    assert main("import", tmp_path / "other", files["int8"]) == 0
    kernel = checkpoint.read(tmp_path / "other/checkpoints/3")[0]["params"]["out"]["kernel"]
    want = np.asarray(state(3).params["out"]["kernel"])
    assert kernel.dtype == np.float32
    assert (np.abs(kernel - want) <= np.abs(want).max(0) / 250).all()


def test_a_damaged_export_is_not_imported(run, tmp_path, capsys):
    file = tmp_path / "state.safetensors"
    assert main("export", run, "--what", "state", "--out", file) == 0
    flip(file, position=file.stat().st_size - 3)
    assert main("import", tmp_path / "other", file) == 2
    assert "damaged" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_damaged_step_is_not_exported(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    flip(array_files(tmp_path / "run/checkpoints/3")[0])
    out = tmp_path / "ema.safetensors"
    assert main("export", tmp_path / "run", "--step", 3, "--out", out) == 5
    assert "step 3 is corrupt" in capsys.readouterr().err
    assert not out.exists()
    assert main("export", tmp_path / "run", "--out", out) == 0  # the newest complete step
    with safe_open(out, framework="np") as reader:
        assert reader.metadata()["step"] == "2"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list", "{tmp}"], "holds no checkpoints"),
        (["digest", "{run}", "--step", "9"], "no checkpoint of step 9"),
        (["export", "{run}", "--what", "decay_0.5", "--out", "{tmp}/x"], "ema_params/decay_0.5"),
        (
            ["export", "{run}", "--what", "state", "--dtype", "bfloat16", "--out", "{tmp}/x"],
            "--dtype = 'bfloat16'",
        ),
        (["export", "{cascade}", "--out", "{tmp}/x"], "has several stages: name one of"),
        (["import", "{tmp}", "{run}/config.json"], "not safetensors"),
        (["import", "{tmp}", "{tmp}/absent"], "absent"),
    ],
)
def test_bad_input_prints_one_line_and_exits_with_2(arguments, words, run, tmp_path, capsys):
    cascade = tmp_path / "cascade"
    for stage in ("base64", "sr256"):
        (cascade / stage / "checkpoints").mkdir(parents=True)
    tmp = tmp_path / "empty"
    tmp.mkdir()
    assert main(*(a.format(run=run, tmp=tmp, cascade=cascade) for a in arguments)) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert "\n" not in error
    assert list(tmp.iterdir()) == []


def test_every_command_of_the_documentation_page_works(run, tmp_path, monkeypatch, capsys):
    """The page's runs/base64 is a small run here; otherwise the commands are unchanged."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "runs/base64")
    lines = re.findall(r"^python -m diffjax\.checkpoint (.*)$", PAGE.read_text(), re.M)
    assert len(lines) >= 6
    assert {line.split()[0] for line in lines} == {"list", "verify", "digest", "export", "import"}
    for line in lines:
        assert main(*shlex.split(line, comments=True)) == 0, line
