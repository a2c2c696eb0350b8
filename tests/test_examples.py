"""The examples run as their first lines say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_the_swiss_roll_is_learned_and_every_sampler_lands_on_it(tmp_path):
    """Seen: 0.006 to 0.011, where points of the noise itself lie 0.4 away on average."""
    picture = tmp_path / "roll.png"
    done = subprocess.run(
        [sys.executable, "examples/swiss_roll.py", str(picture)],
        cwd=ROOT, env={**os.environ, "MPLBACKEND": "agg"}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    gaps = dict(re.findall(r"^(\w+) +mean distance from the roll ([\d.]+)$", done.stdout, re.M))
    assert len(gaps) == 8
    assert all(float(gap) < 0.03 for gap in gaps.values()), gaps
    assert picture.stat().st_size > 10_000


def test_the_swiss_roll_stays_under_a_hundred_lines():
    assert len((ROOT / "examples/swiss_roll.py").read_text().splitlines()) < 100
