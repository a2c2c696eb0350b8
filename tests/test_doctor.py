import os
import queue
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffjax import doctor

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(doctor, "WRITE_BYTES", 1 << 20)


def test_the_command_looks_over_this_machine_quickly_and_tells_no_secret(tmp_path):
    environ = {**os.environ, "HF_TOKEN": "hf_SECRET1", "WANDB_API_KEY": "SECRET2"}
    environ.pop("XLA_FLAGS", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "diffjax.doctor", "--workdir", f"{tmp_path}/run", "--wait_s=120"],
        cwd=ROOT, env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout + done.stderr
    names = [line[3:].split("  ")[0] for line in done.stdout.splitlines()]
    assert names == [
        "python", "packages", "requirements", "host memory", "workdir", "compile cache",
        "text cache", "temporary", "shared memory", "open files", "huge pages", "tokens",
        "processes", "devices",
    ]  # fmt: skip
    assert "HF_TOKEN set" in done.stdout
    assert "SECRET" not in done.stdout + done.stderr
    assert "1 x cpu" in done.stdout
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.iterdir())
    # of the CPU, which a busy machine does not change; 2 to 4 s by machine
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 12


def test_what_would_break_a_run_ends_with_2_and_the_remedy(tmp_path, quick, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "MIN_DISK", 1 << 60)
    monkeypatch.setattr(doctor, "ask_devices", queue.Queue)
    assert doctor.main(["--workdir", str(tmp_path), "--wait_s", "0.01"]) == 2
    out, err = capsys.readouterr()
    assert "!! workdir" in out
    assert "workdir: make room or choose another --workdir\n" in err
    assert "temporary: make room or set TMPDIR\n" in err
    assert "devices: another process may hold them" in err


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path, quick):
    file = tmp_path / "file"
    file.write_text("")
    found = doctor.place("workdir", file / "run", 0)
    assert found.remedy == "cannot be written to; choose another --workdir"


def test_a_write_is_timed_and_leaves_nothing(tmp_path):
    start = time.perf_counter()
    speed = doctor.write_speed(tmp_path, 4 << 20)
    assert speed >= (4 << 20) / (time.perf_counter() - start)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("numpy>=1", ""),
        ("numpy<1", "pip install 'numpy<1'"),
        ("no-such-package>=2", "pip install 'no-such-package>=2'"),
        ('no-such-package; extra == "tpu"', ""),
    ],
)
def test_a_requirement_that_is_not_met_is_named_with_its_command(line, remedy):
    found = list(doctor.requirements([line]))
    assert [f.remedy for f in found if f.remedy] == ([remedy] if remedy else [])


def test_a_containers_limit_counts_as_the_memory_that_there_is(tmp_path):
    for name, text in {
        "proc/meminfo": "MemTotal:  16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\n",
        "sys/fs/cgroup/memory.max": f"{1 << 30}\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = doctor.host_memory(tmp_path)
    assert found.value.startswith("1.00 GiB free of 16.00 GiB, the container's limit 1.00 GiB")
    assert found.remedy
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    found = doctor.host_memory(tmp_path)
    assert found.value.startswith("8.00 GiB free of 16.00 GiB; ")
    assert not found.remedy


def test_devices_that_are_slow_to_start_are_no_error_unless_they_were_given_time(monkeypatch):
    monkeypatch.setattr(doctor, "DEVICES_S", 0.01)
    (found,) = doctor.devices(queue.Queue())
    assert (found.value, found.remedy) == ("no answer in 0.01 s", "")
    (found,) = doctor.devices(queue.Queue(), 0.02)
    assert found.remedy


def test_devices_that_fail_say_why_in_a_line():
    waiting = queue.Queue()
    waiting.put(RuntimeError("no driver\nand a long story"))
    (found,) = doctor.devices(waiting)
    assert found.value == "no driver"
    assert found.remedy


def test_tokens_are_named_and_never_shown():
    found = doctor.tokens({"HF_TOKEN": "hf_abc", "WANDB_API_KEY": ""})
    assert "HF_TOKEN set" in found.value
    assert "WANDB_API_KEY not set" in found.value
    assert "abc" not in str(found)


def test_a_launcher_that_is_half_there_is_a_remedy():
    found = doctor.processes({"JAX_NUM_PROCESSES": "2"})
    assert found.remedy.startswith("config error: --process_id")
    assert doctor.processes({}).value == "one"
