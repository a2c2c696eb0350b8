"""A cache without a caption deep in the data: told in one line, nothing lost, gone on."""

import pytest

from diffjax.build.inputs import embeddings
from diffjax.data import pipeline, readers
from diffjax.data.sources import fake
from diffjax.encoders.cache import cache
from diffjax.encoders.t5 import load_encoder
from tests.runs import digest, run
from tests.tiny_t5 import save_tiny

COUNT = 400


def drawn_last(records, captions):
    """The caption that training meets later than all others, and the batch that it is in."""
    batches = pipeline.train_iterator(records, [readers.caption], batch_size=8, seed=0)
    first: dict[str, int] = {}
    for number in range(100):
        for caption in next(batches)["caption"]:
            first.setdefault(str(caption), number)
    last = max(captions, key=lambda caption: first.get(caption, -1))
    return last, first[last]


@pytest.mark.slow
def test_a_missing_caption_stops_the_run_after_its_finished_steps(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "users"))
    monkeypatch.setattr(embeddings, "LOOKED_FOR", 1)  # made-up captions come often
    folder = str(save_tiny(tmp_path / "t5"))
    encoder = load_encoder(folder, max_length=32)
    records = fake.Shapes(COUNT, 16)
    captions = {caption for i in range(COUNT) for caption in records[i]["captions"]}
    missing, batch = drawn_last(records, captions - set(records[0]["captions"]))
    assert batch > 5
    flags = (
        f"data.name=fake/{COUNT}", f"data.embeddings={tmp_path / 'c'}",
        "train.num_steps=50", "train.log_every=25", "train.save_every=0", "train.sample_every=0",
    )  # fmt: skip
    cache.ensure(tmp_path / "c", encoder, captions - {missing})
    assert run(tmp_path / "run", folder, *flags) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if missing in line)
    assert "python -m diffjax.embed" in line
    cache.ensure(tmp_path / "c", encoder, [missing])
    assert run(tmp_path / "run", folder, *flags) == 0
    ours = capsys.readouterr().out
    assert f"resuming from step {batch - 1}" in ours  # the batch before was on its way
    assert run(tmp_path / "whole", folder, *flags) == 0
    assert digest(ours) == digest(capsys.readouterr().out)
