"""Every command of launch/README.md does what it did when somebody last looked at it."""

import re
import subprocess

import pytest

from tests.launch import recipes
from tests.launch.cloud import ROOT, WHERE, Cloud


def test_every_command_of_the_page_prints_what_it_would_do():
    """If another text is right now: python -m tests.launch.recipes, and read the difference."""
    assert recipes.golden() == recipes.GOLDEN.read_text()


def test_the_page_has_no_command_that_nothing_checks():
    known = r"launch/(tpu|xpk)\.sh |gcloud |sbatch |ENV_FILE=|docker |export |ssh-add |install "
    assert [line for line in recipes.commands() if not re.match(known, line)] == []
    actions = {line.split()[1] for line in recipes.scripts() if "tpu.sh" in line}
    usage = subprocess.run([ROOT / "launch" / "tpu.sh"], capture_output=True, text=True).stderr
    listed = set(re.findall(r"\w+", usage.split("no command:")[1]))
    assert actions == listed


def test_an_unknown_or_impossible_option_ends_with_one_line_and_code_2(tmp_path):
    cloud = Cloud(tmp_path)
    train = ["train", *WHERE, "--type", "v6e-8"]
    local = ["--spot", "--", "--workdir", "runs/x"]
    (tmp_path / "secrets").write_text("HF_TOKEN=hf_secret\nwhat is this\n")
    (tmp_path / "secrets").chmod(0o600)
    for words, message in [
        (["fly"], "'fly' is no command"),
        ([*train, "--tpye", "x"], "--tpye is unknown"),
        ([*train, "--slices", "two"], "--slices = 'two': must be a number"),
        ([*train, "stray"], "come after --"),
        ([*train, "--mount"], "--mount needs a value"),
        ([*train, "--mount", "gs://a;rm -rf b"], "must be gs://BUCKET or IP:/SHARE"),
        ([*train, *local], "a spot machine's disk goes with it"),
        (["train", *WHERE], "--type = '': needed"),
        (["create", *WHERE[:-1], "Not_a_name", "--type", "v6e-8"], "--name = 'Not_a_name'"),
        (["wait", "--name", "demo"], "--project = ''"),
        ([*train, "--env", "absent"], "copy launch/env.example"),
        ([*train, "--env", "secrets"], "line 2 is not NAME=VALUE"),
    ]:
        ran = cloud.run("tpu.sh", *words)
        assert ran.returncode == 2, words
        assert message in ran.stderr
        assert len(ran.stderr.strip().splitlines()) == 1
        assert "hf_secret" not in ran.stderr
    assert cloud.calls() == []


@pytest.mark.parametrize(
    ("kind", "chips", "runtime"),
    [
        ("v4-8", 4, "tpu-ubuntu2204-base"),
        ("v5litepod-16", 16, "v2-alpha-tpuv5-lite"),
        ("v5p-128", 64, "v2-alpha-tpuv5"),
        ("v6e-1", 1, "v2-alpha-tpuv6e"),
    ],
)
def test_a_type_has_its_chips_and_its_runtime(kind, chips, runtime):
    """v2 to v4 and v5p are named after their cores, two a chip; v5e and v6e after their chips."""
    script = f'source {ROOT}/launch/cloud.sh; chips_of "$1"; default_runtime "$1"'
    ran = subprocess.run(["bash", "-c", script, "-", kind], capture_output=True, text=True)
    assert ran.stdout.split() == [str(chips), runtime]
