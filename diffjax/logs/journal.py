"""The metrics of each step: kept on the device, read once per line of the log, and saved."""

from collections.abc import Callable
from typing import Protocol, TypeAlias, TypedDict, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, Float32

from diffjax.logs import goodput, health, writer

Metrics: TypeAlias = dict[str, Array]

# A line of the log holds the mean of each metric over its steps, except for these: the sum, the
# largest value and the last value.
SUMMED, WORST, LAST = ("skipped",), ("nonfinite",), ("learning_rate",)


@runtime_checkable
class Readings(Protocol):
    """The metrics of the last steps, on the device; a ring, the oldest rows are overwritten."""

    @property
    def rows(self) -> Float[Array, "steps metrics"]:
        """One row per step, with the metrics in the order of their names."""


class Saved(TypedDict, total=False):
    """What a checkpoint holds of a journal. rows: float32 [steps metrics] as bytes in hex."""

    names: list[str]
    rows: str
    health: health.SavedHealth


class Journal:
    """Collects the metrics of the steps since the last line, and the health of the loss.

    no_readings, record: as in `program.Program`. saved: the result of `to_json`; a resumed run then
    writes the same lines as an uninterrupted one, wherever it was interrupted. chance: the loss of
    a network that guesses; a line says if the loss stands there. None: unknown.
    """

    def __init__(
        self,
        log: writer.Log,
        spent: goodput.Goodput,
        *,
        no_readings: Callable[[Metrics], Readings],
        record: Callable[[Readings, Metrics], Readings],
        images_per_step: int,
        saved: Saved | None = None,
        chance: float | None = None,
    ):
        self._log, self._spent, self._images = log, spent, images_per_step
        self._no_readings, self._record = no_readings, record
        self._readings: Readings | None = None
        self._count = self._fresh = 0
        saved = Saved() if saved is None else saved
        self._names: list[str] = saved.get("names", [])
        rows = np.frombuffer(bytes.fromhex(saved.get("rows", "")), "<f4")
        self._early = rows.reshape(-1, max(len(self._names), 1))
        self.health = health.from_json(saved.get("health", {}))
        self.losses: list[float] = []
        self._chance = chance

    def add(self, metrics: Metrics) -> None:
        """Note a step; nothing waits for it."""
        if self._readings is None:
            self._readings = self._no_readings(metrics)
            names = sorted(metrics)
            if names != self._names:  # another version had other metrics
                self._names, self._early = names, np.zeros((0, len(names)), "<f4")
        self._readings = self._record(self._readings, metrics)
        self._count += 1
        self._fresh += 1

    def rows(self) -> Float32[np.ndarray, "steps metrics"]:
        """The metrics of the steps since the last line, read from the device."""
        if self._readings is None or not self._fresh:
            return self._early
        ring = jax.device_get(self._readings.rows)
        ring = np.roll(ring, -self._count % len(ring), axis=0)
        return np.concatenate([self._early, ring[-self._fresh :]])

    def write(self, step: int, num_steps: int) -> None:
        """Log a line for the steps since the last line, and print the progress."""
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
        line = {name: _summarise(name, column) for name, column in values.items()}
        line["spikes"] = len(spikes)
        seconds, training = self._spent.seconds(), self._spent.training()
        line["images_per_second"] = writer.images_per_second(self._count, training, self._images)
        line |= {f"seconds_{kind}": value for kind, value in seconds.items()}
        if self._chance is not None:
            line["at_chance"] = float(health.stands_at(self.health, self._chance))
            if line["at_chance"]:
                print(
                    f"the loss stands at {self._chance:.4g}, that of guessing, for {health.WINDOW} "
                    f"steps until step {step}: nothing is learned; change optim.learning_rate, or "
                    "look at the data",
                    flush=True,
                )
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
        """The speed over the steps of this process, without compiling, saving and sampling."""
        return writer.images_per_second(self._count, self._spent.training(), self._images)

    def to_json(self) -> Saved:
        """All that the next lines depend on, without loss of precision."""
        rows = self.rows().astype("<f4").tobytes().hex()
        return {"names": self._names, "rows": rows, "health": health.to_json(self.health)}


def _summarise(name: str, column: Float32[np.ndarray, " steps"]) -> float:
    """One number for the steps of a line. A mean is over finite values; NaN if there are none."""
    if name in SUMMED:
        return float(column.sum())
    if name in WORST:
        return float(column.max())
    if name in LAST:
        return float(column[-1])
    finite = column[np.isfinite(column)]
    return float(finite.mean()) if finite.size else float("nan")
