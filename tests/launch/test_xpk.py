"""What the real xpk makes of launch/xpk.sh, if it is installed: the very script of a pod is run."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import textwrap
import time

import pytest

from tests.launch.cloud import WHERE, Cloud
from tests.launch.test_quoting import NASTY, SHOW, arrived

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("xpk"), reason="xpk is not installed"),
]
FLAGS = ["--cluster", "pods", "--type", "v5litepod-16", "--slices", "2", "--image", "image:1"]


def manifest(cloud, *arguments):
    """The description of the workload that xpk would hand to Kubernetes."""
    ran = cloud.run("xpk.sh", "create", *WHERE, *FLAGS, "--spot", "--dry-run", "--", *arguments)
    assert ran.returncode == 0, ran.stderr
    path = cloud.folder / "manifest.yaml"
    words = shlex.split(ran.stdout.removeprefix("+ "))
    words += ["--dry-run", "--skip-validation", f"--output-manifest-file={path}"]
    subprocess.run(words, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
    return path.read_text()


def script(text):
    """The text of the block that bash -c gets in the container."""
    block = re.search(r"- bash\n\s+- -c\n\s+- \|\n(.*?)\n\s+resources:", text, re.DOTALL)[1]
    return textwrap.dedent(block)


def pod(cloud, text):
    return subprocess.Popen(
        ["bash", "-c", script(text)], env=cloud.env(), cwd=cloud.folder, start_new_session=True,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_what_is_nasty_arrives_in_the_pod_that_xpk_describes(tmp_path):
    cloud = Cloud(tmp_path)
    cloud.program("python", SHOW)
    process = pod(cloud, manifest(cloud, *NASTY))
    assert process.wait(timeout=300) == 0
    assert arrived(tmp_path) == ["-m", "diffjax.main", *NASTY]
    assert not list(tmp_path.rglob("broken"))


@pytest.mark.parametrize("arguments", [["--config", "x"], ["--prompt", "a 'b'"]])
def test_a_pod_that_is_told_to_end_saves_and_is_started_again(arguments, tmp_path):
    cloud = Cloud(tmp_path)
    training = 'trap "echo saved; exit 143" TERM\n>$HOME/running\nwhile :; do sleep 0.1; done\n'
    cloud.program("python", f"#!/bin/bash\n{training}")
    text = manifest(cloud, *arguments)
    process = pod(cloud, text)
    while not (tmp_path / "running").exists():
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    out, _ = process.communicate(timeout=300)
    assert "saved" in out
    assert process.returncode == 143
    codes = re.search(r"onExitCodes:.*?values: \[([\d,]+)\]", text, re.DOTALL)[1].split(",")
    assert {"1", "143", "134", "137"} <= set(codes)
    assert {"0", "2", "3", "4", "5"}.isdisjoint(codes)
