"""Every option of the launch scripts changes the commands that a dry run prints."""

import re

import pytest

from tests.launch.cloud import ROOT, WHERE, Cloud

TPU = {"--project": "my-project", "--zone": "us-west4-a", "--name": "demo",
       "--type": "v5litepod-16", "--mount": "gs://my-bucket"}  # fmt: skip
XPK = {"--project": "my-project", "--zone": "us-west4-a", "--name": "demo", "--cluster": "pods",
       "--type": "v5e-16", "--image": "registry/diffjax:1", "--bucket": "my-bucket"}  # fmt: skip
TRAINING = ("--", "--config", "configs/base64.py")

# option -> (the command that reads it, another value; none for a switch)
OPTIONS = {
    "tpu.sh": {
        "--project": ("create", "other-project"),
        "--zone": ("create", "us-east1-d"),
        "--name": ("create", "other"),
        "--type": ("create", "v6e-8"),
        "--runtime": ("create", "v2-other"),
        "--slices": ("create", "2"),
        "--mount": ("setup", "gs://other-bucket"),
        "--env": ("setup", "SECRETS"),
        "--secret": ("create --unattended", "tokens"),
        "--service-account": ("create", "me@my-project.iam.gserviceaccount.com"),
        "--valid-until": ("create", "6h"),
        "--worker": ("logs", "3"),
        "--node": ("logs --worker 0", "1"),
        "--spot": ("create", None),
        "--reserved": ("create", None),
        "--internal": ("create", None),
        "--autodelete": ("train", None),
        "--unattended": ("create", None),
        "--follow": ("logs", None),
        "--yes": ("delete", None),
    },
    "xpk.sh": {
        "--project": ("create", "other-project"),
        "--zone": ("create", "us-east1-d"),
        "--name": ("create", "other"),
        "--cluster": ("create", "others"),
        "--type": ("create", "v6e-8"),
        "--slices": ("create", "2"),
        "--image": ("create", "registry/diffjax:2"),
        "--bucket": ("cluster", "other-bucket"),
        "--env": ("create", "SECRETS"),
        "--max-restarts": ("create", "3"),
        "--reservation": ("create", "mine"),
        "--spot": ("create", None),
    },
}
# A dry run cannot show these; they have tests of their own below.
LOOP = {"--dry-run", "--deadline-hours", "--max-failures"}


def options_of(script):
    """The options that a script's `case` branches name."""
    text = (ROOT / "launch" / script).read_text()
    branches = re.findall(r"^ +(--[a-z][-a-z |]*)\)", text, flags=re.MULTILINE)
    return {option for branch in branches for option in branch.split(" | ")}


@pytest.mark.parametrize("script", OPTIONS)
def test_every_option_of_a_script_stands_in_the_table(script):
    assert options_of(script) - LOOP == set(OPTIONS[script])


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """A cloud, and a file of secrets that nobody else can read."""
    folder = tmp_path_factory.mktemp("cloud")
    secrets = folder / "secrets.env"
    secrets.write_text("TOKEN=1\n")
    secrets.chmod(0o600)
    return Cloud(folder)


def commands(cloud, script, action, flags):
    """The commands that a dry run prints, or the reason why it refuses."""
    words = [str(word) for pair in flags.items() for word in pair if word is not None]
    words = [str(cloud.folder / "secrets.env") if word == "SECRETS" else word for word in words]
    done = cloud.run(script, *action.split(), *words, "--dry-run", *TRAINING)
    assert done.returncode == 0, done.stderr
    return re.sub(r"COMMIT:\w+", "", done.stdout)


@pytest.mark.parametrize(
    ("script", "option"), [(script, option) for script in OPTIONS for option in OPTIONS[script]]
)
def test_every_option_changes_the_commands(cloud, script, option):
    action, value = OPTIONS[script][option]
    usual = TPU if script == "tpu.sh" else XPK
    without = commands(cloud, script, action, usual)
    assert without.strip()
    assert commands(cloud, script, action, {**usual, option: value}) != without


def test_the_training_is_given_up_after_as_many_failures_as_allowed(tmp_path):
    cloud = Cloud(tmp_path)
    cloud.queue("states", "ACTIVE", "ACTIVE", "ACTIVE")
    cloud.queue("runs", "1", "1", "1")
    ran = cloud.run("tpu.sh", "train", *WHERE, "--type", "v6e-8", "--max-failures", "2", *TRAINING)
    assert ran.returncode == 1
    assert "given up: 2 failures" in ran.stderr
    assert cloud.verbs().count("run") == 2


def test_waiting_is_given_up_after_as_many_hours_as_allowed(tmp_path):
    cloud = Cloud(tmp_path)
    cloud.queue("states", *["WAITING_FOR_RESOURCES"] * 9)
    cloud.program(
        "date",  # each look at the clock is half an hour later
        '#!/bin/bash\n[[ $1 == +%s ]] || exec /bin/date "$@"\n'
        'echo x >>"$STUB/looks"\necho $(($(wc -l <"$STUB/looks") * 1800))\n',
    )
    ran = cloud.run("tpu.sh", "wait", *WHERE, "--deadline-hours", "2")
    assert ran.returncode == 1
    assert "given up: no resources within 2 hours" in ran.stderr
    assert len((tmp_path / "looks").read_text().split()) == 1 + 4
