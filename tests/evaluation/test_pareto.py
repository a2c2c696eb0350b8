"""The plot of a sweep, and which of its rows no other beats."""

import numpy as np

from diffjax.evaluation import pareto
from diffjax.evaluation.plot import COLOURS


def row(guidance, steps, score, distance, name="fd_lite0"):
    return {"at": {"guidance_weight": guidance, "num_steps": steps},
            "numbers": {"clip_score": score, name: distance, "kid_lite0": 0.1}}  # fmt: skip


ROWS = [row(1.0, 4, 20.0, 9.0), row(1.0, 8, 21.0, 5.0), row(4.0, 4, 30.0, 20.0),
        row(4.0, 8, 29.0, 6.0)]  # fmt: skip


def test_points_say_their_place_in_the_sweep():
    points = pareto.points_of(ROWS, "fd_lite0")
    assert points[2] == (30.0, 20.0, "4.0", "num_steps 4")
    assert pareto.points_of(ROWS, "fid") == []


def test_a_point_is_on_the_front_if_none_is_better_in_both():
    assert pareto.front(pareto.points_of(ROWS, "fd_lite0")) == [False, True, True, True]
    same = pareto.Point(1.0, 1.0, "", "")
    assert pareto.front([same, same]) == [True, True]


def test_the_best_distance_that_all_rows_have_stands_upwards():
    assert pareto.height_of(ROWS) == "fd_lite0"
    few = [row(1.0, 4, 1.0, 2.0, "fd_lite0_of_8"), row(2.0, 4, 1.0, 2.0, "fd_lite0_of_8")]
    assert pareto.height_of(few) == "fd_lite0_of_8"
    assert pareto.height_of([*few, ROWS[0]]) == "kid_lite0"
    assert pareto.height_of([{"numbers": {"clip_score": 1.0}}]) == ""


def test_each_combination_of_the_other_axes_is_a_line_of_its_colour():
    picture = pareto.of_sweep({"axes": ["guidance_weight", "num_steps"], "rows": ROWS})
    seen = [int((picture == colour).all(-1).sum()) for colour in COLOURS[:3]]
    assert min(seen[:2]) > 100
    assert seen[2] == 0


def test_a_sweep_without_a_clip_has_no_plot():
    rows = [{"at": {"num_steps": 4}, "numbers": {"kid_lite0": 0.1}}]
    assert pareto.of_sweep({"axes": ["num_steps"], "rows": rows}) is None
    assert pareto.of_sweep(None) is None
    one = pareto.of_sweep({"axes": ["guidance_weight", "num_steps"], "rows": ROWS[:1]})
    assert np.asarray(one).shape[-1] == 3  # one point is a plot too
