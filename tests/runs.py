"""The tiny runs of tests, in this process or in one of their own that can be killed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from diffjax import main
from tests.quick import XLA_FLAGS

ROOT = Path(__file__).resolve().parent.parent
# One level in place of two: a network that compiles in half the time.
SMALL = ("model.mults=(1,)", "model.attention_levels=(0,)")
# A line of metrics.jsonl has these for the machine, not for the run.
OF_THE_CLOCK = ("images_per_second", "seconds_")


def arguments(workdir, encoder, *flags, config="configs/base64.py:tiny"):
    """As on the command line; flags: "train.num_steps=4" is --config.train.num_steps=4."""
    small = SMALL if config == "configs/base64.py:tiny" else ()
    options = (f"text.encoder={encoder}", "text.max_tokens=32", *small, *flags)
    return [
        "--config", config, "--workdir", str(workdir), *(f"--config.{option}" for option in options)
    ]  # fmt: skip


def run(workdir, encoder, *flags, config="configs/base64.py:tiny"):
    """Train in this process; the exit code."""
    return main.main(arguments(workdir, encoder, *flags, config=config))


def start(
    workdir, encoder, *flags, config="configs/base64.py:tiny", program=("-m", "diffjax.main"),
    **environ,
):  # fmt: skip
    """Train in another process, on one device."""
    command = [sys.executable, "-u", *program]
    environ = {**os.environ, "XLA_FLAGS": XLA_FLAGS, **environ}
    return subprocess.Popen(
        [*command, *arguments(workdir, encoder, *flags, config=config)],
        cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process, timeout=900):
    """Its exit code, stdout and stderr."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def within(seconds):
    """The limit that holds on a quiet machine; more where others want its cores as well."""
    return seconds * max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


def digest(out):
    """The digest that a run printed at its end."""
    (found,) = re.findall(r"^digest of step \d+: ([0-9a-f]{64})$", out, re.M)
    return found


def lines(workdir):
    """The lines of metrics.jsonl, without what the clock says."""
    text = (workdir / "metrics.jsonl").read_text()
    assert text.endswith("\n")
    return [
        {name: value for name, value in json.loads(line).items()
         if not name.startswith(OF_THE_CLOCK)}
        for line in text.splitlines()
    ]  # fmt: skip
