"""What each step measured: kept on the device, read once a line, saved with the state."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from diffjax.logs import goodput, health, writer

# A line has the mean over its steps, but of these the sum, the worst and the last.
SUMMED, WORST, LAST = ("skipped",), ("nonfinite",), ("learning_rate",)


class Journal:
    """The readings of the steps since the last line, and what the lines before say of the loss.

    no_readings, record: as in `program.Program`. saved: what `to_json` gave; a run that goes on
    then writes the lines that it would have written, whereever it was cut.
    """

    def __init__(
        self,
        log: writer.Log,
        spent: goodput.Goodput,
        *,
        no_readings: Any,
        record: Any,
        images_per_step: int,
        saved: Mapping[str, Any] | None = None,
    ):
        self._log, self._spent, self._images = log, spent, images_per_step
        self._no_readings, self._record = no_readings, record
        self._readings: Any = None
        self._count = self._fresh = 0
        saved = saved or {}
        self._names: list[str] = saved.get("names", [])
        rows = np.frombuffer(bytes.fromhex(saved.get("rows", "")), "<f4")
        self._early = rows.reshape(-1, max(len(self._names), 1))
        self.health = health.from_json(saved.get("health", {}))
        self.losses: list[float] = []

    def add(self, metrics: Mapping[str, jax.Array]) -> None:
        """Note a step; nothing waits for it."""
        if self._readings is None:
            self._readings = self._no_readings(metrics)
            names = sorted(metrics)
            if names != self._names:  # another version measured other things
                self._names, self._early = names, np.zeros((0, len(names)), "<f4")
        self._readings = self._record(self._readings, metrics)
        self._count += 1
        self._fresh += 1

    def rows(self) -> np.ndarray:
        """The metrics [steps metrics] of the steps since the last line; looks at the device."""
        if not self._fresh:
            return self._early
        ring = jax.device_get(self._readings.rows)
        ring = np.roll(ring, -self._count % len(ring), axis=0)
        return np.concatenate([self._early, ring[-self._fresh :]])

    def write(self, step: int, num_steps: int) -> None:
        """Log a line for the steps since the last one, and print how it goes."""
        rows = self.rows()
        values = dict(zip(self._names, rows.T, strict=True))
        self._early, self._fresh = rows[:0], 0
        first = step - len(rows) + 1
        self.health, spikes = health.observe(
            self.health, first, values["loss"].tolist(), values["skipped"].tolist()
        )
        for spike in spikes:
            print(
                f"loss spike at step {spike.step}: {spike.loss:.4g}, {spike.score:.0f} deviations "
                f"above the {spike.median:.4g} of the steps before",
                flush=True,
            )
        self.losses += values["loss"].tolist()
        line = {name: _of(name, column) for name, column in values.items()}
        line["spikes"] = len(spikes)
        seconds, training = self._spent.seconds(), self._spent.training()
        line["images_per_second"] = writer.images_per_second(self._count, training, self._images)
        line |= {f"seconds_{kind}": value for kind, value in seconds.items()}
        self._log.scalars(step, line)
        self._spent.note()
        bad = f"  {int(line['skipped'])} steps skipped" if line["skipped"] else ""
        print(
            writer.progress_line(
                step, num_steps, line["loss"],
                steps=self._count, seconds=training, images_per_step=self._images,
            ) + bad,
            flush=True,
        )  # fmt: skip

    def images_per_second(self) -> float:
        """Over the steps of this process, without compiling, saving and sampling."""
        return writer.images_per_second(self._count, self._spent.training(), self._images)

    def to_json(self) -> dict[str, Any]:
        """What the next lines depend on, exactly."""
        rows = self.rows().astype("<f4").tobytes().hex()
        return {"names": self._names, "rows": rows, "health": health.to_json(self.health)}


def _of(name: str, column: np.ndarray) -> float:
    """A column as the number that its line has; the mean is of what is finite, NaN of none."""
    if name in SUMMED:
        return float(column.sum())
    if name in WORST:
        return float(column.max())
    if name in LAST:
        return float(column[-1])
    finite = column[np.isfinite(column)]
    return float(finite.mean()) if finite.size else float("nan")
