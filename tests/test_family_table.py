"""The table of systems: each number stands in its column, and a report is not made twice."""

import argparse
import json

from tools.checks import family_table

RIGHT = {name: {"pixels": {"right": {"share": share}}} for name, share in
         (("seen", 0.1), ("style", 0.2), ("compositional", 0.3), ("test", 0.4))}  # fmt: skip
SETS = {"numbers": {"fd_lite0_of_7": 251.6, "kid_lite0": 0.2371, "clip_score": 17.14,
                    "r_precision": 0.5}}  # fmt: skip


def test_a_report_that_is_there_is_read_and_its_numbers_stand_in_their_columns(tmp_path):
    (tmp_path / "one_sets.json").write_text(json.dumps({"sets": SETS}))
    (tmp_path / "one_right.json").write_text(json.dumps(RIGHT))
    given = argparse.Namespace(out=tmp_path, num=7, prompts=3)
    found = family_table.report(tmp_path / "one", given)
    header, _, row = family_table.table({"one": found}, 7).splitlines()
    told = dict(zip(*([cell.strip() for cell in line.split("|")] for line in (header, row)),
                    strict=True))  # fmt: skip
    assert told == {"": "", "system": "one", "FD-lite0": "252", "KID": "0.237",
                    "CLIP score": "17.1", "R-precision": "50%", "seen": "10%",
                    "other style": "20%", "compositional": "30%",
                    "unseen names": "40%"}  # fmt: skip
