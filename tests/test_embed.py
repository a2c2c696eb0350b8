import json
import os
import re
import resource
import signal
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from diffjax import embed
from diffjax.build.inputs.embeddings import embeddings_of
from diffjax.build.options import config
from diffjax.core.errors import ConfigError
from diffjax.data import pipeline
from diffjax.data.caption_files import from_files
from diffjax.data.readers import captioned_pictures
from diffjax.data.sources import fake, tfds
from diffjax.encoders.cache import cache
from diffjax.encoders.t5 import load_encoder
from tests.encoders.folders import write
from tests.encoders.stub import Stub


@pytest.fixture
def stub(monkeypatch):
    """What the command takes for the encoder of any name."""
    encoder = Stub()
    monkeypatch.setattr(embed, "load_encoder", lambda name, length, dtype: encoder)
    return encoder


@pytest.fixture
def argv(tmp_path):
    (tmp_path / "captions.txt").write_text("a red apple\n\n a blue cat \na red apple\n")
    return ["--captions", str(tmp_path / "captions.txt"), "--out", str(tmp_path / "cache")]


def test_the_command_writes_what_the_encoder_says(argv, tmp_path, capsys):
    folder = write(tmp_path / "tiny")
    assert embed.main([*argv, "--encoder", str(folder), "--max-length", "40"]) == 0
    encoder = load_encoder(folder, 40)
    made = cache.open_cache(tmp_path / "cache", encoder)
    embedded, mask = encoder.encode(["a red apple", "a blue cat"])
    for caption, row, length in zip(sorted(made, reverse=True), embedded, mask.sum(1), strict=True):
        near = np.asarray(row[:length]).astype(ml_dtypes.bfloat16).astype(np.float32)
        np.testing.assert_allclose(made[caption].astype(np.float32), near, rtol=2**-6, atol=1e-5)
    assert "2 captions, 2 of them new, of tiny" in capsys.readouterr().out


def test_the_command_again_extends_the_cache(argv, stub, tmp_path, capsys):
    assert embed.main(argv) == 0
    (tmp_path / "captions.txt").write_text("a pear\na blue cat\n")
    assert embed.main(argv) == 0
    assert stub.asked[2:] == ["a pear"]
    assert "3 captions, 1 of them new" in capsys.readouterr().out


def test_lines_json_and_parquet_hold_the_same_captions(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    captions = ["naïve ☕", "a red apple", "two\tbirds"]
    (tmp_path / "a.txt").write_text("\n".join(captions), encoding="utf-8")
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps({"text": c, "url": 1}) for c in captions) + "\n\n"
    )
    parquet.write_table(pyarrow.table({"text": captions}), tmp_path / "a.parquet")
    parquet.write_table(
        pyarrow.table({"text": [captions[:2], captions[2:]]}), tmp_path / "b.parquet"
    )
    for name in ("a.txt", "a.jsonl", "a.parquet", "b.parquet"):
        assert list(from_files([tmp_path / name], "text")) == captions
    both = from_files([tmp_path / "a.txt", tmp_path / "b.parquet"], "text")
    assert list(both) == captions * 2
    assert both.records == 5
    assert both.estimate() == 6


def test_captions_of_a_data_set_come_from_its_split(stub, tmp_path, monkeypatch):
    shapes = fake.Shapes(5, 8)
    monkeypatch.setattr(tfds, "open_source", lambda *a, **k: (asked.append((a, k)), shapes)[1])
    asked = []
    assert (
        embed.main(["--data-set", "some/64", "--split", "test", "--out", str(tmp_path / "c")]) == 0
    )
    ((name, split, _), keys) = asked[0]
    assert (name, split) == ("some/64", "test")
    assert (keys["image_key"], keys["caption_key"]) == ("", "captions")
    assert set(cache.open_cache(tmp_path / "c")) == {c for s in shapes for c in s["captions"]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("captions.txt", b"\n \n", "captions.txt: no captions in it"),
        ("captions.txt", b"fine\n\xff\xfe", "captions.txt line 2: not UTF-8"),
        ("captions.txt", None, "captions.txt: no such file"),
        ("cache", b"something else", "not an embeddings cache"),
        (
            "captions.jsonl",
            b'{"caption": "a"}\n{"text": "b"}',
            "line 2: no field 'caption', only ['",
        ),
        ("captions.jsonl", b"\n[1]", "line 2: no field 'caption', only a list"),
        ("captions.jsonl", b"{", "captions.jsonl line 1: not JSON"),
        ("captions.jsonl", b'{"caption": 3}', "field 'caption' is '3', want a string or a list"),
        ("captions.parquet", b"no", "captions.parquet: not parquet"),
    ],
)
def test_bad_input_is_exit_code_2_and_one_line(
    argv, stub, tmp_path, capsys, name, content, message
):
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    if name.startswith("captions."):
        argv[1] = str(tmp_path / name)
    assert embed.main(argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch-size", "0"], "--batch-size = 0: must be from 1 to"),
        (["--process-index", "1"], "--process-index and --process-count need each other"),
        (["--process-index", "2", "--process-count", "2"], "process_index=2, want 0 to 1"),
        (["--shard-mib", "0"], "--shard-mib = 0: must be from 1 to"),
    ],
)
def test_flags_that_cannot_be_are_exit_code_2(flags, message, argv, stub, tmp_path, capsys):
    assert embed.main([*argv, *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "cache").exists()


def test_the_tasks_of_srun_share_the_captions(argv, stub, tmp_path, monkeypatch):
    captions = [f"caption {i}" for i in range(40)]
    (tmp_path / "captions.txt").write_text("\n".join(captions))
    for name, value in {
        "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_NUM_NODES": "2",
        "SLURM_NTASKS": "2", "SLURM_LOCALID": "0",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    sizes = []
    for task in ("0", "1"):
        monkeypatch.setenv("SLURM_PROCID", task)
        assert embed.main(argv) == 0
        sizes.append(len(cache.open_cache(tmp_path / "cache", stub)))
    assert 0 < sizes[0] < sizes[1] == 40


def test_parquet_without_pyarrow_says_what_to_install(argv, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    assert embed.main(["--captions", str(tmp_path / "a.parquet"), *argv[2:]]) == 2
    assert "parquet needs pyarrow: pip install 'diffjax[parquet]'" in capsys.readouterr().err


def test_the_cache_of_another_encoder_is_not_overwritten(argv, stub, tmp_path, capsys):
    assert embed.main(argv) == 0
    object.__setattr__(stub, "max_length", 50)
    assert embed.main(argv) == 2
    assert re.search("max_length 16.*want .*max_length 50", capsys.readouterr().err)


def test_a_full_disk_is_exit_code_5_and_the_same_command_goes_on(argv, stub, tmp_path, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        assert embed.main(argv) == 5
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    error = capsys.readouterr().err
    assert error.startswith(f"embed: {tmp_path / 'cache'}: File too large")
    assert error.count("\n") == 1
    assert embed.main(argv) == 0
    assert len(cache.open_cache(tmp_path / "cache")) == 2


def test_sigterm_is_exit_code_143_with_the_work_kept(argv, stub, tmp_path, capsys, monkeypatch):
    (tmp_path / "captions.txt").write_text("\n".join(f"photo {i}" for i in range(50)))
    plain = Stub.encode

    def encode(self, captions, length=None):
        os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, captions, length)

    monkeypatch.setattr(Stub, "encode", encode)
    assert embed.main([*argv, "--batch-size", "8"]) == 143
    assert len(cache.open_cache(tmp_path / "cache")) == 8
    assert "run again" in capsys.readouterr().err
    monkeypatch.setattr(Stub, "encode", plain)
    assert embed.main(argv) == 0
    assert len(cache.open_cache(tmp_path / "cache")) == 50


def test_two_processes_share_the_work_of_one_directory(argv, stub, tmp_path, capsys):
    (tmp_path / "captions.txt").write_text("\n".join(f"photo {i}" for i in range(50)))
    for index in "01":
        assert embed.main([*argv, "--process-index", index, "--process-count", "2"]) == 0
    assert sorted(stub.asked) == sorted({f"photo {i}" for i in range(50)})
    assert len(cache.open_cache(tmp_path / "cache")) == 50


def test_lines_of_progress_tell_speed_and_time_left(capsys):
    now = [0.0]
    lines = embed.Lines(lambda: 2000, every=10, clock=lambda: now[0])
    lines(500, 20)  # 480 were there already
    now[0] = 20.0
    lines(700, 220)
    now[0] = 21.0
    lines(710, 230)
    # (700 - 480) in 20 s, 1300 to go
    assert capsys.readouterr().err == "embed: 700 of 2000 captions, 11/s, ETA 2 min\n"


@pytest.mark.slow
def test_the_page_on_embeddings_is_true_of_the_shipped_encoder(tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs/text.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert names["embeddings"]["a red apple"].shape[1] == 256
    assert names["padded"].shape == (2, 16, 256)
    assert names["mask"].shape == (2, 16)


def test_training_refuses_a_cache_that_does_not_fit_in_one_line(tmp_path):
    options = config.load("configs/base64.py:tiny")
    options.data.embeddings = str(tmp_path / "c")
    records = fake.Shapes(100, 8)
    with pytest.raises(ConfigError, match=r"data\.embeddings = .*no such embeddings cache"):
        embeddings_of(options, records, Stub())
    cache.ensure(tmp_path / "c", Stub(), ["a pear"])
    with pytest.raises(ConfigError, match=r"has no caption .*; python -m diffjax\.embed --out"):
        embeddings_of(options, records, Stub())
    captions = {caption for record in records for caption in record["captions"]}
    cache.ensure(tmp_path / "c", Stub(), captions)
    assert len(embeddings_of(options, records, Stub())) == len(captions) + 1
    with pytest.raises(ConfigError, match=r"holds embeddings of stub .* want other \(") as caught:
        embeddings_of(options, records, Stub(name="other"))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_worker_processes_of_the_pipeline_read_the_cache_too(tmp_path):
    records = fake.Shapes(16, 8)
    captions = (caption for record in records for caption in record["captions"])
    embed_caption = cache.ensure(tmp_path / "c", Stub(), captions).embed
    columns = captioned_pictures(size_px=8, embed=embed_caption, max_length=16)
    here = pipeline.train_iterator(records, columns, batch_size=4, seed=0)
    there = pipeline.train_iterator(records, columns, batch_size=4, seed=0, worker_count=1)
    try:
        for _ in range(3):
            np.testing.assert_array_equal(next(here)["text"], next(there)["text"])
    finally:
        there.close()


def test_captions_of_no_named_cache_are_encoded_into_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path))
    made = embeddings_of(config.load("configs/base64.py:tiny"), fake.Shapes(10, 8), Stub())
    assert made.path == tmp_path / "stub-01234567-16"
    assert {caption for r in fake.Shapes(10, 8) for caption in r["captions"]} == set(made)
