import json

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffjax import monitor


def test_metrics_are_read_back_from_json_lines_and_from_tensorboard(tmp_path):
    log = monitor.Log(tmp_path)
    log.scalars(10, {"loss": 0.5, "bad": float("nan")})
    log.scalars(20, {"loss": 0.25})
    log.image(20, "samples", np.zeros((4, 6, 3), np.uint8))
    log.text("parameters", "a table")
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 10, "loss": 0.5, "bad": None}, {"step": 20, "loss": 0.25}]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(10, 0.5), (20, 0.25)]
    (image,) = events.Images("samples")
    assert (image.height, image.width) == (4, 6)


def test_the_average_leaves_out_what_is_not_finite():
    assert monitor.average([1.0, float("nan"), 3.0]) == pytest.approx(2.0)
    assert np.isnan(monitor.average([float("nan")]))


def test_time_left_counts_training_alone():
    now = [0.0]
    progress = monitor.Progress(100, images_per_step=8, clock=lambda: now[0])
    now[0] = 60.0  # compilation
    progress.start(0)
    now[0] = 80.0  # ten steps of two seconds
    progress.pause(10)
    now[0] = 500.0  # samples and a save
    assert progress.images_per_second() == pytest.approx(4.0)
    assert progress.line(10, 0.1) == "step  10/100  loss 0.1000  4.0 images/s  ETA 0:03:00"


def test_before_the_first_step_the_time_left_is_unknown():
    assert "ETA --" in monitor.Progress(100, 8).line(0, 1.0)
