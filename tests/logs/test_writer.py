import errno
import json
import threading
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffjax.logs.writer import EventWriter, Log, average, keep_until, progress_line


def test_metrics_are_read_back_from_json_lines_and_from_tensorboard(tmp_path):
    log = Log(tmp_path)
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


def test_the_average_ignores_values_that_are_not_finite():
    assert average([1.0, float("nan"), 3.0]) == pytest.approx(2.0)
    assert np.isnan(average([float("nan")]))


def progress(step, num_steps, **measured):
    return progress_line(step, num_steps, 0.1, images_per_step=8, **measured)


def test_the_time_left_follows_from_the_measured_steps():
    """Ten steps in twenty seconds: 90 more take three minutes."""
    line = progress(10, 100, steps=10, seconds=20.0)
    assert line == "step  10/100  loss 0.1000  4.0 images/s  ETA 0:03:00"


@pytest.mark.parametrize("seconds", [0.0, -5.0])
def test_the_time_left_is_unknown_before_anything_is_measured(seconds):
    assert progress(0, 100, steps=0, seconds=seconds).endswith("0.0 images/s  ETA --")


def test_the_time_left_is_never_negative():
    """Not even in a run that has already trained more steps than it is now configured for."""
    assert progress(120, 100, steps=10, seconds=20.0).endswith("ETA 0:00:00")


def test_a_resumed_log_drops_lines_of_repeated_steps_and_a_truncated_line(tmp_path):
    log = Log(tmp_path)
    for step in (2, 4, 6):
        log.scalars(step, {"loss": 1.0})
    log.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 8, "lo')
    log = Log(tmp_path, resumed_at=5)
    for step in (6, 8):
        log.scalars(step, {"loss": 2.0})
    log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(2, 1), (4, 1), (6, 2), (8, 2)]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(2, 1), (4, 1), (6, 2), (8, 2)]


def test_tensorboard_reads_event_files_in_the_order_in_which_they_were_begun(tmp_path):
    """Files begun in the same second differ by a number at the end, and 10 sorts before 9."""
    for step in range(3):
        EventWriter(str(tmp_path)).close()
        writer = EventWriter(str(tmp_path))
        writer.write_scalars(step, {"loss": 1.0})
        writer.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len({name.split(".")[3] for name in names}) == len(names) == 6
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("loss")] == [0, 1, 2]


def test_a_failing_or_hanging_writer_causes_one_warning_and_loses_no_line(tmp_path, capsys):
    """The log does not wait for the calls that hang."""
    wake, tried = threading.Event(), threading.Event()

    class Broken:
        def __init__(self, folder):
            pass

        def write_scalars(self, step, scalars):
            if step == 2:  # the warning about step 1 has been printed
                tried.set()
            if step < 3:
                raise OSError("no route to host")
            wake.wait(60)

        def close(self):
            pass

    start = time.monotonic()
    log = Log(tmp_path, open_events=Broken)
    for step in range(1, 1001):
        log.scalars(step, {"loss": 1.0})
        if step == 2:  # on a busy machine the queue might be full before, which is another warning
            assert tried.wait(30)
            start = time.monotonic()
    log.close()
    assert time.monotonic() - start < 6
    wake.set()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 1001))
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "TensorBoard" in warning
    assert "no route to host" in warning


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"step": 1}\n{"st', '{"step": 1}\n'),
        ('{"step": 1}\n{"step": 3}\n', '{"step": 1}\n'),
        ('{"step": 1}\n{"step": 2}\n', '{"step": 1}\n{"step": 2}\n'),
    ],
)
def test_a_log_loses_a_cut_line_and_later_steps_each_alone(before, after, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(before)
    keep_until(path, 2)
    assert path.read_text() == after


class Full:
    """A file on a disk that takes some bytes of each write, or none."""

    def __init__(self, takes):
        self.written, self._takes = b"", takes

    def write(self, data):
        room = self._takes.pop(0) if self._takes else len(data)
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.written += data[:room]
        return min(room, len(data))

    def close(self):
        pass


def test_lines_that_a_full_disk_did_not_take_are_written_with_the_next_one(tmp_path, capsys):
    """Neither ends the run: its checkpoints do not depend on them."""
    log = Log(tmp_path, open_events=lambda folder: None)
    log._lines.close()
    log._lines = full = Full([7, 0, 0])
    for step in (1, 2, 3):
        log.scalars(step, {"loss": step / 2})
    log.close()
    kept = [json.loads(line) for line in full.written.splitlines()]
    assert kept == [{"step": step, "loss": step / 2} for step in (1, 2, 3)]
    assert capsys.readouterr().err.count("No space left on device") == 1
