"""launch/slurm.sbatch passes SIGTERM on and goes back to the queue after 143 alone."""

import signal
import subprocess
import time

import pytest

from tests.launch.cloud import ROOT, Cloud

STUBS = {
    # the first word is --kill-on-bad-exit=1
    "srun": '#!/bin/bash\nshift\n"$@" &\necho $! >"$STUB/task"\nwait $!\n',
    "scancel": '#!/bin/sh\necho "$*" >>"$STUB/scancel"\nkill -TERM "$(cat "$STUB/task")"\n',
    "scontrol": '#!/bin/sh\necho "$*" >>"$STUB/scontrol"\n',
}
TRAINING = """#!/bin/bash
printf '%s\\n' "$@" "HF_TOKEN=$HF_TOKEN" >"$STUB/arguments"
trap 'sleep 0.2; echo saved; exit 143' TERM
>"$STUB/running"
while [ ! -e "$STUB/code" ]; do sleep 0.05; done
exit "$(cat "$STUB/code")"
"""


@pytest.fixture
def cluster(tmp_path):
    cloud = Cloud(tmp_path)
    for name, text in STUBS.items():
        cloud.program(name, text)
    cloud.program("training", TRAINING)
    return cloud


def submit(cluster, *arguments, **env):
    """SLURM runs a copy of the script from a folder of its own, in the folder of the submission."""
    copy = cluster.folder / "slurm_script"
    copy.write_text((ROOT / "launch" / "slurm.sbatch").read_text())
    return subprocess.Popen(
        ["bash", copy, *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=cluster.env(PYTHON="training", SLURM_JOB_ID="42", **env),
    )  # fmt: skip


def wait_for(path):
    end = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def requeued(cluster):
    path = cluster.folder / "scontrol"
    return path.read_text().splitlines() if path.exists() else []


def test_told_to_end_it_saves_and_goes_back_to_the_queue(cluster):
    job = submit(cluster, "--workdir", "/shared/a b", ENV_FILE="")
    wait_for(cluster.folder / "running")
    job.send_signal(signal.SIGTERM)
    out, _ = job.communicate(timeout=300)
    assert job.returncode == 0, out
    assert "saved" in out
    assert (cluster.folder / "scancel").read_text() == "--signal=TERM 42\n"
    assert requeued(cluster) == ["requeue 42"]
    words = (cluster.folder / "arguments").read_text().splitlines()
    assert words == ["-m", "diffjax.main", "--workdir", "/shared/a b", "HF_TOKEN="]


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 137])
def test_what_ends_otherwise_stays_ended(cluster, code):
    (cluster.folder / "code").write_text(str(code))
    job = submit(cluster)
    job.communicate(timeout=300)
    assert job.returncode == code
    assert requeued(cluster) == []


def test_turns_of_the_queue_are_bounded(cluster):
    (cluster.folder / "code").write_text("143")
    job = submit(cluster, SLURM_RESTART_COUNT="7", MAX_TURNS="7")
    job.communicate(timeout=300)
    assert (job.returncode, requeued(cluster)) == (143, [])


def test_secrets_come_from_a_private_file_or_not_at_all(cluster, tmp_path):
    (cluster.folder / "code").write_text("0")
    secrets = tmp_path / "env"
    secrets.write_text("HF_TOKEN=hf_secret\n")
    secrets.chmod(0o644)
    job = submit(cluster, ENV_FILE=str(secrets))
    out, _ = job.communicate(timeout=300)
    assert job.returncode == 2
    assert "chmod 600" in out
    secrets.chmod(0o600)
    job = submit(cluster, ENV_FILE=str(secrets))
    out, _ = job.communicate(timeout=300)
    assert job.returncode == 0
    assert "hf_secret" not in out
    assert "HF_TOKEN=hf_secret" in (cluster.folder / "arguments").read_text()
