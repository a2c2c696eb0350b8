"""Two processes of two devices each, on this machine: they train as one process of four would."""

import json
import re
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from diffjax import checkpoint
from diffjax.build.options import config
from diffjax.build.training import training_of
from diffjax.training.program import program_of
from tests import runs
from tests.data.sources import made
from tests.quick import XLA_FLAGS
from tests.tiny_t5 import save_tiny
from tests.training.test_meshes import furthest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
MESH = ("mesh.fsdp=2", "mesh.tensor=2")
# Process 1 sends itself SIGTERM after its step 4, when it has just been asked.
STOPPED = """
import os, signal, sys
from diffjax import main
from diffjax.core import signals
from diffjax.devices import processes

told = processes.Agreement.__call__
calls = []

def call(self, flag):
    calls.append(flag)
    if len(calls) == 4 and os.environ["JAX_PROCESS_ID"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return told(self, flag)

processes.Agreement.__call__ = call
signals.leave_on_signals()
sys.exit(main.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("t5"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def together(workdir, encoder, *flags, count=2, devices=2, only=None, homes=(), **options):
    """Start the processes; (code, stdout, stderr) of each once all have ended.

    homes: the home folder of each.
    """
    port, started = free_port(), []
    for i in range(count) if only is None else only:
        several = {} if count == 1 else {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(count),
            "JAX_PROCESS_ID": str(i),
        }  # fmt: skip
        if homes:
            several["HOME"] = str(homes[i])
        xla = f"{XLA_FLAGS} --xla_force_host_platform_device_count="
        started.append(
            runs.start(workdir, encoder, "train.num_steps=10", "train.log_every=1", *flags,
                       XLA_FLAGS=f"{xla}{devices}", **several, **options)
        )  # fmt: skip
    try:
        return [runs.finish(process, timeout=1200) for process in started]
    finally:
        for process in started:
            process.kill()


def saved(workdir, *flags):
    """The newest state under a workdir, on one device, and the data's position."""
    options = config.restore(workdir / "config.json")
    options.mesh.update(data=1, fsdp=1, tensor=1)
    like = program_of(training_of(options, 16, devices=jax.devices()[:1])).place.state_shape
    with checkpoint.open_dir(workdir / "checkpoints") as checkpoints:
        state, position = checkpoint.restore(checkpoints, like)
    return jax.device_get(state), position


@pytest.mark.parametrize("flags", [(), MESH], ids=["data", "fsdp and tensor"])
def test_two_processes_stop_at_one_step_go_on_and_end_where_one_would(tmp_path, encoder, flags):
    flags = ("train.sample_every=10", "train.save_every=5", *flags)
    ((code, _, err),) = together(tmp_path / "one", encoder, *flags, count=1, devices=4)
    assert code == 0, err
    two = tmp_path / "two"
    ended = together(two, encoder, *flags, program=("-c", STOPPED))
    assert [code for code, _, _ in ended] == [143, 143], ended
    steps = {re.search(r"stopped at step (\d+), saved", err)[1] for _, _, err in ended}
    assert steps == {"6"}  # told after step 4, asked after step 5: all know it one step later
    assert "step" not in ended[1][1]  # the first process alone prints
    assert "processes: 2 (flags), this is 0, with 2 of 4 devices" in ended[0][1]
    state, position = saved(two)
    assert int(state.step) == 6
    assert json.dumps(position).count('"next_example": 48') == 1

    ended = together(two, encoder, *flags)
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert "resuming from step 6" in ended[0][1]
    (mine, mine_at), (theirs, theirs_at) = saved(two), saved(tmp_path / "one")
    assert mine_at["data"] == theirs_at["data"] == {"next_example": 80}
    print("furthest", furthest(mine, theirs))
    assert furthest(mine, theirs) < 1e-5
    ours, others = (runs.lines(tmp_path / name) for name in ("two", "one"))
    assert [line["step"] for line in ours] == list(range(1, 11))
    np.testing.assert_allclose(
        [line["loss"] for line in ours], [line["loss"] for line in others], rtol=1e-6
    )
    sheets = [
        np.asarray(Image.open(tmp_path / name / "samples" / "0000010.png"), int)
        for name in ("two", "one")
    ]
    assert np.abs(sheets[0] - sheets[1]).max() <= 1


def test_two_processes_go_on_with_what_one_began_and_back(tmp_path, encoder):
    """The examples are those of an uninterrupted run: the losses say so, step by step."""
    rate = "optim.decay=constant"  # of no schedule that ends with the last step
    for num_steps, count in ((3, 1), (6, 2), (10, 1)):
        ended = together(
            tmp_path / "run", encoder, f"train.num_steps={num_steps}", rate, count=count,
            devices=4 // count,
        )  # fmt: skip
        assert [code for code, _, _ in ended] == [0] * count, ended
    ((code, _, err),) = together(tmp_path / "whole", encoder, rate, count=1, devices=1)
    assert code == 0, err
    ours, others = (runs.lines(tmp_path / name) for name in ("run", "whole"))
    np.testing.assert_allclose(
        [line["loss"] for line in ours], [line["loss"] for line in others], rtol=1e-5
    )


def test_one_process_goes_on_with_a_folder_of_pictures_that_two_began(tmp_path, encoder):
    """Of the same examples, a broken picture among them: the losses say so, step by step."""
    root = made.folder(tmp_path / "photos", "txt", count=40)
    (root / "p004.png").write_bytes(b"no picture")
    flags = (f"data.name=folder:{root}", "data.max_bad_fraction=0.1", "optim.decay=constant")
    for num_steps, count in ((4, 2), (10, 1)):
        ended = together(
            tmp_path / "run", encoder, f"train.num_steps={num_steps}", *flags, count=count,
            devices=4 // count,
        )  # fmt: skip
        assert [code for code, _, _ in ended] == [0] * count, ended
    ((code, _, err),) = together(tmp_path / "whole", encoder, *flags, count=1, devices=4)
    assert code == 0, err
    ours, others = (runs.lines(tmp_path / name) for name in ("run", "whole"))
    assert [line["step"] for line in ours] == list(range(1, 11))
    np.testing.assert_allclose(
        [line["loss"] for line in ours], [line["loss"] for line in others], rtol=1e-5
    )


@pytest.mark.parametrize("there", ["other pictures", "no folder"])
def test_processes_that_do_not_read_the_same_pictures_all_end_with_a_line(tmp_path, encoder, there):
    homes = tmp_path / "a", tmp_path / "b"
    made.folder(homes[0] / "photos", "txt", count=8)
    homes[1].mkdir()
    if there == "other pictures":
        made.folder(homes[1] / "photos", "txt", count=9)
    ended = together(tmp_path / "run", encoder, "data.name=folder:~/photos", homes=homes)
    assert [code for code, _, _ in ended] == [2, 2], ended
    for _, _, err in ended:
        said = [line for line in err.splitlines() if "data.name = 'folder:~/photos'" in line]
        assert len(said) == 1, err
        if there == "other pictures":
            assert "process 1 reads other data than process 0 (9 records and 8)" in said[0]
        else:
            assert "there is no such folder" in said[0]
        assert "Traceback" not in err


@pytest.mark.parametrize("alone", [0, 1])
def test_a_worker_alone_says_that_the_others_are_missing(tmp_path, encoder, alone):
    command = runs.arguments(tmp_path / "run", encoder)
    flags = [
        "--coordinator", f"127.0.0.1:{free_port()}", "--num_processes", "2",
        "--process_id", str(alone), "--connect_s", "5",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "diffjax.main", *command, *flags],
        cwd=runs.ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "did not come up within 5 s. Was it started on one worker only?" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_worker_that_waits_for_the_others_ends_on_a_signal_at_once(tmp_path, encoder):
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "diffjax.main", *runs.arguments(tmp_path / "run", encoder),
         "--coordinator", f"127.0.0.1:{port}", "--num_processes", "2", "--process_id", "0"],
        cwd=runs.ROOT,
    )  # fmt: skip
    try:
        while process.poll() is None:  # until it listens: then it waits in jax
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        start = time.monotonic()
        process.terminate()
        assert process.wait(timeout=60) == 143
        assert time.monotonic() - start < 10
    finally:
        process.kill()


def test_two_processes_say_of_held_out_pictures_what_one_would(tmp_path, encoder):
    """Here with parameters in shards, and fewer examples than fill the devices evenly."""
    flags = (
        "train.num_steps=4", "train.sample_every=0", "train.evaluate_every=2",
        "train.evaluate_examples=6", "mesh.fsdp=2",
    )  # fmt: skip
    for name, count, devices in (("one", 1, 4), ("two", 2, 2)):
        ended = together(tmp_path / name, encoder, *flags, count=count, devices=devices)
        assert [code for code, _, _ in ended] == [0] * count, ended
    ours, others = (
        [line for line in runs.lines(tmp_path / name) if "evaluate/loss" in line]
        for name in ("two", "one")
    )
    assert [line["step"] for line in ours] == [2, 4]
    for mine, theirs in zip(ours, others, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)
