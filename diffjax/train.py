"""The training loop of one stage: step, log, sample, save."""

import functools
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffjax import build, cascade, checkpoint, config, grid, monitor, parallel, pixels, steps
from diffjax.data import pipeline
from diffjax.data.batch import Record
from diffjax.embeddings import embeddings_of
from diffjax.program import program_of
from diffjax.stage import shrink
from diffjax.state import averaged
from diffjax.text import cache
from diffjax.text.condition import mask_from_length

# What a run may not change when it goes on: the checkpoint or its meaning would not fit.
FIXED = ("model", "diffusion", "text", "low_res", "optim.name", "data.size_px", "train.ema")


class Terminated(Exception):
    """SIGTERM or SIGINT came; the finished step is saved."""


class Diverged(Exception):
    """The loss or a gradient is no longer a number; the last checkpoint stands."""


@dataclass(frozen=True)
class Report:
    """How a run of the loop went. Losses are means over steps; nan where none was made."""

    step: int
    first_loss: float
    last_loss: float
    images_per_second: float


def train(options: ConfigDict, workdir: Path) -> Report:
    """Train one stage up to `train.num_steps`, going on from the newest checkpoint in `workdir`.

    Raises:
      ConfigError: bad config, or one that does not continue what the workdir holds.
      Terminated: after a signal, once the finished step is saved.
      Diverged: the loss is not finite.
    """
    build.check(options)
    _check_continues(options, workdir)
    records, encoder = build.source_of(options), build.encoder_of(options)
    embeddings = embeddings_of(options, records, encoder, _encoding_progress)
    program = program_of(options, encoder.width)
    the_stage, place = program.stage, program.place
    workdir.mkdir(parents=True, exist_ok=True)
    config.save(options, workdir / "config.json")

    root_key = jax.random.key(options.seed)
    batches = build.train_iterator_of(options, records, embeddings)
    checkpoints = checkpoint.open_dir(workdir / "checkpoints", keep=options.train.keep)
    try:
        state, position = checkpoint.restore(checkpoints, place.state_shape)
    except FileNotFoundError:
        state = place.init(root_key)
    except ValueError as error:
        raise config.ConfigError("workdir", str(workdir), str(error)) from None
    else:
        batches.set_state(position)
        print(f"resuming from step {int(state.step)} in {workdir}", flush=True)
    first_step = int(state.step)

    batches = pipeline.Ahead(
        batches, functools.partial(parallel.to_devices, sharding=program.batch_sharding)
    )
    train_step = program.train_step
    log = monitor.Log(workdir, enabled=jax.process_index() == 0)
    if first_step == 0:
        table = monitor.parameter_table(state.params)
        print(table, flush=True)
        log.text("parameters", f"```\n{table}\n```")
    progress = monitor.Progress(options.train.num_steps, options.data.batch_size)
    sampling = GridSampler(options, the_stage, records, embeddings, workdir, log)

    losses: list[float] = []
    readings, last_read = None, first_step
    step = first_step
    every = options.train
    try:
        with signals() as told_to_stop:
            while step < every.num_steps:
                batch = next(batches)
                if step == first_step:
                    train_step = _compile(train_step, state, batch)
                    progress.start(step)
                state, metrics = train_step(state, batch)
                readings = program.record(readings or program.no_readings(metrics), metrics)
                step += 1
                due = lambda n: n and (step % n == 0 or step == every.num_steps)  # noqa: E731, B023
                if due(every.log_every) or told_to_stop:
                    values = _read(readings, sorted(metrics), step - first_step, step - last_read)
                    last_read = step
                    losses += values["loss"].tolist()
                    means = {name: _mean(column) for name, column in values.items()}
                    means["nonfinite"] = float(values["nonfinite"].max())
                    means["learning_rate"] = float(values["learning_rate"][-1])
                    means["images_per_second"] = progress.images_per_second()
                    log.scalars(step, means)
                    progress.pause(step)
                    print(progress.line(step, means["loss"]), flush=True)
                    if means["nonfinite"] or not np.all(np.isfinite(values["loss"])):
                        raise Diverged(
                            f"the loss is {values['loss'][-1]} at step {step}; lower "
                            f"optim.learning_rate ({options.optim.learning_rate}) and run again: "
                            f"it goes on from step {checkpoints.latest_step() or 0}"
                        )
                    progress.start(step)
                if due(every.save_every) or told_to_stop:
                    progress.pause(step)
                    checkpoint.save(checkpoints, step, state, batches.get_state())
                    progress.start(step)
                if told_to_stop:
                    raise Terminated(f"stopped at step {step}, saved in {workdir}; run again")
                if due(every.sample_every):
                    progress.pause(step)
                    sampling(step, averaged(state, build.sampled_average(options)))
                    progress.start(step)
    finally:
        checkpoint.finish(checkpoints)
        log.close()
    report = Report(
        step,
        monitor.average(losses[:10]) if losses else float("nan"),
        monitor.average(losses[-50:]) if losses else float("nan"),
        progress.images_per_second(),
    )
    if losses:
        print(
            f"{options.stage}: loss {report.first_loss:.4f} (mean of the first 10 steps) -> "
            f"{report.last_loss:.4f} (mean of the last 50), "
            f"{report.images_per_second:.1f} images/s",
            flush=True,
        )
    return report


def _read(readings: steps.Readings, names: list[str], position: int, num: int) -> dict:
    """The last `num` values of each metric, in order: the one look at the device between logs."""
    rows = jax.device_get(readings.rows)
    rows = np.roll(rows, -position % len(rows), axis=0)[-num:]
    return dict(zip(names, rows.T, strict=True))


def _mean(values: np.ndarray) -> float:
    """The mean of those that are finite; NaN if none is."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def _compile(train_step, state, batch):
    """Compile ahead of the first step, so that the time it takes is said and not counted."""
    print("compiling the training step ...", flush=True)
    start = time.perf_counter()
    compiled = train_step.lower(state, batch).compile()
    print(f"compiled in {time.perf_counter() - start:.1f} s", flush=True)
    return compiled


def _encoding_progress(done: int, total: int) -> None:
    if done == total or done % 2048 < 64:
        print(f"text embeddings: {done} of {total} captions", flush=True)


def _check_continues(options: ConfigDict, workdir: Path) -> None:
    path = workdir / "config.json"
    if not path.exists():
        return
    before, now = (dict(config.leaves(c)) for c in (config.restore(path), options))
    for key in now:
        if key.startswith(FIXED) and before.get(key) != now[key]:
            raise config.ConfigError(
                key, now[key], f"{workdir} was begun with {before.get(key)!r}; use another workdir"
            )


@contextmanager
def signals() -> Iterator[list[int]]:
    """A list that a first SIGTERM or SIGINT fills; a second SIGINT interrupts at once."""
    received: list[int] = []

    def receive(number, frame):
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    previous = {s: signal.signal(s, receive) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class GridSampler:
    """A sheet of pictures from fixed prompts and seeds, to see the training by.

    A super-resolution stage starts from the data's own pictures made small, and shows what it
    got, what it made, and the true picture side by side.
    """

    def __init__(self, options, the_stage, records, embeddings, workdir: Path, log: monitor.Log):
        self._stage, self._log, self._folder = the_stage, log, workdir / "samples"
        self._settings = build.settings_of(options)
        count = min(options.sample.num_images, len(records))
        shown = [records[i * len(records) // count] for i in range(count)]
        self._captions = [record["captions"][0] for record in shown]
        if options.sample.prompts and not the_stage.low_res_px:
            self._captions = list(options.sample.prompts)
            encoder = build.encoder_of(options)
            embeddings = cache.ensure(cache.users_path(encoder), encoder, self._captions)
            shown = [
                Record(image=shown[0]["image"], captions=(prompt,), name="")
                for prompt in self._captions
            ]
        self._batch = next(
            pipeline.eval_batches(
                shown,
                batch_size=len(shown),
                size_px=options.data.size_px,
                embed=embeddings.__getitem__,
                max_length=options.text.max_tokens,
            )
        )

    def __call__(self, step: int, params) -> Path:
        """Sample with these parameters, write samples/STEP.png, and log it."""
        batch = self._batch
        text = jnp.asarray(batch["text"], jnp.float32)
        mask = mask_from_length(jnp.asarray(batch["text_length"]), text.shape[1])
        low_res = None
        if self._stage.low_res_px:
            truth = pixels.from_uint8(jnp.asarray(batch["image"]))
            low_res = shrink(truth, self._stage.factor)
        (made,) = cascade.generate(
            [cascade.TrainedStage(self._stage, params, self._settings)],
            text,
            mask,
            seeds=jnp.arange(len(text)),
            low_res=low_res,
        )
        columns = [np.asarray(pixels.to_uint8(made))]
        if low_res is not None:
            columns = [np.asarray(pixels.to_uint8(low_res)), *columns, batch["image"]]
        rows = list(zip(*columns, strict=True))
        sheet = grid.contact_sheet(rows, self._captions, tile_px=min(self._stage.size_px * 2, 256))
        path = grid.save(sheet, self._folder / f"{step:07d}.png")
        self._log.image(step, "samples", np.asarray(sheet))
        print(f"samples: {path}", flush=True)
        return path
