"""What is exported of a real run is the run: trained on, it ends the same; sampled, it shows it."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from diffjax import sample
from diffjax.checkpoint import __main__ as commands
from diffjax.checkpoint import portable
from diffjax.core import tensorfile
from tests import runs, tiny_t5
from tests.checkpoint.states import flip


def main(*arguments):
    assert commands.main([str(a) for a in arguments]) == 0


@pytest.mark.slow
def test_an_exported_and_imported_run_trains_and_samples_as_the_original(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "cache"))
    encoder = tiny_t5.save_tiny(tmp_path / "t5")
    first, second = tmp_path / "first", tmp_path / "second"
    every = ("train.save_every=2", "train.keep=9", "train.sample_every=0")
    assert runs.run(first, encoder, *every) == 0
    whole = runs.digest(capsys.readouterr().out)
    main("digest", first)
    assert capsys.readouterr().out.startswith(f"{whole}  step 4")

    main("export", first, "--step", 2, "--what", "state", "--out", tmp_path / "state.safetensors")
    main("import", second, tmp_path / "state.safetensors")
    capsys.readouterr()
    assert runs.run(second, encoder, *every) == 0
    out = capsys.readouterr().out
    assert "from step 2" in out
    assert runs.digest(out) == whole

    main("export", first, "--out", tmp_path / "ema.safetensors")
    main("import", tmp_path / "sampled", tmp_path / "ema.safetensors")
    pictures = []
    for workdir in (first, tmp_path / "sampled"):
        flags = ["--workdir", str(workdir), "--prompt", "a frog", "--out", str(tmp_path / "out")]
        assert sample.main(flags) == 0
        (picture,) = (tmp_path / "out").glob("0000_*.png")
        pictures.append(np.asarray(Image.open(picture)))
        shutil.rmtree(tmp_path / "out")
    np.testing.assert_array_equal(*pictures)
    capsys.readouterr()

    assert runs.run(tmp_path / "sampled", encoder, *every) == 2  # an average is not a train state
    assert re.search(r"does not fit this model: opt_state/\S+ is missing", capsys.readouterr().err)


@pytest.mark.slow
def test_sampling_skips_a_damaged_step_and_fails_if_all_are_damaged(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "cache"))
    encoder = tiny_t5.save_tiny(tmp_path / "t5")
    assert runs.run(tmp_path / "run", encoder, "train.save_every=2", "train.sample_every=0") == 0
    flags = ["--workdir", str(tmp_path / "run"), "--prompt", "a frog"]
    out = ["--out", str(tmp_path / "out")]
    checkpoints = tmp_path / "run/checkpoints"
    flip(checkpoints / "4/state/commit_success.txt")  # orbax does not read this file
    capsys.readouterr()
    assert sample.main([*flags, *out, "--verify", "size"]) == 0
    assert "step 4 of" in capsys.readouterr().out
    assert sample.main([*flags, *out, "--overwrite"]) == 0
    said = capsys.readouterr().out
    assert "step 4 is corrupt, skipped: state/commit_success.txt" in said
    assert "step 2 of" in said
    flip(checkpoints / "2/state/_METADATA")
    assert sample.main([*flags, *out]) == 5
    assert "step 2 is corrupt (state/_METADATA" in capsys.readouterr().err
    # training neither starts anew nor resumes from a damaged step
    assert runs.run(tmp_path / "run", encoder, "train.num_steps=6") == 5
    assert "no other step is complete" in capsys.readouterr().err


def test_frozen_weights_of_a_file_are_those_with_the_prefix_and_its_further_metadata(tmp_path):
    file = tmp_path / "x.safetensors"
    tensors = {"frozen/a/b": np.arange(6, dtype=np.float16).reshape(2, 3), "c": np.zeros(2)}
    tensorfile.write(file, tensors, {"step": "3", "config": "{}", "kind": "x"})
    found, said = portable.frozen_of(file)
    assert (list(found), said) == (["frozen/a/b"], {"kind": "x"})
    copy = tmp_path / "copy.safetensors"
    tensorfile.write(copy, found, said)
    there = tensorfile.read(copy, "frozen/a/b")
    assert there.dtype == np.float16
    np.testing.assert_array_equal(there, tensors["frozen/a/b"])
    own, _ = tensorfile.read_tree(file, {"c": np.zeros(2)}, "frozen/")
    np.testing.assert_array_equal(own["c"], 0)
    assert portable.frozen_of(tmp_path / "absent.safetensors") == ({}, {})
