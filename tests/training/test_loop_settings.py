"""When the loop logs, saves, samples and stops: every field of LoopSettings, without a network."""

import dataclasses
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from diffjax import checkpoint
from diffjax.core import signals
from diffjax.core.errors import BadData, ConfigError, Diverged, OutOfTime, Terminated
from diffjax.logs.health import Health
from diffjax.training import loop
from diffjax.training import run as run_lib
from diffjax.training.run import LoopSettings, Opened, Run
from diffjax.training.state import TrainState

PLAIN = LoopSettings(num_steps=10, log_every=3, save_every=4, snapshot_every=5, sample_every=6)


class Stands:
    """All that the loop works with; each notes the step at which it is asked."""

    def __init__(
        self,
        first_step=0,
        bad_from=None,
        seconds=0.0,
        signal_at=None,
        unread_at=None,
        fails_at=None,
        taken_at=None,
    ):
        self.at = {"log": [], "save": [], "snapshot": [], "preview": []}
        self.step, self._bad_from, self._signal_at = first_step, bad_from, signal_at
        self.watch = signals.Watch(leave=lambda code: None)
        self.seconds, self.losses, self._taken_at = seconds, [], taken_at
        self._unread_at, self._fails_at, self.failure = unread_at, fails_at, None

    def lower(self, *shapes):
        return self

    def compile(self):
        return self

    def __call__(self, state, batch, task):
        self.step += 1
        if self.step == self._signal_at:
            self.watch.tell()
        return state.replace(step=self.step), {"loss": jnp.float32(0.0)}

    def opened(self, settings, first_step=0):
        task = SimpleNamespace(name="stage")
        run = object.__new__(Run)
        training = SimpleNamespace(task=task)
        for name, value in dict(
            training=training, loop=settings, workdir="w", sampled="live"
        ).items():
            object.__setattr__(run, name, value)
        parts = dict(
            run=run, program=SimpleNamespace(step=self), first_step=first_step, watch=self.watch,
            batches=self, journal=self, checkpoints=self, snapshots=self, spent=self,
            preview=self.preview,
        )  # fmt: skip
        made = object.__new__(Opened)
        for name, value in parts.items():
            object.__setattr__(made, name, value)
        return made

    def preview(self, step, params):
        if step == self._fails_at:
            raise ValueError("a picture cannot be drawn")
        self.at["preview"].append(step)

    # the batches; which cannot be read is known one step ahead
    def __next__(self):
        if self._unread_at is not None and self.step + 1 >= self._unread_at:
            self.failure = BadData(f"the batch of step {self._unread_at} is broken")
        if self.failure is not None and self.step >= self._unread_at:
            raise self.failure
        return {"x": jnp.zeros(1)}

    def get_state(self):
        return {"next_example": self.step}

    # the journal
    def add(self, metrics):
        pass

    def write(self, step, num_steps):
        self.at["log"].append(step)

    @property
    def health(self):
        bad = 0 if self._bad_from is None else max(0, self.step - self._bad_from + 1)
        return Health(bad_in_a_row=bad)

    # the snapshots, the checkpoints and the clock
    def save(self, step, state):
        self.at["snapshot"].append(step)

    def latest_step(self):
        return max(self.at["save"], default=None)

    def switch_to(self, kind):
        pass

    def fence(self):
        if self.step == self._taken_at:
            raise ConfigError("workdir", "w", "process 7 took over")

    def elapsed(self):
        return self.seconds


@pytest.fixture
def ran(monkeypatch):
    """ran(settings, first_step, **how) -> (the steps of each event, how the loop ended)."""

    def run(settings, first_step=0, **how):
        stands = Stands(first_step, **how)
        monkeypatch.setattr(loop, "save", lambda _, step, *rest: stands.at["save"].append(step))
        monkeypatch.setattr(checkpoint, "finish", lambda checkpoints: None)
        try:
            loop.loop(stands.opened(settings, first_step), TrainState(first_step, {}, {}, {}))
        except (BadData, Diverged, OutOfTime, Terminated, ValueError) as ending:
            return stands.at, ending
        return stands.at, None

    return run


def test_each_thing_is_done_every_so_many_steps_and_after_the_last(ran):
    at, ended = ran(PLAIN)
    assert at == {"log": [3, 6, 9, 10], "save": [4, 8, 10], "snapshot": [5, 10], "preview": [6, 10]}
    assert ended is None


@pytest.mark.parametrize("name", ["save", "snapshot", "sample"])
def test_nought_is_never(ran, name):
    at, _ = ran(dataclasses.replace(PLAIN, **{f"{name}_every": 0}))
    event = {"sample": "preview"}.get(name, name)
    assert at[event] == []
    assert all(steps for other, steps in at.items() if other != event)


def test_a_run_that_goes_on_counts_from_the_first_step_of_all(ran):
    at, _ = ran(PLAIN, first_step=7)
    assert at == {"log": [9, 10], "save": [8, 10], "snapshot": [10], "preview": [10]}
    assert ran(PLAIN, first_step=10)[0] == {name: [] for name in at}


@pytest.mark.parametrize(("most", "step"), [(1, 6), (2, 6), (3, 9), (4, 9), (6, 10)])
def test_so_many_bad_steps_in_a_row_end_the_run_at_the_next_line_of_the_log(ran, most, step):
    """Bad from step 5 on: at the lines of steps 6, 9 and 10 there are 2, 5 and 6 of them."""
    settings = dataclasses.replace(PLAIN, max_bad_steps=most, learning_rate=0.25)
    at, ended = ran(settings, bad_from=5)
    assert isinstance(ended, Diverged)
    assert at["log"][-1] == step
    assert f"train.max_bad_steps = {most}" in str(ended)
    assert "lower optim.learning_rate (0.25)" in str(ended)
    assert ran(dataclasses.replace(settings, max_bad_steps=7), bad_from=5)[1] is None


@pytest.mark.parametrize(("limit", "seconds", "ends"), [(0.0, 1e9, False), (60.0, 59.9, False),
                                                        (60.0, 60.0, True)])  # fmt: skip
def test_a_run_whose_time_is_up_saves_the_finished_step_and_ends(ran, limit, seconds, ends):
    at, ended = ran(dataclasses.replace(PLAIN, max_seconds=limit), seconds=seconds)
    assert isinstance(ended, OutOfTime) is ends
    assert at["save"] == ([1] if ends else [4, 8, 10])


def test_a_signal_saves_the_step_that_it_comes_in_and_at_the_last_step_changes_nothing(ran):
    at, ended = ran(PLAIN, signal_at=5)
    assert isinstance(ended, Terminated)
    assert at == {"log": [3], "save": [4, 5], "snapshot": [5], "preview": []}
    assert ran(PLAIN, signal_at=10)[1] is None


def test_as_many_checkpoints_are_kept_as_the_settings_say(tmp_path, monkeypatch):
    class Seen(Exception):
        """What checkpoints are opened with."""

    def open_dir(path, **how):
        raise Seen(path, how)

    place = SimpleNamespace(state_shape={})
    monkeypatch.setattr(run_lib, "program_of", lambda training: SimpleNamespace(place=place))
    monkeypatch.setattr(checkpoint, "open_dir", open_dir)
    settings = dataclasses.replace(PLAIN, keep=5, keep_every=20)
    run = object.__new__(Run)
    given = dict(training=None, loop=settings, workdir=tmp_path, config_json="{}", sampled="live",
                 open_data=lambda: None)  # fmt: skip
    for name, value in given.items():
        object.__setattr__(run, name, value)
    fence = lambda: None  # noqa: E731
    with pytest.raises(Seen) as seen, run_lib.ExitStack() as at_the_end:
        run_lib.begin(run, signals.Watch(), at_the_end, fence)
    given = {"keep": 5, "keep_every": 20, "config": "{}\n", "fence": fence}
    assert seen.value.args == (tmp_path / "checkpoints", given)


# Fields that other files test.
ELSEWHERE = {"evaluate_every"}  # tests/test_evaluate.py


def test_every_field_is_looked_at_here():
    """A new field: say here what the loop does at which steps, or name the test that does."""
    fields = {field.name for field in dataclasses.fields(LoopSettings)}
    assert fields - ELSEWHERE == {
        "num_steps", "log_every", "save_every", "snapshot_every", "sample_every", "keep",
        "keep_every", "max_bad_steps", "max_seconds", "learning_rate",
    }  # fmt: skip


def test_a_batch_that_cannot_be_read_ends_the_run_after_the_steps_before_it_are_saved(ran):
    at, ended = ran(PLAIN, unread_at=7)
    assert at["save"] == [4, 7]
    assert str(ended) == "the batch of step 7 is broken"


def test_a_batch_that_cannot_be_read_does_not_end_a_run_that_needs_it_no_more(ran):
    at, ended = ran(PLAIN, unread_at=10)
    assert (at["save"], ended) == ([4, 8, 10], None)


def test_a_first_batch_that_cannot_be_read_saves_nothing(ran):
    at, ended = ran(PLAIN, unread_at=0)
    assert (at["save"], str(ended)) == ([], "the batch of step 0 is broken")


@pytest.mark.parametrize(("fails_at", "saved"), [(6, [4, 6]), (8, [4, 8])])
def test_whatever_ends_a_run_between_two_steps_the_finished_one_is_saved_once(ran, fails_at, saved):
    settings = dataclasses.replace(PLAIN, sample_every=fails_at)
    at, ended = ran(settings, fails_at=fails_at)
    assert at["save"] == saved
    assert str(ended) == "a picture cannot be drawn"


def test_a_diverged_step_is_not_saved_on_the_way_out(ran):
    at, ended = ran(dataclasses.replace(PLAIN, max_bad_steps=1, save_every=100), bad_from=5)
    assert isinstance(ended, Diverged)
    assert at["save"] == []


def test_a_process_that_was_taken_over_writes_no_line_and_saves_nothing(ran):
    at, ended = ran(PLAIN, taken_at=6)
    assert isinstance(ended, ConfigError)
    assert (at["log"], at["save"]) == ([3], [4])
