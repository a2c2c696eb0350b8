"""What is exported of a real run is the run: trained on, it ends the same; sampled, it shows it."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from diffjax import sample
from diffjax.checkpoint import __main__ as commands
from tests import encoders, runs


def main(*arguments):
    assert commands.main([str(a) for a in arguments]) == 0


@pytest.mark.slow
def test_an_exported_run_goes_on_and_is_sampled_as_if_it_had_never_left(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "cache"))
    encoder = encoders.save_tiny(tmp_path / "t5")
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
