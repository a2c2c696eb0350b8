"""The logs of a run: metrics.jsonl, TensorBoard events, and a printed line of progress."""

import io
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, SupportsFloat, runtime_checkable

import jax.numpy as jnp
import numpy as np
from clu import metrics, parameter_overview
from PIL import Image
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util import tensor_util

from diffjax.core.files import parse_json_object, set_aside, side_output, write_whole
from diffjax.core.tables import format_clock
from diffjax.core.trees import PyTree
from diffjax.logs.background import Background


@runtime_checkable
class MetricWriter(Protocol):
    """The part of clu's MetricWriter that a log uses, and `forget_from`."""

    def write_scalars(self, step: int, scalars: Mapping[str, SupportsFloat]) -> None:
        """Add a point to one curve per name."""

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Add uint8 [h w 3] pictures by name."""

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Add Markdown texts by name."""

    def forget_from(self, step: int) -> None:
        """Hide what was written before this call for `step` and later steps."""

    def close(self) -> None:
        """Write everything to the disk; nothing can be added afterwards."""


class EventWriter:
    """A `MetricWriter` that writes TensorBoard's event files."""

    def __init__(self, logdir: str):
        # TensorBoard reads files in the order of their names, which hold the second in which they
        # were begun. Within one second the order would be arbitrary: wait for the next one.
        while any(Path(logdir).glob(f"events.out.tfevents.{int(time.time()):010d}.*")):
            time.sleep(0.02)
        self._events = EventFileWriter(logdir)

    def _write(self, step: int, values: list) -> None:
        summary = summary_pb2.Summary(value=values)
        event = event_pb2.Event(wall_time=time.time(), step=step, summary=summary)
        self._events.add_event(event)

    def write_scalars(self, step: int, scalars: Mapping[str, SupportsFloat]) -> None:
        """Add a point to one curve per name."""
        value = summary_pb2.Summary.Value
        self._write(step, [value(tag=k, simple_value=float(v)) for k, v in scalars.items()])

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Add uint8 [h w 3] pictures by name."""
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
        """Add Markdown texts by name."""
        for name, text in texts.items():
            value = summary_pb2.Summary.Value(
                tag=name,
                metadata=text_metadata.create_summary_metadata(name, ""),
                tensor=tensor_util.make_tensor_proto(np.array([text], dtype=object)),
            )
            self._write(step, [value])

    def forget_from(self, step: int) -> None:
        """Make TensorBoard hide what was written before this call for `step` and later steps."""
        log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._events.add_event(event_pb2.Event(wall_time=time.time(), step=step, session_log=log))

    def close(self) -> None:
        """Write everything to the disk; nothing can be added afterwards."""
        self._events.close()


def average(values: Sequence[SupportsFloat]) -> float:
    """The mean of the finite values, by clu's Average; NaN if there are none."""
    array = jnp.asarray(values, jnp.float32)
    finite = jnp.isfinite(array)
    mean = metrics.Average.from_model_output(jnp.where(finite, array, 0.0), mask=finite).compute()
    return float(mean)


def parameter_table(params: PyTree) -> str:
    """clu's table of the parameters: names, shapes, sizes, and the total."""
    return parameter_overview.get_parameter_overview(params, include_stats=False)


class Log:
    """Writes metrics.jsonl and TensorBoard events in a workdir; one process has it enabled.

    Each line of metrics.jsonl is written at once; if that fails, there is a warning, and the line
    is written with the next one. The events are written in the background: if their writer fails
    or hangs, they are lost with a warning. Entries of an earlier process for steps after
    `resumed_at` are dropped, because those steps are trained again.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        enabled: bool = True,
        resumed_at: int = 0,
        open_events: Callable[[str], MetricWriter] = EventWriter,
    ):
        self._enabled = enabled
        if not enabled:
            return
        workdir.mkdir(parents=True, exist_ok=True)
        self._path = workdir / "metrics.jsonl"
        keep_until(self._path, resumed_at)
        self._resumed_at, self._there = resumed_at, names_at(self._path, resumed_at)
        self._lines = self._path.open("ab", buffering=0)
        self._unwritten = b""
        self._behind = Background("the TensorBoard writer")
        self._writer: MetricWriter

        def begin() -> None:
            self._writer = open_events(str(workdir / "tensorboard"))
            if resumed_at:
                self._writer.forget_from(resumed_at + 1)

        self._behind.submit(begin)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log a line of JSON and a point per curve. JSON has null where a number is not finite."""
        if self._enabled:
            numbers = {k: float(v) for k, v in values.items()}
            line = {k: v if math.isfinite(v) else None for k, v in numbers.items()}
            self._unwritten += (json.dumps({"step": step, **line}) + "\n").encode()
            self._write_lines()
            self._behind.submit(lambda: self._writer.write_scalars(step, numbers))

    def _write_lines(self) -> None:
        """Write the lines that are not on the disk; a full disk may take a part of them."""
        with side_output(self._path):
            while self._unwritten:
                self._unwritten = self._unwritten[self._lines.write(self._unwritten) :]

    def has(self, step: int, prefix: str) -> bool:
        """Whether an earlier process logged names that begin so, at the step that it came to."""
        if not self._enabled or step != self._resumed_at:
            return False
        return any(name.startswith(prefix) for name in self._there)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Log a uint8 picture [h w 3]."""
        if self._enabled:
            self._behind.submit(lambda: self._writer.write_images(step, {name: image}))

    def text(self, name: str, text: str) -> None:
        """Log a text that belongs to the whole run."""
        if self._enabled:
            self._behind.submit(lambda: self._writer.write_texts(0, {name: text}))

    def close(self) -> None:
        """Write everything to the disk. If TensorBoard's writer hangs, give up after 2 s."""
        if self._enabled:
            self._write_lines()
            self._lines.close()
            self._behind.submit(lambda: self._writer.close())
            self._behind.close(seconds=2.0)


def keep_until(path: Path, step: int) -> None:
    """Drop the lines of steps after `step`, and an incomplete line that a killed process left.

    A file with damaged lines is set aside, and the others of its lines are kept.
    """
    try:
        *lines, incomplete = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        if path.is_symlink():
            set_aside(path, "a link to nothing; a new one is begun")
        return
    except OSError as error:
        set_aside(path, f"cannot be read: {error.strerror}; a new one is begun")
        return
    steps = [_step_of(line) for line in lines]
    kept = [line for line, at in zip(lines, steps, strict=True) if at is not None and at <= step]
    if None in steps:
        set_aside(path, f"line {steps.index(None) + 1} is damaged; the others are kept")
    if kept != lines or incomplete:
        write_whole(path, b"".join(line + b"\n" for line in kept))


def names_at(path: Path, step: int) -> frozenset[str]:
    """What metrics.jsonl, all of whose lines are whole, has at a step."""
    if not path.exists():
        return frozenset()
    lines = map(parse_json_object, path.read_bytes().splitlines())
    return frozenset(name for line in lines if line.get("step") == step for name in line)


def _step_of(line: bytes) -> int | None:
    """The step of a line of metrics.jsonl; None if it is damaged."""
    try:
        step = parse_json_object(line).get("step")
    except ValueError:
        return None
    return step if isinstance(step, int) else None


def progress_line(
    step: int, num_steps: int, loss: float, *, steps: int, seconds: float, images_per_step: int
) -> str:
    """The line that is printed during training: step, loss, speed, estimated time left.

    steps, seconds: the number of steps that this process has trained, and how long they took. The
    time left is estimated from them.
    """
    left = "ETA --"
    if steps > 0 and seconds > 0:
        left = f"ETA {format_clock(max(num_steps - step, 0) * seconds / steps)}"
    width = len(str(num_steps))
    speed = images_per_second(steps, seconds, images_per_step)
    return f"step {step:{width}d}/{num_steps}  loss {loss:.4f}  {speed:.1f} images/s  {left}"


def images_per_second(steps: int, seconds: float, images_per_step: int) -> float:
    """The speed of training; 0 before anything was measured."""
    return images_per_step * steps / seconds if seconds > 0 else 0.0
