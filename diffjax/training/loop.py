"""The training loop of one task, which steps, logs, saves, makes previews and evaluates."""

import functools
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import jax

from diffjax import checkpoint
from diffjax.checkpoint.workdir import lock
from diffjax.core import command
from diffjax.core.digest import digest_of
from diffjax.core.errors import EXIT_TERMINATED, Diverged, OutOfTime, StorageError, Terminated
from diffjax.core.signals import signals
from diffjax.devices import processes
from diffjax.logs import writer
from diffjax.logs.goodput import goodput_table
from diffjax.training.run import Opened, Run, begin
from diffjax.training.state import TrainState, averaged

# The prefix of the names of evaluated numbers in the log.
EVALUATED = "evaluate/"


@dataclass(frozen=True)
class Report:
    """The result of a run. Losses are means over the first and last steps; NaN without steps."""

    step: int
    first_loss: float
    last_loss: float
    images_per_second: float


def train(run: Run) -> Report:
    """Trains up to `num_steps`, and continues from the newest checkpoint in the workdir.

    Raises:
      ConfigError: the workdir or the data set does not fit the config, or another process trains
        in the workdir.
      Terminated: a signal came; the last finished step has been saved.
      OutOfTime: train.max_seconds have passed; the last finished step has been saved.
      Diverged: too many steps in a row were not finite, or the parameters are not.
      StorageError: the disk has no room for checkpoints; those on the disk are intact.
      BadData, Damaged: a record cannot be trained on, or data.embeddings lacks a caption or is
        damaged; the last finished step has been saved.
      Exception: whatever else ends the run between two steps; the same holds.
    """
    with signals() as watch, ExitStack() as at_the_end:
        with watch.meanwhile(nothing_lost):
            fence = lambda: None  # noqa: E731
            if processes.is_first():
                fence = at_the_end.enter_context(lock(run.workdir)).check
            opened, state = begin(run, watch, at_the_end, fence)
        state = loop(opened, state)
        opened.spent.switch_to("checkpoint")
        checkpoint.finish(opened.checkpoints)
        opened.snapshots.finish()
        opened.spent.note()
        return ended(opened, state)


@dataclass
class Finished:
    """The last finished step, its state, and the position in the data after it.

    state: None while a step overwrites it. saved: whether this step is on the disk, or must not be.
    """

    step: int
    state: TrainState | None
    position: dict[str, int]
    saved: bool


def loop(opened: Opened, state: TrainState) -> TrainState:
    """Trains up to the last step and returns the state after it.

    Whatever ends it, the last finished step is saved first, if it can be. With several processes
    only an ending that all agree on can be: a save needs them all.
    """
    last = Finished(opened.first_step, state, opened.batches.get_state(), saved=True)
    try:
        return steps(opened, last)
    except Exception:
        if last.state is not None and not last.saved and jax.process_count() == 1:
            save(opened, last.step, last.state, last.position)
        raise


def steps(opened: Opened, last: Finished) -> TrainState:
    """The body of `loop`, which keeps `last` up to date."""
    every, task, step = opened.run.loop, opened.run.training.task, opened.first_step
    assert last.state is not None, "no step has begun"
    state = last.state
    train_step, before = opened.program.step, None
    rescue: Callable[[], int] | None = nothing_lost
    agree, alone = processes.Agreement(), jax.process_count() == 1
    due = lambda n: n and (step % n == 0 or step == every.num_steps)  # noqa: E731
    if step and due(every.evaluate_every):  # a process may have ended between saving and this
        with opened.watch.meanwhile(nothing_lost):
            evaluate(opened, step, state)
    while step < every.num_steps:
        opened.spent.switch_to("data")
        with opened.watch.meanwhile(rescue):
            batch = next(opened.batches)
        if step == opened.first_step:
            opened.spent.switch_to("compile")
            with opened.watch.meanwhile(nothing_lost):
                train_step = _compile(train_step, state, batch, task)
                processes.wait_for_all(f"{task.name} step {step}")
        opened.spent.switch_to("step")
        last.state = None
        state, metrics = train_step(state, batch, task)
        opened.journal.add(metrics)
        jax.block_until_ready(before)  # at most two steps are queued: a signal need not wait long
        before = metrics["loss"]
        step += 1
        position = opened.batches.get_state()
        last.step, last.state, last.position, last.saved = step, state, position, False
        if due(every.log_every):
            last.saved = True  # a process that was taken over must not save
            opened.checkpoints.fence()
            last.saved = False
            opened.journal.write(step, every.num_steps)
            last.saved = True  # a diverged state must not be saved
            _check_health(opened, step)
            last.saved = False
        stop = agree(_must_stop(opened)) and step < every.num_steps
        if due(every.save_every) or stop:
            jax.block_until_ready(before)
            opened.spent.switch_to("checkpoint")
            last.saved = True  # also if this fails: it would fail again
            save(opened, step, state, position)
        if due(every.snapshot_every):
            opened.spent.switch_to("checkpoint")
            opened.snapshots.save(step, state)
        if stop:
            raise opened.batches.failure or _stopped(opened, step)
        # The state can be saved until the next step overwrites it, but with several processes only
        # by all of them together.
        rescue = functools.partial(rescued, opened, step, state, position) if alone else None
        if due(every.sample_every):
            opened.spent.switch_to("sample")
            with opened.watch.meanwhile(rescue):
                opened.preview(step, averaged(state, opened.run.sampled))
        if due(every.evaluate_every):
            with opened.watch.meanwhile(rescue):
                evaluate(opened, step, state)
    return state


def evaluate(opened: Opened, step: int, state: TrainState) -> None:
    """Evaluates the averaged parameters on held-out examples and logs it, unless it is logged."""
    there = opened.log.has(step, EVALUATED)
    if opened.evaluate is None or (there and jax.process_count() == 1):
        return
    opened.spent.switch_to("sample")
    numbers = opened.evaluate(averaged(state, opened.run.sampled))
    if not there:
        opened.log.scalars(step, {f"{EVALUATED}{name}": x for name, x in numbers.items()})
    shown = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
    print(f"evaluation at step {step}: {shown}", flush=True)


def save(opened: Opened, step: int, state: TrainState, data_position: dict[str, int]) -> None:
    """Begins to save a state, which must be finite, and what the next lines of the log need."""
    if not jax.device_get(opened.program.all_finite(state)):
        raise Diverged(
            f"the state after step {step} is not finite, and was not saved; {_remedy(opened)}"
        )
    position = {"data": data_position, "log": opened.journal.to_json()}
    checkpoint.save(opened.checkpoints, step, state, position)
    opened.spent.saved(step)


def nothing_lost() -> int:
    """Handles a signal before the first step; returns the exit code."""
    print("stopped before the first step: there was nothing to save; run again", file=sys.stderr)
    return EXIT_TERMINATED


def rescued(opened: Opened, step: int, state: TrainState, data_position: dict[str, int]) -> int:
    """Handles a signal while the loop waits for something else; returns the exit code."""
    try:
        opened.spent.switch_to("checkpoint")
        save(opened, step, state, data_position)
        checkpoint.finish(opened.checkpoints)
        opened.snapshots.finish()
        opened.spent.note()
    except (StorageError, Diverged) as error:
        return command.say(error)
    print(_stopped(opened, step), file=sys.stderr)
    opened.log.close()
    return EXIT_TERMINATED


def _must_stop(opened: Opened) -> bool:
    """Whether a signal came, the time is up, or one of the next batches cannot be read."""
    limit = opened.run.loop.max_seconds
    time_is_up = bool(limit) and opened.spent.elapsed() >= limit
    return bool(opened.watch) or time_is_up or opened.batches.failure is not None


def _stopped(opened: Opened, step: int) -> Exception:
    """The ending of a run at `step`. If another process caused it, the reason is a guess."""
    saved = f"at step {step}, saved in {opened.run.workdir}; run again to go on"
    limit = opened.run.loop.max_seconds
    if limit and not opened.watch:
        return OutOfTime(f"stopped after train.max_seconds = {limit:g} {saved}")
    return Terminated(f"stopped {saved}")


def _check_health(opened: Opened, step: int) -> None:
    bad = opened.journal.health.bad_in_a_row
    if bad >= opened.run.loop.max_bad_steps:
        raise Diverged(
            f"the loss or a gradient is not finite in steps {step - bad + 1} to {step}, which were "
            f"skipped (train.max_bad_steps = {opened.run.loop.max_bad_steps}); {_remedy(opened)}"
        )


def _remedy(opened: Opened) -> str:
    checkpoint.finish(opened.checkpoints)
    return (
        f"lower optim.learning_rate ({opened.run.loop.learning_rate}) and run again: it goes on "
        f"from step {opened.checkpoints.latest_step() or 0}"
    )


def ended(opened: Opened, state: TrainState) -> Report:
    """Prints the digest of the final state, and how the run went."""
    step = opened.run.loop.num_steps if opened.journal.losses else opened.first_step
    losses, speed = opened.journal.losses, opened.journal.images_per_second()
    position = {"data": opened.batches.get_state(), "log": opened.journal.to_json()}
    print(f"digest of step {step}: {digest_of(state, position)}", flush=True)
    mean = lambda some: writer.average(some) if some else float("nan")  # noqa: E731
    report = Report(step, mean(losses[:10]), mean(losses[-50:]), speed)
    if losses:
        print(goodput_table(opened.spent.seconds()))
        print(
            f"{opened.run.name}: loss {report.first_loss:.4f} (mean of the first 10 steps) -> "
            f"{report.last_loss:.4f} (mean of the last 50), {speed:.1f} images/s",
            flush=True,
        )
    return report


def _compile(train_step, state, batch, task):
    """Compiles before the first step, so that the time of compiling is printed and not counted."""
    print("compiling the training step ...", flush=True)
    start = time.perf_counter()
    compiled = train_step.lower(state, batch, task).compile()
    print(f"compiled in {time.perf_counter() - start:.1f} s", flush=True)
    return compiled
