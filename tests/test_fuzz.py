"""The fuzzers of tools/: each damage damages, the same seed asks for the same, and few damages."""

import random

import pytest

from tools import fuzz_files, fuzz_page


@pytest.mark.parametrize("how", fuzz_files.DAMAGES)
def test_each_damage_changes_its_file_and_nothing_beside_it(how, tmp_path):
    (tmp_path / "other").write_bytes(b"whole")
    path, before = tmp_path / "file", b'{"stage": "a"}'
    path.write_bytes(before)
    fuzz_files.DAMAGES[how](path, random.Random(0))
    assert not path.is_file() or path.read_bytes() != before
    assert (tmp_path / "other").read_bytes() == b"whole"


def test_the_requests_depend_on_the_seed_alone_and_half_of_them_are_for_another_site():
    made = [[fuzz_page.asked(draw) for _ in range(300)] for draw in map(random.Random, (0, 0, 1))]
    assert made[0] == made[1] != made[2]
    foreign = [one for one in made[0] if one.foreign]
    assert 100 < len(foreign) < 200
    assert all(set(one.headers) & {"Host", "Origin", "Sec-Fetch-Site"} for one in foreign)


@pytest.mark.slow
def test_after_twenty_damages_no_start_ends_with_a_traceback_and_no_whole_step_is_lost(tmp_path):
    assert fuzz_files.fuzz(20, 0, tmp_path) == []
