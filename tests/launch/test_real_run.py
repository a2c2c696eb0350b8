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
from pathlib import Path

import pytest

from tests import runs
from tests.encoders import save_tiny
from tests.launch.cloud import ROOT, Cloud

STEPS = 180
UV = """#!/bin/sh
[ "$1" = venv ] || exit 0
mkdir -p "$HOME/diffjax/venv/bin"
printf '#!/bin/sh\\nexec {python} "$@"\\n' >"$HOME/diffjax/venv/bin/python"
chmod +x "$HOME/diffjax/venv/bin/python"
"""


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
    lines = path.read_text().splitlines() if path.exists() else []
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


@pytest.mark.slow
def test_a_training_taken_away_three_times_ends_as_one_that_was_left_alone(tmp_path):
    encoder = save_tiny(tmp_path / "t5")
    project = copy_of_the_project(tmp_path / "project")
    (tmp_path / "cloud" / "mount").mkdir(parents=True)
    cloud = Cloud(tmp_path / "cloud", project)
    cloud.program("uv", UV.format(python=sys.executable))
    cloud.program("mountpoint", "#!/bin/sh\n")  # the bucket: it is there on every machine
    settings = {
        "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=1",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "jax"),
        "DIFFJAX_CACHE_DIR": str(tmp_path / "data"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "HF_TOKEN": "hf_fake_token",
    }  # fmt: skip
    secrets = cloud.folder / "env"
    secrets.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    secrets.chmod(0o600)

    def words(workdir):
        options = [f"train.num_steps={STEPS}", "train.log_every=1", "train.save_every=20"]
        return runs.arguments(workdir, encoder, *options)

    whole = subprocess.run(
        [sys.executable, "-m", "diffjax.main", *words(tmp_path / "whole")], cwd=project,
        env={**os.environ, **settings}, capture_output=True, text=True,
    )  # fmt: skip
    assert whole.returncode == 0, whole.stderr

    workdir = cloud.folder / "mount" / "runs" / "base64"
    flags = ["--project", "my-project", "--zone", "us-west4-a", "--name", "base64", "--spot"]
    flags += ["--type", "v6e-8", "--mount", "gs://my-bucket", "--env", str(secrets)]
    loop = subprocess.Popen(
        [project / "launch" / "tpu.sh", "train", *flags, "--autodelete", "--", *words(workdir)],
        env=cloud.env(), cwd=cloud.folder, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    ended = []
    reader = threading.Thread(target=lambda: ended.append(loop.communicate()))
    reader.start()
    reached = []
    for step, how in ((30, "told"), (70, "cut off"), (110, "killed")):
        while last_step(workdir) < step and loop.poll() is None:
            time.sleep(0.02)
        assert loop.poll() is None, ended
        reached.append(last_step(workdir))
        preempt(cloud, how)
    reader.join(timeout=300)
    out, err = ended[0]
    assert loop.returncode == 0, err
    assert max(reached) < STEPS

    assert runs.digest(out) == runs.digest(whole.stdout)
    ours, theirs = ([(x["step"], x["loss"]) for x in runs.lines(place) if "loss" in x]
                    for place in (workdir, tmp_path / "whole"))  # fmt: skip
    assert ours == theirs
    assert [step for step, _ in ours] == list(range(1, STEPS + 1))
    verbs = [verb for verb in cloud.verbs() if verb in ("create", "run", "delete")]
    assert verbs == ["create", "run", "delete"] * 4
    assert "hf_fake_token" not in out + err
