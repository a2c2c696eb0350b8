"""The fuzzers of tools/: each damage damages, the same seed asks for the same, and few damages."""

import importlib.util
import json
import os
import random
import re
import shutil
import subprocess
import sys

import pytest

from tests import runs
from tools.strain import forked, fuzz_files, fuzz_page


@pytest.mark.parametrize("how", fuzz_files.DAMAGES)
def test_each_damage_changes_its_file_and_nothing_beside_it(how, tmp_path):
    (tmp_path / "other").write_bytes(b"whole")
    path, before = tmp_path / "file", b'{"stage": "a"}'
    path.write_bytes(before)
    fuzz_files.DAMAGES[how](path, random.Random(0))
    assert not path.is_file() or path.read_bytes() != before
    assert (tmp_path / "other").read_bytes() == b"whole"


def test_what_is_logged_is_not_done_again_and_a_line_that_was_cut_short_is(tmp_path):
    log = tmp_path / "log-0.jsonl"
    assert fuzz_files.logged(log) == {}
    lines = [json.dumps({"number": number, "wrong": []}) for number in (0, 1, 3)]
    log.write_text("\n".join(lines)[:-5])
    assert set(fuzz_files.logged(log)) == {0, 1}


def test_there_are_the_modules_that_forks_have_imported():
    for name in (*fuzz_files.COMMANDS, *forked.LATER):
        assert importlib.util.find_spec(name), name


def test_the_requests_depend_on_the_seed_alone_and_half_of_them_are_for_another_site():
    made = [[fuzz_page.asked(draw) for _ in range(300)] for draw in map(random.Random, (0, 0, 1))]
    assert made[0] == made[1] != made[2]
    foreign = [one for one in made[0] if one.foreign]
    assert 100 < len(foreign) < 200
    assert all(set(one.headers) & {"Host", "Origin", "Sec-Fetch-Site"} for one in foreign)


@pytest.mark.slow
def test_after_twenty_damages_no_start_ends_with_a_traceback_and_no_whole_step_is_lost(tmp_path):
    assert fuzz_files.fuzz(20, 0, tmp_path) == []


def plain(said):
    """What a command said, without what differs from start to start."""
    return re.sub(r" *\d+\.\d+|\d+:\d\d:\d\d|(?<=-)[0-9a-f]{8}\b", " N", said)


@pytest.mark.slow
def test_a_fork_ends_and_says_what_a_fresh_process_does(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "users"))
    whole, kept = tmp_path / "copy", tmp_path / "kept"
    with forked.forks(fuzz_files.COMMANDS, {}) as run:
        fuzz_files.prepare(tmp_path, run)

        def both(command, flags):
            shutil.copytree(whole, kept, symlinks=True)
            forked = run(command, flags, tmp_path / "said.txt")
            shutil.rmtree(whole)
            kept.rename(whole)
            fresh = subprocess.run(
                [sys.executable, "-m", command.removesuffix(".__main__"), *flags],
                cwd=runs.ROOT, env=dict(os.environ), text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            assert forked.code == fresh.returncode
            assert plain(forked.said) == plain(fresh.stdout)
            return forked.code

        codes = []
        for what, how in (("config.json", "noise"), ("checkpoints/4/manifest.json", "cut"),
                          ("data.json", "folder"), ("checkpoints", "gone")):  # fmt: skip
            shutil.rmtree(whole, ignore_errors=True)
            shutil.copytree(tmp_path / "run", whole)
            if how == "gone":
                shutil.rmtree(whole / what)
                (whole / "config.json").write_text("{")
            else:
                fuzz_files.DAMAGES[how](whole / what, random.Random(0))
            codes.append(both(fuzz_files.TRAIN, fuzz_files.told(whole, tmp_path / "t5")))
        codes.append(both(fuzz_files.EXPORT, ["list", str(whole)]))
        codes.append(both(fuzz_files.SAMPLE, ["--stages", str(whole / "no"), "--prompt", "x"]))
    assert set(codes) == {0, 2, 5}
