"""What commands say of JSON that is damaged, file by file: one line that names it, and no more."""

import json
from pathlib import Path

import numpy as np
import pytest

from configs import base64
from diffjax import sample
from diffjax.build.options import config, resume
from diffjax.build.stages import places
from diffjax.checkpoint import __main__ as checkpoints
from diffjax.checkpoint import manifest, portable, workdir
from diffjax.core import command, tensorfile
from diffjax.core.errors import Ending
from diffjax.encoders import unreadable, weights
from diffjax.encoders.cache import shards
from diffjax.logs import goodput, writer
from tests.damage import KINDS
from tests.tiny_t5 import save_tiny

# Those that can stand in a file's metadata, which are text.
TEXTS = [kind for kind in KINDS if kind not in ("folder", "not UTF-8", "UTF-16", "empty")]
damaged = pytest.mark.parametrize("kind", KINDS)


def line_of(capsys):
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    assert len(err) < 600
    return err


@pytest.fixture
def run(tmp_path):
    """A workdir with a config."""
    folder = tmp_path / "run"
    folder.mkdir()
    config.save(base64.get_config("tiny"), folder / "config.json")
    return folder


@damaged
def test_a_config_beside_a_run_is_refused_with_its_name(kind, run, capsys):
    KINDS[kind](run / "config.json")
    for read in (
        lambda: sample.main(["--workdir", str(run), "--prompt", "x", "--out", str(run / "out")]),
        lambda: command.exit_code_of(
            lambda: resume.allowed_changes(base64.get_config("tiny"), run)
        ),
    ):
        assert read() in (2, 5)
        assert str(run) in line_of(capsys)


@pytest.mark.parametrize(
    "wrong",
    [{"data": {}}, {"text": {}}, {"data": {"size_px": None}}, {"text": {"max_tokens": "many"}},
     {"model": {"kind": 3}}, {"model": {"width": "x"}}, {"model": {"mults": 7}},
     {"diffusion": {"schedule": ["cosine"]}}, {"sample": {"num_steps": {}}}, {"low_res": {}},
     {"text": {"encoder": 3}}],
    ids=str,
)  # fmt: skip
def test_a_stored_config_of_other_keys_or_types_is_refused_with_its_name(wrong, run, capsys):
    whole = json.loads((run / "config.json").read_text())
    for section, values in wrong.items():
        whole[section] = whole[section] | values if values else {}
    (run / "config.json").write_text(json.dumps(whole))
    code = sample.main(["--workdir", str(run), "--prompt", "x", "--out", str(run / "out")])
    line = line_of(capsys)
    assert code == 2
    assert str(run) in line


@damaged
def test_an_export_refuses_a_config_that_it_would_hand_on(kind, run, capsys):
    if kind in ("other program's", "5,000 digits"):
        pytest.skip("it is a JSON object: whoever reads the export says the rest")
    KINDS[kind](run / "config.json")
    with pytest.raises(Ending, match=str(run)):
        portable.config_of(run)


@pytest.mark.parametrize("kind", TEXTS)
def test_a_config_in_an_export_is_refused_with_the_file(kind, run, tmp_path, capsys):
    text = run / "config.json"
    KINDS[kind](text)
    file = tmp_path / "stage.safetensors"
    tensorfile.write(file, {"w": np.zeros(3)}, {"config": text.read_text(), "step": "3"})
    assert sample.main(["--stages", str(file), "--prompt", "x", "--out", str(run / "o")]) in (2, 5)
    assert str(file) in line_of(capsys)


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("field", ["config", "data_position"])
def test_an_import_refuses_metadata_that_are_damaged(kind, field, run, tmp_path, capsys):
    if kind in ("other program's", "5,000 digits") and field == "config":
        pytest.skip("it is a JSON object: whoever reads the workdir says the rest")
    text = run / "config.json"
    metadata = {"step": "3", "digest": "d", "config": text.read_text(), "data_position": "{}"}
    KINDS[kind](text)
    file = tmp_path / "state.safetensors"
    tensorfile.write(file, {"w": np.zeros(3)}, {**metadata, field: text.read_text()})
    if kind == "other program's":
        assert portable.load(file)[2]["version"] == 3  # what the data make of it, they say
        return
    assert checkpoints.main(["import", str(tmp_path / "new"), str(file)]) == 2
    assert str(file) in line_of(capsys)


@damaged
def test_seconds_that_are_damaged_are_set_aside_and_counted_anew(kind, tmp_path, capsys):
    path = tmp_path / "goodput.json"
    goodput.Goodput(path).saved(3)
    KINDS[kind](path)
    spent = goodput.Goodput(path)
    spent.resume(3)
    assert "goodput.json.damaged" in line_of(capsys)
    assert (tmp_path / "goodput.json.damaged").exists()
    spent.saved(4)
    assert list(json.loads(path.read_text())["saves"]) == ["4"]


@pytest.mark.parametrize(
    "content",
    [{"written": "x"}, {"seconds": []}, {"seconds": {}}, {"saves": {"x": {}}}, {"saves": 3},
     {"written": -1}, {"written": 10**400}, {"saves": {"3": {"step": None}}}],
)  # fmt: skip
def test_seconds_of_another_form_are_set_aside(content, tmp_path, capsys):
    path = tmp_path / "goodput.json"
    goodput.Goodput(path).saved(3)
    path.write_text(json.dumps(json.loads(path.read_text()) | content))
    goodput.Goodput(path).resume(3)
    assert "goodput.json.damaged" in line_of(capsys)


@damaged
def test_a_log_that_is_damaged_is_set_aside_and_its_good_lines_kept(kind, tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    good = b'{"step": 1, "loss": 2.0}\n'
    path.write_bytes(good)
    KINDS[kind](path)
    if path.is_file():
        path.write_bytes(good + path.read_bytes() + b"\n" + good)
    for _ in range(2):  # what is left is whole
        log = writer.Log(tmp_path, resumed_at=5, open_events=lambda folder: None)
        log.scalars(6, {"loss": 1.0})
        log.close()
    aside = [one.name for one in tmp_path.iterdir() if "damaged" in one.name]
    assert aside == ["metrics.jsonl.damaged"]
    warnings = [one for one in capsys.readouterr().err.splitlines() if "metrics.jsonl" in one]
    assert len(warnings) == 1
    kept = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert kept == ([6] if kind == "folder" else [1, 1, 6])


@damaged
def test_a_lock_that_is_damaged_is_as_one_given_back(kind, tmp_path, capsys):
    with workdir.lock(tmp_path):
        pass
    (tmp_path / "lock.json").write_text('{"pid": 3}')
    KINDS[kind](tmp_path / "lock.json")
    with workdir.lock(tmp_path, heartbeat=0.01):
        assert json.loads((tmp_path / "lock.json").read_text())["pid"]


@damaged
def test_a_manifest_that_is_damaged_makes_its_step_corrupt(kind, tmp_path):
    step = tmp_path / "7"
    step.mkdir()
    (step / "array").write_bytes(b"123")
    manifest.write(step)
    assert manifest.inspect(step, full=True).state == "good"
    KINDS[kind](step / "manifest.json")
    found = manifest.inspect(step, full=True)
    assert found.state == "corrupt"
    assert "manifest.json" in found.why


@damaged
def test_a_config_of_an_encoder_is_refused_with_its_name(kind, tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"d_model": 3}')
    KINDS[kind](file)
    if kind == "other program's":
        assert (
            unreadable.read_downloaded_json(file)["version"] == 3
        )  # who reads its keys says the rest
        return
    with pytest.raises(ValueError, match=str(file)) as error:
        unreadable.read_downloaded_json(file)
    assert "\n" not in str(error.value)


@damaged
def test_a_header_of_a_cache_is_refused_with_its_folder(kind, tmp_path):
    header = shards.Header("t5", "f" * 8, 4, 8)
    (tmp_path / shards.HEADER).write_bytes(shards.to_json(header))
    assert shards.read_header(tmp_path) == header
    KINDS[kind](tmp_path / shards.HEADER)
    with pytest.raises(ValueError, match=str(tmp_path)) as error:
        shards.read_header(tmp_path)
    assert "\n" not in str(error.value)


def lying(file, **wrong):
    """The shipped first stage with another config in its metadata."""
    whole = places.stage_dirs()[0]
    metadata = {k: v for k, v in tensorfile.read_metadata(whole).items() if k != "sha256"}
    options = json.loads(metadata["config"])
    for key, value in wrong.items():
        section, _, name = key.partition("__")
        options[section][name] = value
    arrays = {name: tensorfile.read(whole, name) for name in tensorfile.shapes(whole)}
    tensorfile.write(file, arrays, metadata | {"config": json.dumps(options)})


@pytest.mark.parametrize(
    ("key", "value"),
    [("model__num_blocks", 10**9), ("model__num_blocks", 1000), ("model__mults", [1] * 10**5),
     ("model__width", 10**12), ("model__width", -1), ("text__max_tokens", 10**9),
     ("data__size_px", 10**9), ("diffusion__logsnr_max", 1e300)],
)  # fmt: skip
def test_sizes_that_lie_are_refused_before_a_network_is_built(key, value, tmp_path, capsys):
    """The file of a stranger; ten to the ninth blocks would never end."""
    file = tmp_path / "lie.safetensors"
    lying(file, **{key: value})
    flags = ["--prompt", "x", "--out", str(tmp_path / "out"), "--stages", str(file)]
    assert sample.main(flags) == 2
    line = line_of(capsys)
    assert key.replace("__", ".") in line
    assert str(file) in line


@pytest.mark.parametrize("layers", [10**9, 500, 0, -1, True, "6", 10**30])
def test_a_config_of_an_encoder_with_other_layers_than_its_tensors_is_refused(layers, tmp_path):
    folder = Path(save_tiny(tmp_path))
    said = json.loads((folder / "config.json").read_text()) | {"num_layers": layers}
    (folder / "config.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match="num_layers"):
        weights.check_folder(folder)


@pytest.mark.parametrize("name", ["d_model", "vocab_size", "d_ff", "num_heads"])
def test_a_config_of_an_encoder_whose_sizes_lie_is_refused(name, tmp_path):
    folder = Path(save_tiny(tmp_path))
    said = json.loads((folder / "config.json").read_text())
    for value in (10**30, 2**31 - 1):
        (folder / "config.json").write_text(json.dumps(said | {name: value}))
        with pytest.raises(ValueError, match=rf"{name}|has shape"):
            weights.check_folder(folder)


def test_parameters_that_are_not_finite_are_refused_with_the_name_of_the_array(tmp_path, capsys):
    """A picture made of them would be black."""
    whole = places.stage_dirs()[0]
    file = tmp_path / "base64.safetensors"
    names = list(tensorfile.shapes(whole))
    for value in (np.nan, np.inf):
        arrays = {name: tensorfile.read(whole, name) for name in names}
        bad = arrays[names[3]].copy()
        bad.reshape(-1)[0] = value
        metadata = {k: v for k, v in tensorfile.read_metadata(whole).items() if k != "sha256"}
        tensorfile.write(file, arrays | {names[3]: bad}, metadata)
        flags = ["--prompt", "x", "--out", str(tmp_path / "out"), "--stages", str(file)]
        assert sample.main(flags) == 5
        line = line_of(capsys)
        assert f"{file}: {names[3]} holds NaN or infinity" in line
        assert not (tmp_path / "out").exists()


def test_links_to_nothing_in_the_place_of_a_lock_and_a_log_are_set_aside(tmp_path, capsys):
    for name in ("lock.json", "metrics.jsonl"):
        (tmp_path / name).symlink_to("/nowhere/at/all")
    with workdir.lock(tmp_path):
        log = writer.Log(tmp_path, open_events=lambda folder: None)
        log.scalars(1, {"loss": 1.0})
        log.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["step"] == 1
    said = capsys.readouterr().err
    assert "set aside as lock.json.damaged" in said
    assert "set aside as metrics.jsonl.damaged" in said
