"""What a user types arrives at the training byte for byte, over however many shells."""

import base64
import re
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.launch.cloud import ROOT, WHERE, Cloud

NASTY = [
    "a b", "q'q", '"', "$(touch broken)", "`touch broken`", "line\nline\n", "\n", "é 😀 ß",
    "*", "?", ";touch broken", "&", "|", "", "  two  ", "-x", "--", "\\", "\\\\n", "a=b",
    "~", "!", "!!", "#", "{a,b}", "$HOME", "%s", "\t", "$'x'", "'", "''", "a'\"'b",
    "\x7f\x01", "--config.x='y z'", "<(ls)", "x\r\ny", "[a-z]", "&&", "patsub & \\&",
]  # fmt: skip
words = st.lists(
    st.one_of(
        st.sampled_from(NASTY),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
        st.text(" '\"$()`;\\\n*&|<>~#!{}é", max_size=20),
    ),
    max_size=8,
)
SHOW = '#!/bin/sh\n[ $# = 0 ] || printf "%s\\0" "$@" >"$HOME/arrived"\n'


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    cloud = Cloud(tmp_path_factory.mktemp("cloud"))
    home = cloud.worker()
    for name in ("show", "python"):
        program = home / "diffjax" / "venv" / "bin" / name
        program.write_text(SHOW)
        program.chmod(0o755)
    return cloud


def arrived(home: Path) -> list[str]:
    path = home / "arrived"
    found = path.read_bytes().decode().split("\0")[:-1] if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def over_ssh(cloud, arguments):
    ran = cloud.run("tpu.sh", "run", *WHERE, "--", "show", *arguments)
    assert ran.returncode == 0, ran.stderr
    assert arrived(cloud.folder / "worker-0") == arguments


@settings(max_examples=20, deadline=None)
@given(words)
def test_arguments_arrive_through_gcloud_ssh_and_two_shells(cloud, arguments):
    over_ssh(cloud, arguments)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(words)
def test_200_lists_of_arguments_arrive_through_gcloud_ssh_and_two_shells(cloud, arguments):
    over_ssh(cloud, arguments)


def test_dangerous_arguments_arrive_unchanged_and_none_of_them_is_executed(cloud):
    home = cloud.folder / "worker-0"
    command = ["bash", "-c", 'cd; exec bash diffjax/code/launch/host.sh run demo "$@"', "-"]
    ran = subprocess.run(
        [*command, "attempt", "python", *NASTY],
        env=cloud.env(HOME=str(home), DIFFJAX_WORKER="0"), capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert arrived(home) == NASTY
    over_ssh(cloud, NASTY)
    assert not list(cloud.folder.rglob("broken"))


@pytest.mark.parametrize("shell", [["sh", "-c"], ["bash", "-c"], ["bash", "--posix", "-c"]])
def test_a_quoted_line_is_read_back_by_any_shell(shell, tmp_path):
    script = f'source "{ROOT}/launch/lib.sh"; quote "$@"'
    line = subprocess.run(["bash", "-c", script, "-", *NASTY], capture_output=True, check=True)
    back = subprocess.run(
        [*shell, b'printf "%s\\0" ' + line.stdout], capture_output=True, check=True, cwd=tmp_path
    )
    assert back.stdout.decode().split("\0")[:-1] == NASTY


def in_a_pod(arguments):
    """The command as xpk hands it to Kubernetes, and what Kubernetes and bash make of it."""
    with tempfile.TemporaryDirectory() as folder:
        cloud = Cloud(Path(folder))
        cloud.program("xpk", '#!/bin/sh\nprintf "%s\\0" "$@" >"$HOME/xpk"\n')
        cloud.program("python", SHOW)
        flags = ["--cluster", "pods", "--type", "v6e-8", "--image", "image:1"]
        ran = cloud.run("xpk.sh", "create", *WHERE, *flags, "--", *arguments)
        assert ran.returncode == 0, ran.stderr
        last = (Path(folder) / "xpk").read_bytes().decode().split("\0")[-2]
        command = last.removeprefix("--command=")
        assert command != last
        assert "\n" not in command  # it stands in one line of a YAML block
        expanded = re.sub(r"\$(\$)?\((\w+)\)", "EXPANDED", command)
        subprocess.run(
            ["bash", "-c", f"({expanded}) & wait $!"], env=cloud.env(), check=True, cwd=folder
        )
        assert arrived(Path(folder)) == ["-m", "diffjax.main", *arguments]


@settings(max_examples=10, deadline=None)
@given(words)
def test_arguments_arrive_in_a_pod(arguments):
    in_a_pod(arguments)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(words)
def test_200_lists_of_arguments_arrive_in_a_pod(arguments):
    in_a_pod(arguments)


def test_plain_arguments_stay_readable_in_the_description_of_a_pod(tmp_path):
    cloud = Cloud(tmp_path)
    flags = ["--cluster", "pods", "--type", "v6e-8", "--image", "image:1", "--dry-run"]
    plain = cloud.run("xpk.sh", "create", *WHERE, *flags, "--", "--config", "configs/base64.py:2b")
    assert "exec python -m diffjax.main --config configs/base64.py:2b'" in plain.stdout
    other = cloud.run("xpk.sh", "create", *WHERE, *flags, "--", "--prompt", "$(HOME)")
    hidden = re.search(r"echo (\S+) \| base64", other.stdout)[1]
    assert base64.b64decode(hidden).decode().endswith("--prompt '$(HOME)'")
