"""What a run tells the world: metrics.jsonl, TensorBoard, a line of progress."""

import io
import json
import math
import time
from collections.abc import Mapping, Sequence
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


class EventWriter:
    """The part of clu's MetricWriter that we use, over tensorboard's event files."""

    def __init__(self, logdir: str):
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

    def flush(self) -> None:
        """Out to the disk."""
        self._events.flush()

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
    """metrics.jsonl (always) and TensorBoard events in a workdir; one process writes."""

    def __init__(self, workdir: Path, *, enabled: bool = True):
        self._enabled = enabled
        if enabled:
            workdir.mkdir(parents=True, exist_ok=True)
            self._lines = (workdir / "metrics.jsonl").open("a", buffering=1)
            self._events = EventWriter(str(workdir / "tensorboard"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A line of JSON and a point per curve; what is not finite is null in the JSON."""
        if self._enabled:
            numbers = {k: float(v) for k, v in values.items()}
            line = {k: v if math.isfinite(v) else None for k, v in numbers.items()}
            self._lines.write(json.dumps({"step": step, **line}) + "\n")
            self._events.write_scalars(step, numbers)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """A uint8 picture [h w 3]."""
        if self._enabled:
            self._events.write_images(step, {name: image})

    def text(self, name: str, text: str) -> None:
        """A text that belongs to the whole run."""
        if self._enabled:
            self._events.write_texts(0, {name: text})

    def close(self) -> None:
        """Everything to the disk."""
        if self._enabled:
            self._lines.close()
            self._events.close()


class Progress:
    """Speed and time left, measured over training steps alone.

    The first step (compilation), pauses for samples and saves are left out of the clock.
    """

    def __init__(self, num_steps: int, images_per_step: int, clock=time.perf_counter):
        self._num_steps = num_steps
        self._images = images_per_step
        self._clock = clock
        self._seconds = 0.0
        self._steps = 0
        self._since: float | None = None
        self._last_step = 0

    def start(self, step: int) -> None:
        """The clock runs from here: `step` steps are done."""
        self._since, self._last_step = self._clock(), step

    def pause(self, step: int) -> None:
        """The clock stops: `step` steps are done."""
        if self._since is not None:
            self._seconds += self._clock() - self._since
            self._steps += step - self._last_step
        self._since = None

    def images_per_second(self) -> float:
        """0 before anything was measured."""
        return self._images * self._steps / self._seconds if self._seconds else 0.0

    def line(self, step: int, loss: float) -> str:
        """What a person wants to read while it trains."""
        left = "ETA --"
        if self._steps:
            seconds = (self._num_steps - step) * self._seconds / self._steps
            left = f"ETA {hours_minutes_seconds(seconds)}"
        width = len(str(self._num_steps))
        return (
            f"step {step:{width}d}/{self._num_steps}  loss {loss:.4f}  "
            f"{self.images_per_second():.1f} images/s  {left}"
        )


def hours_minutes_seconds(seconds: float) -> str:
    """3725 -> 1:02:05."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"
