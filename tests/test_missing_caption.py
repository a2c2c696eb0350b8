"""A cache without a caption deep in the data: told in one line, nothing lost, gone on."""

import pytest

from diffjax.data import fake
from diffjax.embeddings import LOOKED_FOR
from diffjax.text import cache, load_encoder
from tests.encoders import save_tiny
from tests.runs import digest, run

COUNT = 400


@pytest.mark.slow
def test_a_missing_caption_stops_the_run_after_its_finished_steps(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "users"))
    folder = str(save_tiny(tmp_path / "t5"))
    encoder = load_encoder(folder, max_length=32)
    records = fake.Shapes(COUNT, 16)
    captions = [set(records[i]["captions"]) for i in range(COUNT)]
    looked_for = set().union(*captions[:: COUNT // LOOKED_FOR + 1])
    missing = max(set().union(*captions) - looked_for)
    flags = (
        f"data.name=fake/{COUNT}", f"data.embeddings={tmp_path / 'c'}",
        "train.num_steps=100", "train.log_every=50", "train.save_every=0", "train.sample_every=0",
    )  # fmt: skip
    cache.ensure(tmp_path / "c", encoder, set().union(*captions) - {missing})
    assert run(tmp_path / "run", folder, *flags) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if missing in line)
    assert "python -m diffjax.embed" in line
    cache.ensure(tmp_path / "c", encoder, [missing])
    assert run(tmp_path / "run", folder, *flags) == 0
    ours = capsys.readouterr().out
    assert "resuming from step" in ours
    assert run(tmp_path / "whole", folder, *flags) == 0
    assert digest(ours) == digest(capsys.readouterr().out)
