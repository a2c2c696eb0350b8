"""A worker is made ready by launch/setup_host.sh, and by launch/startup.sh without anybody."""

import os
import subprocess
import sys

import pytest

from tests.launch.cloud import ROOT, WHERE, Cloud

LOGGED = '#!/bin/sh\necho "$(basename "$0") $*" >>"$STUB/did"\n'
# what a fresh machine has, and says
PROGRAMS = {
    "sudo": '#!/bin/sh\nexec "$@"\n',
    "sleep": '#!/bin/sh\necho "$1" >>"$STUB/slept"\n',
    "chown": "#!/bin/sh\n",
    "mountpoint": '#!/bin/sh\n[ -e "$STUB/mounted" ]\n',
    # the lock is held twice, by the machine's own updates
    "apt-get": LOGGED + 'echo x >>"$STUB/apt"; [ "$(wc -l <"$STUB/apt")" -gt 2 ] || exit 100\n'
    'cp "$STUB/gcsfuse" "$STUB/bin/gcsfuse"\n',
    "curl": LOGGED + 'case "$*" in\n'
    '*attributes/*) cat "$STUB/attributes/${*##*/}" 2>/dev/null ;;\n'
    "*/zone) echo projects/1/zones/us-west4-a ;;\nesac\n",
    # the network fails thrice
    "python3": f'#!/bin/sh\n[ "$1" != -SE ] || exec {sys.executable} "$@"\n'
    + LOGGED.split("\n", 1)[1]
    + 'echo x >>"$STUB/pip"; [ "$(wc -l <"$STUB/pip")" -gt 3 ] || exit 1\n'
    'mkdir -p "$HOME/.local/bin"; cp "$STUB/uv" "$HOME/.local/bin/uv"\n',
}  # fmt: skip
GCSFUSE = LOGGED + '>"$STUB/mounted"\n'
UV = (
    LOGGED
    + """[ "$1" = venv ] || exit 0
mkdir -p "$HOME/diffjax/venv/bin"
cp "$STUB/python" "$HOME/diffjax/venv/bin/python"
"""
)
PYTHON = """#!/bin/sh
[ "$1" = -c ] && exec echo Python 3.12 jax 0.12
[ -e "$HOME/diffjax/env" ] && printf %s "$HF_TOKEN" >"$STUB/token"
printf '%s\\n' "$@" >>"$STUB/trained"
echo step 1
exit "$(cat "$STUB/code")"
"""


@pytest.fixture
def machine(tmp_path):
    cloud = Cloud(tmp_path)
    for name, text in PROGRAMS.items():
        cloud.program(name, text)
    for name, text in (("uv", UV), ("python", PYTHON), ("gcsfuse", GCSFUSE)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "home" / "diffjax").mkdir(parents=True)
    os.symlink(ROOT, tmp_path / "home" / "diffjax" / "code")
    return cloud


def did(machine):
    path = machine.folder / "did"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [" ".join(line.split()[:2]) for line in lines]


def set_up(machine, *flags):
    home = machine.folder / "home"
    return machine.run("setup_host.sh", *flags, HOME=str(home), DIFFJAX_HOME=str(home / "diffjax"))


def test_a_fresh_machine_is_set_up_though_apt_is_locked_twice_and_pip_fails_thrice(machine):
    ran = set_up(machine, "--mount", "gs://my-bucket")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "Python 3.12 jax 0.12\n"
    fetched = ["curl --silent", "apt-get -o", "apt-get -o", "apt-get -o", "gcsfuse --implicit-dirs"]
    assert did(machine) == [*fetched, *["python3 -m"] * 4, "uv venv", "uv pip"]
    assert (machine.folder / "slept").read_text().split() == ["10", "20", "5"]


def test_a_second_time_nothing_is_left_to_do(machine):
    set_up(machine, "--mount", "gs://my-bucket")
    did(machine)
    ran = set_up(machine, "--mount", "gs://my-bucket")
    assert ran.returncode == 0
    assert did(machine) == []
    assert set_up(machine, "--accel", "cpu").returncode == 0
    assert did(machine) == ["uv venv", "uv pip"]  # another accelerator: other packages


def test_what_stays_locked_or_is_unknown_ends_with_an_error(machine):
    machine.program("apt-get", "#!/bin/sh\necho x >>$STUB/apt\nexit 100\n")
    assert set_up(machine, "--mount", "10.0.0.2:/share").returncode == 100
    assert (machine.folder / "apt").read_text().count("x") == 5
    ran = set_up(machine, "--accel", "gpu")
    assert (ran.returncode, ran.stderr) == (
        2, "launch: --accel = 'gpu': must be tpu, cuda or cpu\n",
    )  # fmt: skip


def boot(machine):
    """What the machine does by itself at a boot: the start-up script, as root with no terminal."""
    home = machine.folder / "home"
    script = (ROOT / "launch" / "startup.sh").read_text()
    return subprocess.run(
        ["bash"], input=script, text=True, capture_output=True,
        env=machine.env(HOME=str(home), DIFFJAX_WORKER="0"), timeout=300,
    )  # fmt: skip


@pytest.fixture
def unattended(machine):
    flags = ["--type", "v6e-8", "--mount", "gs://my-bucket", "--unattended", "--secret", "tokens"]
    words = ["--config", "configs/base64.py", "--workdir", "/mnt/x y"]
    made = machine.run("tpu.sh", "create", *WHERE, *flags, "--autodelete", "--", *words)
    assert made.returncode == 0, made.stderr
    call = next(call for call in machine.calls() if "create" in call)
    metadata = next(word for word in call if word.startswith("--metadata="))
    folder = machine.folder / "attributes"
    folder.mkdir()
    (folder / "agent-worker-number").write_text("0")
    for pair in metadata.removeprefix("--metadata=").split(","):
        name, value = pair.split("=", 1)
        (folder / name).write_text(value)
    assert f"--metadata-from-file=startup-script={ROOT}/launch/startup.sh" in call
    return machine


def test_an_unattended_machine_trains_by_itself_and_deletes_itself_after_a_while(unattended):
    (unattended.folder / "code").write_text("0")
    ran = boot(unattended)
    assert ran.returncode == 0, ran.stderr
    trained = (unattended.folder / "trained").read_text().splitlines()
    assert trained[-4:] == ["--config", "configs/base64.py", "--workdir", "/mnt/x y"]
    assert (unattended.folder / "token").read_text() == "from-the-secret"
    assert (unattended.folder / "home" / "diffjax" / "env").stat().st_mode & 0o777 == 0o600
    bucket = unattended.folder / "buckets" / "my-bucket" / "launch" / "demo"
    assert (bucket / "ended-0").read_text() == "0\n"
    assert "step 1" in next((bucket / "logs-0").iterdir()).read_text()
    assert "600" in (unattended.folder / "slept").read_text().split()
    assert unattended.verbs()[-1] == "delete"
    assert "from-the-secret" not in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("code", "times"), [(2, 1), (143, 3), pytest.param(1, 3, marks=pytest.mark.slow)]
)
def test_an_unattended_machine_retries_what_may_pass_and_no_more(unattended, code, times):
    (unattended.folder / "code").write_text(str(code))
    assert boot(unattended).returncode == 0
    trained = (unattended.folder / "trained").read_text()
    assert trained.count("diffjax.main") == times
    boot(unattended)
    again = (unattended.folder / "trained").read_text().count("diffjax.main")
    assert again == (times if times == 1 else 2 * times)  # a reboot is a new chance, but not of 2
    assert "delete" not in unattended.verbs()
