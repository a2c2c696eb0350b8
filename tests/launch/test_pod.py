"""From nothing to a training on all workers of a pod, with one command."""

import pytest

from tests.launch.cloud import WHERE, Cloud

# uv puts the packages there: here a Python that tells where it ran, and with what
UV = r"""#!/bin/sh
[ "$1" = venv ] || exit 0
mkdir -p "$HOME/diffjax/venv/bin"
cp "$STUB/python" "$HOME/diffjax/venv/bin/python"
"""
PYTHON = r"""#!/bin/sh
[ "$1" = -c ] && exit 0
echo "$DIFFJAX_WORKER $HF_TOKEN $PWD $*" >>"$STUB/trained"
echo "this is worker $DIFFJAX_WORKER"
[ "$DIFFJAX_WORKER" != "$(cat "$STUB/bad" 2>/dev/null)" ] || exit 2
[ ! -e "$STUB/bad" ] || exit 134
"""


@pytest.fixture
def cloud(tmp_path):
    cloud = Cloud(tmp_path)
    cloud.program("uv", UV)
    cloud.program("mountpoint", "#!/bin/sh\n")
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "env").write_text("HF_TOKEN=hf_secret\n")
    (tmp_path / "env").chmod(0o600)
    return cloud


def train(cloud, **env):
    flags = [
        "--type",
        "v5litepod-16",
        "--spot",
        "--mount",
        "gs://my-bucket",
        "--env",
        "env",
        "--slices",
        "2",
    ]
    workdir = f"{cloud.folder}/mount/x"
    return cloud.run("tpu.sh", "train", *WHERE, *flags, "--", "--workdir", workdir, **env)


def test_all_workers_of_all_slices_run_the_same_command_and_the_first_one_speaks(cloud):
    ran = train(cloud, STUB_WORKERS="4")
    assert ran.returncode == 0, ran.stderr
    assert [line for line in ran.stdout.splitlines() if "worker" in line] == ["this is worker 0"]
    (create,) = [call for call in cloud.calls() if "create" in call]
    assert {"--node-count=2", "--node-prefix=demo", "--spot"} <= set(create)
    lines = sorted((cloud.folder / "trained").read_text().splitlines())
    command = f"-m diffjax.main --workdir {cloud.folder}/mount/x"
    for number, line in enumerate(lines):
        home = cloud.folder / f"worker-{number}"
        assert line == f"{number} hf_secret {home}/diffjax/code {command}"
        assert (home / "diffjax").stat().st_mode & 0o777 == 0o700
        assert (home / "diffjax" / "env").stat().st_mode & 0o777 == 0o600
        assert len((home / "diffjax" / "code" / "COMMIT").read_text()) == 40
    assert len(lines) == 4
    assert "hf_secret" not in ran.stdout + ran.stderr + str(cloud.calls())
    assert "(16 chips x 2) is paid for until" in ran.stderr


def test_one_worker_that_knows_why_ends_the_run_for_all(cloud):
    (cloud.folder / "bad").write_text("2")
    ran = train(cloud, STUB_WORKERS="4")
    assert ran.returncode == 2
    assert "a wrong config or input" in ran.stderr
    assert "[worker 2] this is worker 2" in ran.stdout
    assert cloud.verbs().count("run") == 1
