"""What a run tells the world: metrics.jsonl, TensorBoard, a line of progress."""

import io
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from clu import metrics, parameter_overview
from PIL import Image
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util import tensor_util

from diffjax.core.files import storing
from diffjax.core.tables import format_clock
from diffjax.logs.background import Background


class EventWriter:
    """The part of clu's MetricWriter that we use, over tensorboard's event files."""

    def __init__(self, logdir: str):
        # TensorBoard reads in the order of names, which tell the second: of each second one file
        while any(Path(logdir).glob(f"events.out.tfevents.{int(time.time()):010d}.*")):
            time.sleep(0.02)
        self._events = EventFileWriter(logdir)

    def _write(self, step: int, values: list) -> None:
        summary = summary_pb2.Summary(value=values)
        event = event_pb2.Event(wall_time=time.time(), step=step, summary=summary)
        self._events.add_event(event)

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """One curve per name."""
        value = summary_pb2.Summary.Value
        self._write(step, [value(tag=k, simple_value=float(v)) for k, v in scalars.items()])

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """uint8 [h w 3] pictures by name."""
        for name, image in images.items():
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            picture = summary_pb2.Summary.Image(
                height=image.shape[0],
                width=image.shape[1],
                colorspace=3,
                encoded_image_string=buffer.getvalue(),
            )
            self._write(step, [summary_pb2.Summary.Value(tag=name, image=picture)])

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Markdown by name."""
        for name, text in texts.items():
            value = summary_pb2.Summary.Value(
                tag=name,
                metadata=text_metadata.create_summary_metadata(name, ""),
                tensor=tensor_util.make_tensor_proto(np.array([text], dtype=object)),
            )
            self._write(step, [value])

    def forget_from(self, step: int) -> None:
        """Have TensorBoard leave out what stands before this and is of `step` or later."""
        log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._events.add_event(event_pb2.Event(wall_time=time.time(), step=step, session_log=log))

    def close(self) -> None:
        """Flush, and write no more."""
        self._events.close()


def average(values: Sequence[Any]) -> float:
    """The mean of those values that are finite, by clu's Average; NaN if none is."""
    array = jnp.asarray(values, jnp.float32)
    finite = jnp.isfinite(array)
    mean = metrics.Average.from_model_output(jnp.where(finite, array, 0.0), mask=finite).compute()
    return float(mean)


def parameter_table(params: Any) -> str:
    """clu's table of names, shapes, sizes, and the total."""
    return parameter_overview.get_parameter_overview(params, include_stats=False)


class Log:
    """metrics.jsonl (always) and TensorBoard events in a workdir; one process writes.

    The lines are written at once and are complete, or a StorageError is raised. The events are
    written behind, and lost with a warning if their writer fails or hangs. What an earlier process
    logged of steps past `resumed_at`, which are now done again, is forgotten.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        enabled: bool = True,
        resumed_at: int = 0,
        open_events: Callable[[str], Any] = EventWriter,
    ):
        self._enabled = enabled
        if not enabled:
            return
        workdir.mkdir(parents=True, exist_ok=True)
        self._path = workdir / "metrics.jsonl"
        keep_until(self._path, resumed_at)
        self._lines = self._path.open("a", buffering=1)
        self._behind = Background("the TensorBoard writer")
        self._writer: Any = None

        def begin():
            self._writer = open_events(str(workdir / "tensorboard"))
            if resumed_at:
                self._writer.forget_from(resumed_at + 1)

        self._behind.submit(begin)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A line of JSON and a point per curve; what is not finite is null in the JSON."""
        if self._enabled:
            numbers = {k: float(v) for k, v in values.items()}
            line = {k: v if math.isfinite(v) else None for k, v in numbers.items()}
            with storing(self._path):
                self._lines.write(json.dumps({"step": step, **line}) + "\n")
            self._behind.submit(lambda: self._writer.write_scalars(step, numbers))

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """A uint8 picture [h w 3]."""
        if self._enabled:
            self._behind.submit(lambda: self._writer.write_images(step, {name: image}))

    def text(self, name: str, text: str) -> None:
        """A text that belongs to the whole run."""
        if self._enabled:
            self._behind.submit(lambda: self._writer.write_texts(0, {name: text}))

    def close(self) -> None:
        """Everything to the disk; a writer that hangs is waited for a few seconds."""
        if self._enabled:
            self._lines.close()
            self._behind.submit(lambda: self._writer.close())
            self._behind.close(seconds=2.0)


def keep_until(path: Path, step: int) -> None:
    """Drop the lines of steps after `step`, and what a killed process left of a line."""
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    if kept != lines:
        beside = path.with_suffix(".tmp")
        beside.write_text("".join(kept))
        os.replace(beside, path)


def progress_line(
    step: int, num_steps: int, loss: float, *, steps: int, seconds: float, images_per_step: int
) -> str:
    """What a person wants to read while it trains.

    steps, seconds: those that this process has trained, and how long; the time left is theirs.
    """
    left = "ETA --"
    if steps > 0 and seconds > 0:
        left = f"ETA {format_clock(max(num_steps - step, 0) * seconds / steps)}"
    width = len(str(num_steps))
    speed = images_per_second(steps, seconds, images_per_step)
    return f"step {step:{width}d}/{num_steps}  loss {loss:.4f}  {speed:.1f} images/s  {left}"


def images_per_second(steps: int, seconds: float, images_per_step: int) -> float:
    """0 before anything was measured."""
    return images_per_step * steps / seconds if seconds > 0 else 0.0
