"""The training loop of one stage: step, log, save, sample."""

import functools
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from diffjax import checkpoint
from diffjax.build import build, resume
from diffjax.checkpoint.workdir import lock
from diffjax.core.digest import digest_of
from diffjax.core.errors import (
    EXIT_DIVERGED,
    EXIT_STORAGE,
    EXIT_TERMINATED,
    BadData,
    Diverged,
    OutOfTime,
    StorageError,
    Terminated,
)
from diffjax.core.signals import signals
from diffjax.devices import processes
from diffjax.encoders.cache.cache import Damaged
from diffjax.logs import writer
from diffjax.logs.goodput import table
from diffjax.training.run import Run, begin
from diffjax.training.state import averaged


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
      ConfigError: bad config, or one that does not continue what the workdir holds; or another
        process trains there.
      Terminated: after a signal, once the finished step is saved.
      OutOfTime: after train.max_seconds, once the finished step is saved.
      Diverged: too many steps in a row were not finite; or the parameters are not.
      StorageError: no room for the checkpoints; those on the disk are intact.
      BadData, Damaged: a record that cannot be trained on, a caption that data.embeddings lacks,
        or bytes of it that are not those written; once the finished step is saved.
    """
    build.check(options)
    changes = resume.check(options, workdir)
    if changes:
        print(f"changed since this run was last started:\n{resume.table(changes)}", flush=True)
    with signals() as watch, ExitStack() as at_the_end:
        with watch.meanwhile(nothing_lost):
            if processes.is_first():
                at_the_end.enter_context(lock(workdir))
            run, state = begin(options, workdir, watch, at_the_end)
        state = loop(run, state)
        run.spent.to("checkpoint")
        checkpoint.finish(run.checkpoints)
        run.snapshots.finish()
        run.spent.note()
        return ended(run, state)


def loop(run: Run, state: Any) -> Any:
    """Steps up to the last one; the state after it."""
    every, step = run.options.train, run.first_step
    train_step, before = run.program.train_step, None
    rescue: Callable[[], int] | None = nothing_lost
    agree, alone = processes.Agreement(), jax.process_count() == 1
    while step < every.num_steps:
        run.spent.to("data")
        with run.watch.meanwhile(rescue):
            batch = next_batch(run, step, state)
        if step == run.first_step:
            run.spent.to("compile")
            with run.watch.meanwhile(nothing_lost):
                train_step = _compile(train_step, state, batch)
                processes.meet(f"{run.options.stage} step {step}")
        run.spent.to("step")
        state, metrics = train_step(state, batch)
        run.journal.add(metrics)
        jax.block_until_ready(before)  # two steps are on their way: a signal waits for no more
        before = metrics["loss"]
        step += 1
        due = lambda n: n and (step % n == 0 or step == every.num_steps)  # noqa: E731, B023
        if due(every.log_every):
            run.journal.write(step, every.num_steps)
            _check_health(run, step)
        stop = agree(bool(run.watch) or _time_is_up(run)) and step < every.num_steps
        position = run.batches.get_state()
        if due(every.save_every) or stop:
            jax.block_until_ready(before)
            run.spent.to("checkpoint")
            save(run, step, state, position)
        if due(every.snapshot_every):
            run.spent.to("checkpoint")
            run.snapshots.save(step, state)
        if stop:
            raise _stopped(run, step)
        # Until the next step takes it, the state is whole. With others it cannot be saved alone.
        rescue = functools.partial(rescued, run, step, state, position) if alone else None
        if due(every.sample_every):
            run.spent.to("sample")
            with run.watch.meanwhile(rescue):
                run.preview(step, averaged(state, build.sampled_average(run.options)))
    return state


def next_batch(run: Run, step: int, state: Any) -> Any:
    """The next batch; where the data cannot be gone on with, the steps so far are saved."""
    position = run.batches.get_state()
    try:
        return next(run.batches)
    except (BadData, Damaged):
        if step > run.first_step:
            save(run, step, state, position)
        raise


def save(run: Run, step: int, state: Any, data_position: Any) -> None:
    """Begin to save a state, which must be finite, and all that the next lines depend on."""
    if not jax.device_get(run.program.all_finite(state)):
        raise Diverged(
            f"the state after step {step} is not finite, and was not saved; {_remedy(run)}"
        )
    position = {"data": data_position, "log": run.journal.to_json()}
    checkpoint.save(run.checkpoints, step, state, position)
    run.spent.saved(step)


def nothing_lost() -> int:
    """What a signal does before the first step; the exit code."""
    print("stopped before the first step: nothing was unsaved; run again", file=sys.stderr)
    return EXIT_TERMINATED


def rescued(run: Run, step: int, state: Any, data_position: Any) -> int:
    """What a signal does while the loop waits for something else; the exit code."""
    try:
        save(run, step, state, data_position)
        checkpoint.finish(run.checkpoints)
        run.snapshots.finish()
    except StorageError as error:
        print(error, file=sys.stderr)
        return EXIT_STORAGE
    except Diverged as error:
        print(f"diverged: {error}", file=sys.stderr)
        return EXIT_DIVERGED
    print(_stopped(run, step), file=sys.stderr)
    run.log.close()
    return EXIT_TERMINATED


def _time_is_up(run: Run) -> bool:
    limit = run.options.train.max_seconds
    return bool(limit) and run.spent.elapsed() >= limit


def _stopped(run: Run, step: int) -> Exception:
    """What to say of a run that ends at `step`; if another process wanted it so, why is a guess."""
    saved = f"at step {step}, saved in {run.workdir}; run again to go on"
    limit = run.options.train.max_seconds
    if limit and not run.watch:
        return OutOfTime(f"stopped after train.max_seconds = {limit:g} {saved}")
    return Terminated(f"stopped {saved}")


def _check_health(run: Run, step: int) -> None:
    bad = run.journal.health.bad_in_a_row
    if bad >= run.options.train.max_bad_steps:
        raise Diverged(
            f"the loss or a gradient is not finite in steps {step - bad + 1} to {step}, which were "
            f"skipped (train.max_bad_steps = {run.options.train.max_bad_steps}); {_remedy(run)}"
        )


def _remedy(run: Run) -> str:
    checkpoint.finish(run.checkpoints)
    return (
        f"lower optim.learning_rate ({run.options.optim.learning_rate}) and run again: it goes on "
        f"from step {run.checkpoints.latest_step() or 0}"
    )


def ended(run: Run, state: Any) -> Report:
    """Say how it went, and the digest of the whole that it led to."""
    step = run.options.train.num_steps if run.journal.losses else run.first_step
    losses, speed = run.journal.losses, run.journal.images_per_second()
    position = {"data": run.batches.get_state(), "log": run.journal.to_json()}
    print(f"digest of step {step}: {digest_of(state, position)}", flush=True)
    mean = lambda some: writer.average(some) if some else float("nan")  # noqa: E731
    report = Report(step, mean(losses[:10]), mean(losses[-50:]), speed)
    if losses:
        print(table(run.spent.seconds()))
        print(
            f"{run.options.stage}: loss {report.first_loss:.4f} (mean of the first 10 steps) -> "
            f"{report.last_loss:.4f} (mean of the last 50), {speed:.1f} images/s",
            flush=True,
        )
    return report


def _compile(train_step, state, batch):
    """Compile ahead of the first step, so that the time it takes is said and not counted."""
    print("compiling the training step ...", flush=True)
    start = time.perf_counter()
    compiled = train_step.lower(state, batch).compile()
    print(f"compiled in {time.perf_counter() - start:.1f} s", flush=True)
    return compiled
