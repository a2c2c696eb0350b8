"""Real processes, cut off, terminated and killed at random; each must end as if nothing happened.

Minutes: marked slow. Random moments come from a seed.
"""

import random
import re
import signal
import threading
import time

import pytest

from diffjax import checkpoint
from diffjax.logs import journal
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.task import ALONE
from tests import runs
from tests.tiny_t5 import save_tiny

pytestmark = pytest.mark.slow

SR = "configs/sr256.py:tiny"
BASE = "configs/base64.py:tiny"
# Two averages, captions dropped; lines and saves out of step with one another.
LONG = ("train.num_steps=40", "train.log_every=6", "train.save_every=7", "train.sample_every=0",
        "train.ema=('decay_0.99','power_0.1')")  # fmt: skip
# In the child: SIGTERM to itself while a step is under way.
CUT = """
import signal, sys
from diffjax import main
from diffjax.logs import journal
add, left = journal.Journal.add, [int(sys.argv.pop(1))]
def interrupted(self, metrics):
    add(self, metrics)
    left[0] -= 1
    if left[0] == 0:
        signal.raise_signal(signal.SIGTERM)
journal.Journal.add = interrupted
sys.exit(main.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("t5"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.mark.parametrize("config", [BASE, SR])
def test_five_random_cuts_change_no_bit_of_the_end(config, tmp_path, encoder):
    """R1: the digest and all lines."""
    code, out, err = runs.finish(runs.start(tmp_path / "whole", encoder, *LONG, config=config))
    assert code == 0, err
    expected, lines = runs.digest(out), runs.lines(tmp_path / "whole")
    for cut in random.Random(config).sample(range(1, 40), 5):
        workdir = tmp_path / f"cut{cut}"
        process = runs.start(workdir, encoder, *LONG, config=config, program=("-c", CUT, str(cut)))
        code, _, err = runs.finish(process)
        assert (code, f"stopped at step {cut}," in err) == (143, True), err
        code, out, err = runs.finish(runs.start(workdir, encoder, *LONG, config=config))
        assert code == 0, err
        assert f"resuming from step {cut} " in out
        assert runs.digest(out) == expected
        assert runs.lines(workdir) == lines


def test_two_hundred_steps_over_four_resumes_draw_no_noise_twice(tmp_path, encoder, monkeypatch):
    """R2: the noise itself is looked at, where the loss of each example is computed."""
    loss = Denoising.loss

    def spied(self, params, batch, peers=ALONE):
        losses = loss(self, params, batch, peers)
        noise = batch["eps"].sum((1, 2, 3))
        return losses._replace(metrics={**losses.metrics, "noise": noise})

    monkeypatch.setattr(Denoising, "loss", spied)
    flags = ("train.num_steps=200", "train.log_every=1", "train.save_every=9",
             "train.sample_every=0", "seed=2")  # fmt: skip
    add = journal.Journal.add
    for count in (23, 41, 77, 30):
        left = [count]

        def interrupted(self, metrics, left=left):
            add(self, metrics)
            left[0] -= 1
            if left[0] == 0:
                signal.raise_signal(signal.SIGTERM)

        with monkeypatch.context() as patch:
            patch.setattr(journal.Journal, "add", interrupted)
            assert runs.run(tmp_path, encoder, *flags) == 143
    assert runs.run(tmp_path, encoder, *flags) == 0
    noise = [line["noise"] for line in runs.lines(tmp_path)]
    assert len(noise) == len(set(noise)) == 200


class Reader(threading.Thread):
    """Collects what a process prints, with an event for each thing that is waited for."""

    def __init__(self, process):
        super().__init__(daemon=True)
        self.process, self.text = process, ""
        self.start()

    def run(self):
        for line in self.process.stdout:
            self.text += line

    def wait_for(self, words, seconds=600):
        end = time.monotonic() + seconds
        while words not in self.text and self.process.poll() is None:
            assert time.monotonic() < end, f"{words!r} never came: {self.text}"
            time.sleep(0.002)


# What is waited for, and at most how many seconds more: so SIGTERM falls into each phase.
MOMENTS = [
    ("", 1.0),  # imports
    ("", 4.0),  # reading, restoring
    ("compiling the training step", 0.0),
    ("compiling the training step", 2.0),
    ("compiled in", 0.1),
    ("step  3/", 0.1),
    ("step  4/", 0.05),  # a save is under way
    ("step  6/", 0.3),  # pictures
    ("step  6/", 2.0),  # pictures, or the program that makes them is compiled
    ("step 11/", 0.3),
]


@pytest.mark.parametrize("twice", [False, True])
def test_ten_of_ten_terminations_save_the_step_and_end_in_ten_seconds(twice, tmp_path, encoder):
    """R4: in all phases; nothing is compiled beforehand, and pictures take seconds."""
    flags = ("train.num_steps=14", "train.log_every=1", "train.save_every=4",
             "train.sample_every=6", "sample.num_steps=300")  # fmt: skip
    moments, lost, took, said = random.Random(twice), [], [], []
    code, out, err = runs.finish(runs.start(tmp_path / "whole", encoder, *flags))
    assert code == 0, err
    expected, lines = runs.digest(out), runs.lines(tmp_path / "whole")
    for i, (words, at_most) in enumerate(MOMENTS[5:] if twice else MOMENTS):
        workdir = tmp_path / f"run{i}"
        environ = {"JAX_ENABLE_COMPILATION_CACHE": "false"} if "compil" in words else {}
        process = runs.start(workdir, encoder, *flags, **environ)
        reader = Reader(process)
        reader.wait_for(words)
        time.sleep(moments.uniform(0, at_most))
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        if twice:
            time.sleep(moments.uniform(0, 0.2))
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143, (words, process.stderr.read())
        took.append((round(time.monotonic() - begun, 1), round(runs.within(10), 1)))
        reader.join()
        err = process.stderr.read()
        finished = max([0, *map(int, re.findall(r"^step +(\d+)/", reader.text, re.M))])
        saved = int((re.findall(r"stopped at step (\d+)", err) or [0])[0])
        said.append((words, finished, saved))
        lost.append(max(finished - saved, 0))
        assert not list(workdir.rglob("*.tmp")), words
        steps = checkpoint.survey(workdir / "checkpoints", full=True)
        assert all(step.state == "good" for step in steps)
        assert max([0, *(step.step for step in steps)]) == saved, said
        code, out, err = runs.finish(runs.start(workdir, encoder, *flags))
        assert code == 0, err
        assert runs.digest(out) == expected
        assert runs.lines(workdir) == lines
    print(f"\nsteps lost at most {max(lost)}: {said}\nseconds to the end, and allowed: {took}")
    assert all(seconds <= allowed for seconds, allowed in took)
    assert max(lost) <= 1


@pytest.mark.parametrize("how", ["its terminal is closed", "nobody reads its output"])
def test_a_run_that_is_left_alone_saves_its_step(how, tmp_path, encoder):
    """As SIGTERM does; and what it still prints harms it no more."""
    flags = ("train.num_steps=4000", "train.log_every=1", "train.save_every=4000",
             "train.sample_every=0")  # fmt: skip
    process = runs.start(tmp_path / "run", encoder, *flags)
    while not process.stdout.readline().startswith("step    3/"):
        assert process.poll() is None, process.stderr.read()
    if how == "its terminal is closed":
        process.send_signal(signal.SIGHUP)
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) == 143, err
    (step,) = map(int, re.findall(r"^stopped at step (\d+), saved in ", err, re.M))
    assert "Traceback" not in err
    (found,) = checkpoint.survey(tmp_path / "run" / "checkpoints", full=True)
    assert (found.step, found.state) == (step, "good")
    assert 3 <= step < 4000


def test_twenty_of_twenty_kills_go_on_to_the_same_end(tmp_path, encoder):
    """R5: kill -9, of which at least eight while a save is in flight.

    A run that comes to its end in spite of them is compared, and the next kills go to another.
    """
    flags = (*LONG, "train.log_every=2", "train.save_every=3", "train.sample_every=20")
    code, out, err = runs.finish(runs.start(tmp_path / "whole", encoder, *flags))
    assert code == 0, err
    expected, lines = runs.digest(out), runs.lines(tmp_path / "whole")
    moments, kills, in_flight, ended = random.Random(5), 0, 0, 0
    while kills < 20 or ended == 0:
        workdir = tmp_path / f"killed{ended}"
        checkpoints = workdir / "checkpoints"
        process = runs.start(workdir, encoder, *flags)
        reader = Reader(process)
        if kills == 20:
            process.wait()
        elif kills % 2:  # at any time
            reader.wait_for(moments.choice(["", "compiling", "compiled", "step", "samples"]))
            time.sleep(moments.uniform(0, 1.0))
        else:  # while a save is in flight
            while not unfinished(checkpoints) and process.poll() is None:
                time.sleep(0.0005)
            time.sleep(moments.uniform(0, 0.02))
        process.kill()
        if process.wait() == -9:
            kills += 1
            in_flight += bool(unfinished(checkpoints))
            continue
        reader.join()
        assert process.returncode == 0, process.stderr.read()
        ended += 1
        assert runs.digest(reader.text) == expected
        assert runs.lines(workdir) == lines
        assert all(step.state == "good" for step in checkpoint.survey(checkpoints, full=True))
    print(f"\n{in_flight} of {kills} kills while a save was in flight, {ended} runs ended")
    assert in_flight >= 8


def unfinished(checkpoints):
    """The steps that are being written: orbax's, and those whose manifest is not there yet."""
    if not checkpoints.is_dir():
        return []
    return [
        path for path in checkpoints.iterdir()
        if path.is_dir()
        and ("orbax-checkpoint-tmp" in path.name or not (path / "manifest.json").exists())
    ]  # fmt: skip


def test_no_token_of_the_environment_is_written_or_said(tmp_path, encoder):
    """R23: fake ones, under the names that people use."""
    names = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "KAGGLE_KEY",
             "AWS_SECRET_ACCESS_KEY", "GOOGLE_API_KEY")  # fmt: skip
    tokens = {name: f"fake-{name.lower()}-0123456789" for name in names}
    environ = {**tokens, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environ["DIFFJAX_CACHE_DIR"] = str(tmp_path / "cache" / "text")
    code, out, err = runs.finish(runs.start(tmp_path / "run", encoder, **environ))
    assert code == 0, err
    code, failed_out, failed = runs.finish(
        runs.start(tmp_path / "run", encoder, "model.width=32", **environ)
    )
    assert code == 2
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 10
    everything = b"".join(path.read_bytes() for path in written)
    everything += "".join((out, err, failed_out, failed)).encode()
    assert not [name for name, token in tokens.items() if token.encode() in everything]
