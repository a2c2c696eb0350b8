"""launch/host.sh: a training outlives the connection that started it, and its end is told once."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.launch.cloud import WHERE, Cloud

SLEEPER = """#!/bin/sh
echo "$$ started" >>"$HOME/starts"
trap 'echo saved; sleep 0.2; exit 143' TERM
echo working
while [ ! -e "$HOME/go" ]; do sleep 0.05; done
echo end of work
exit "$(cat "$HOME/go")"
"""


@pytest.fixture
def home(tmp_path):
    cloud = Cloud(tmp_path)
    home = cloud.worker()
    program = home / "diffjax" / "venv" / "bin" / "work"
    program.write_text(SLEEPER)
    program.chmod(0o755)
    yield home
    pid = home / "diffjax" / "runs" / "demo" / "leader"
    if pid.exists():  # whatever a failed test left
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(pid.read_text()), signal.SIGKILL)


def host(home, *arguments, worker=0, **env):
    """Start host.sh as ssh would, in a session of its own; the process."""
    return subprocess.Popen(
        [home / "diffjax" / "code" / "launch" / "host.sh", *arguments],
        env=Cloud(home.parent).env(HOME=str(home), DIFFJAX_WORKER=str(worker), **env), cwd=home,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def end_of(process):
    out, _ = process.communicate(timeout=300)
    return process.returncode, out


def followers(home):
    """Those that pass the output of the training on."""
    found = subprocess.run(["pgrep", "-f", f"^tail .*{home}"], capture_output=True, text=True)
    return found.stdout.split()


def starts(home):
    path = home / "starts"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize(("code", "told"), [(0, 0), (2, 2), (143, 143), (255, 254)])
def test_the_exit_code_and_the_output_are_the_trainings(home, code, told):
    (home / "go").write_text(str(code))
    assert end_of(host(home, "run", "demo", "a1", "work")) == (
        told,
        f"working\nend of work\n\ndiffjax-exit 0 {told}\n",
    )


def test_a_training_goes_on_when_its_connection_is_lost_and_is_followed_again(home):
    first = host(home, "run", "demo", "a1", "work")
    until(lambda: starts(home))
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    again = host(home, "run", "demo", "a1", "work")
    other = host(home, "run", "demo", "a2", "work")  # another loop, on another machine
    time.sleep(0.3)
    (home / "go").write_text("0")
    for process in (again, other):
        code, out = end_of(process)
        assert code == 0
        assert "attempt a1 is running here" in out
        assert "end of work" in out
    assert starts(home) == 1


def test_an_attempt_that_has_ended_is_not_run_again_but_reported_again(home):
    (home / "go").write_text("3")
    for _ in range(2):
        code, out = end_of(host(home, "run", "demo", "a1", "work"))
        assert (code, out.count("diffjax-exit 0 3")) == (3, 1)
    assert starts(home) == 1
    (home / "go").write_text("0")
    assert end_of(host(home, "run", "demo", "a2", "work"))[0] == 0
    assert starts(home) == 2


def test_two_starts_at_once_make_one_training(home):
    both = [host(home, "run", "demo", "a1", "work") for _ in range(2)]
    until(lambda: starts(home))
    (home / "go").write_text("0")
    assert [end_of(process)[0] for process in both] == [0, 0]
    assert starts(home) == 1


def test_stop_lets_the_training_save_and_tells_the_loop_that_the_user_stopped_it(home):
    running = host(home, "run", "demo", "a1", "work")
    until(lambda: starts(home))
    assert end_of(host(home, "alive", "demo"))[0] == 0
    assert end_of(host(home, "stop", "demo", "--by-user"))[0] == 0
    code, out = end_of(running)
    assert code == 143
    assert out.endswith("saved\n\ndiffjax-exit 0 143 stopped\n")
    assert end_of(host(home, "alive", "demo"))[0] == 1
    (home / "go").write_text("0")  # and the next attempt is not a stopped one
    assert end_of(host(home, "run", "demo", "a2", "work"))[1].endswith("diffjax-exit 0 0\n")


def test_a_training_that_does_not_end_after_sigterm_is_killed(home):
    stubborn = home / "diffjax" / "venv" / "bin" / "stubborn"
    stubborn.write_text(
        "#!/bin/bash\ntrap '' TERM\necho x >>$HOME/starts\nwhile :; do sleep 1; done\n"
    )
    stubborn.chmod(0o755)
    running = host(home, "run", "demo", "a1", "stubborn")
    until(lambda: starts(home))
    assert "killed" in end_of(host(home, "stop", "demo", DIFFJAX_GRACE="1"))[1]
    code, out = end_of(running)
    assert (code, out.endswith("\ndiffjax-exit 0 254\n")) == (254, True)


def test_only_the_first_worker_prints_but_a_failed_one_shows_its_end(home):
    (home / "go").write_text("1")
    _, out = end_of(host(home, "run", "demo", "a1", "work", worker=3))
    assert out == "[worker 3] working\n[worker 3] end of work\n\ndiffjax-exit 3 1\n"
    (home / "go").write_text("0")
    assert end_of(host(home, "run", "demo", "a2", "work", worker=3)) == (0, "\ndiffjax-exit 3 0\n")


def test_secrets_reach_the_training_and_no_output(home):
    env = home / "diffjax" / "env"
    env.write_text("# comment\n\nHF_TOKEN=hf_ $(x) 'y'\nWANDB_API_KEY=\n")
    env.chmod(0o600)
    shows = home / "diffjax" / "venv" / "bin" / "shows"
    shows.write_text('#!/bin/sh\nprintf %s "$HF_TOKEN:${WANDB_API_KEY-unset}" >"$HOME/token"\n')
    shows.chmod(0o755)
    code, out = end_of(host(home, "run", "demo", "a1", "shows"))
    assert (code, out) == (0, "\ndiffjax-exit 0 0\n")
    assert (home / "token").read_text() == "hf_ $(x) 'y':unset"
    env.chmod(0o640)
    code, out = end_of(host(home, "run", "demo", "a2", "shows"))
    assert code == 2
    assert "chmod 600" in out
    assert "hf_" not in out


def test_a_connection_lost_on_the_way_is_taken_up_by_the_loop(home, tmp_path):
    """gcloud runs a command again when ssh ended with 255; the training must not start twice."""
    cloud = Cloud(tmp_path)
    cloud.program("python", '#!/bin/sh\n[ "$1" = -c ] || exec work\n')
    os.symlink(tmp_path / "bin" / "python", home / "diffjax" / "venv" / "bin" / "python")
    loop = subprocess.Popen(
        [cloud.root / "launch" / "tpu.sh", "train", *WHERE, "--type", "v6e-8"], env=cloud.env(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    # the loop finds no training there and would set the worker up: that is another test's matter
    cloud.program("uv", "#!/bin/sh\nexit 0\n")
    until(lambda: starts(home))
    until(lambda: followers(home))
    for pid in followers(home):
        parent = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        os.kill(parent, signal.SIGKILL)  # the far end of the connection
        os.kill(int(pid), signal.SIGKILL)
    time.sleep(0.5)
    (home / "go").write_text("0")
    out, _ = loop.communicate(timeout=300)
    assert loop.returncode == 0, out
    assert starts(home) == 1
