"""All of it at once: the cloud takes a real training away three times; its result is the same."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import runs
from tests.launch.cloud import ROOT, Cloud
from tests.launch.test_slurm import STUBS
from tests.quick import XLA_FLAGS
from tests.tiny_t5 import save_tiny

STEPS = 180
UV = """#!/bin/sh
[ "$1" = venv ] || exit 0
mkdir -p "$HOME/diffjax/venv/bin"
printf '#!/bin/sh\\nexec {python} "$@"\\n' >"$HOME/diffjax/venv/bin/python"
chmod +x "$HOME/diffjax/venv/bin/python"
"""


@dataclass(frozen=True)
class Whole:
    """A training that nobody disturbed, and what it takes to start it again elsewhere."""

    project: Path
    settings: dict[str, str]
    words: Callable[[Path], list[str]]
    workdir: Path
    digest: str


def copy_of_the_project(folder: Path) -> Path:
    """What is sent to the machines, committed as it is now, so that the test sees one version."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "diffjax", "configs", "launch",
         "requirements.txt", "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in names:
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "as it is"]):
        subprocess.run([*git, *words], cwd=folder, check=True)
    return folder


def last_step(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    lines = text.rpartition("\n")[0].splitlines()  # the last may be half written
    return json.loads(lines[-1])["step"] if lines else 0


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def preempt(cloud: Cloud, how: str) -> None:
    """Take the machine away: its training is told to end, or cut off as well, or killed."""
    folder = cloud.folder / "worker-0" / "diffjax" / "runs" / "base64"
    resource = cloud.folder / "resource.json"
    resource.write_text(json.dumps({**json.loads(resource.read_text()), "state": "SUSPENDED"}))
    pid, leader = (int((folder / name).read_text()) for name in ("pid", "leader"))
    if how != "told":
        (cloud.folder / "dying").touch()
        followers = subprocess.run(
            ["pgrep", "-f", f"host.sh run base64|^tail .*{cloud.folder}"],
            capture_output=True, text=True,
        ).stdout.split()  # fmt: skip
        mine = [p for p in followers if f"HOME={cloud.folder}/worker-0" in _environ(p)]
        for follower in mine:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(follower), signal.SIGKILL)
    if how == "killed":
        os.killpg(leader, signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGTERM)
    while not gone(pid):
        time.sleep(0.05)
    (cloud.folder / "dying").unlink(missing_ok=True)


def _environ(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The project, the settings of every process, the words of a training, and one left alone."""
    folder = tmp_path_factory.mktemp("whole")
    encoder = save_tiny(folder / "t5")
    project = copy_of_the_project(folder / "project")
    settings = {
        "JAX_PLATFORMS": "cpu", "XLA_FLAGS": XLA_FLAGS,
        "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "DIFFJAX_CACHE_DIR": str(folder / "data"), "HF_TOKEN": "hf_fake_token",
    }  # fmt: skip

    def words(workdir):
        options = [f"train.num_steps={STEPS}", "train.log_every=1", "train.save_every=20"]
        return runs.arguments(workdir, encoder, *options)

    ran = subprocess.run(
        [sys.executable, "-m", "diffjax.main", *words(folder / "run")], cwd=project,
        env={**os.environ, **settings}, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return Whole(project, settings, words, folder / "run", runs.digest(ran.stdout))


def losses(workdir: Path) -> list[tuple[int, float]]:
    return [(x["step"], x["loss"]) for x in runs.lines(workdir) if "loss" in x]


@pytest.mark.slow
def test_a_training_that_is_interrupted_three_times_ends_like_an_uninterrupted_one(whole, tmp_path):
    (tmp_path / "mount").mkdir()
    cloud = Cloud(tmp_path, whole.project)
    cloud.program("uv", UV.format(python=sys.executable))
    cloud.program("mountpoint", "#!/bin/sh\n")  # the bucket: it is there on every machine
    secrets = cloud.folder / "env"
    secrets.write_text("".join(f"{name}={value}\n" for name, value in whole.settings.items()))
    secrets.chmod(0o600)

    workdir = cloud.folder / "mount" / "runs" / "base64"
    flags = ["--project", "my-project", "--zone", "us-west4-a", "--name", "base64", "--spot"]
    flags += ["--type", "v6e-8", "--mount", "gs://my-bucket", "--env", str(secrets)]
    loop = subprocess.Popen(
        [whole.project / "launch" / "tpu.sh", "train", *flags, "--autodelete", "--",
         *whole.words(workdir)],
        env=cloud.env(), cwd=cloud.folder, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    ended = []
    reader = threading.Thread(target=lambda: ended.append(loop.communicate()))
    reader.start()
    for step, how in ((30, "told"), (70, "cut off"), (110, "killed")):
        while last_step(workdir) < step and loop.poll() is None:
            time.sleep(0.02)
        assert loop.poll() is None, ended
        preempt(cloud, how)
    reader.join(timeout=300)
    out, err = ended[0]
    assert loop.returncode == 0, err

    assert runs.digest(out) == whole.digest
    assert losses(workdir) == losses(whole.workdir)
    assert [step for step, _ in losses(workdir)] == list(range(1, STEPS + 1))
    verbs = [verb for verb in cloud.verbs() if verb in ("create", "run", "delete")]
    assert verbs == ["create", "run", "delete"] * 4
    assert "hf_fake_token" not in out + err


@pytest.mark.slow
def test_a_requeued_slurm_job_ends_like_an_uninterrupted_one(whole, tmp_path):
    cloud = Cloud(tmp_path, whole.project)
    for name, text in STUBS.items():
        cloud.program(name, text)
    workdir = tmp_path / "run"
    script = (whole.project / "launch" / "slurm.sbatch").read_text()
    for turn in range(2):
        job = subprocess.Popen(
            ["bash", "-c", script, "slurm_script", *whole.words(workdir)], cwd=whole.project,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=cloud.env(**whole.settings, PYTHON=sys.executable, SLURM_JOB_ID="7",
                          SLURM_RESTART_COUNT=str(turn)),
        )  # fmt: skip
        while turn == 0 and last_step(workdir) < 50:
            assert job.poll() is None, job.communicate()
            time.sleep(0.02)
        if turn == 0:
            job.send_signal(signal.SIGTERM)
        out, err = job.communicate(timeout=300)
        assert job.returncode == 0, err
        assert ("back to the queue" in out) == (turn == 0)
    assert (tmp_path / "scontrol").read_text() == "requeue 7\n"
    assert runs.digest(out) == whole.digest
    assert losses(workdir) == losses(whole.workdir)
