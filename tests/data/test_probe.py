"""What is looked at before a run begins."""

import json

import pytest

from diffjax.core.errors import BadData
from diffjax.data import probe
from diffjax.data.broken import Broken, Skipped
from tests.data.test_broken import records


def test_a_small_data_set_is_looked_at_whole_and_its_broken_records_are_listed(tmp_path):
    listed = tmp_path / "left_out.jsonl"
    broken = Broken(30, 0.1, listed)
    assert probe.probe(records(30, 3, 17), broken) == 30
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [(line["record"], line["name"]) for line in lines] == [(3, "name_3"), (17, "name_17")]
    assert "damaged picture" in lines[0]["reason"]
    assert broken.summary() == f"data: 2 of 30 records were left out, listed in {listed}"
    again = Broken(30, 0.1, listed)
    assert again.seen == broken.seen
    again.add(Skipped(3, "name_3", "met again"))
    assert len(listed.read_text().splitlines()) == 2


def test_more_than_the_limit_are_refused_before_the_run():
    with pytest.raises(BadData, match=r"record 9 \(name_9\): .*1 others, is more .* 1 of 30"):
        probe.probe(records(30, 3, 9), Broken(30, 0.02))


def test_of_a_larger_data_set_a_sample_is_judged_with_room_for_chance(monkeypatch):
    monkeypatch.setattr(probe, "PROBED", 40)
    source = records(400, *range(0, 400, 10))
    with pytest.raises(BadData, match=r"4\d? of the 40 records looked at|of the 40 records"):
        probe.probe(source, Broken(400, 0.01))
    assert probe.probe(records(400, 0, 10), Broken(400, 0.01)) == 40


def test_no_more_bytes_are_read_than_are_meant_for_it(monkeypatch):
    monkeypatch.setattr(probe, "PROBED_BYTES", 1)
    assert probe.probe(records(200), Broken(200, 0.0)) == 64


def test_a_damaged_list_is_set_aside_and_begun_anew(tmp_path, capsys):
    listed = tmp_path / "left_out.jsonl"
    listed.write_text("{")
    assert Broken(30, 0.1, listed).seen == {}
    assert "set aside as left_out.jsonl.damaged" in capsys.readouterr().err
