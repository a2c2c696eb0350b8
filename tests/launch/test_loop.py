"""The restart loop of launch/loop.sh follows its state machine, whatever the cloud does."""

import subprocess
from collections import deque
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.launch.cloud import WHERE, Cloud

DRIVER = Path(__file__).resolve().parent / "drive_loop.sh"
POLL, DEADLINE, MAX_FAILURES, MAX_PREEMPTIONS, QUICK, LOST = 30, 3600, 5, 12, 60, 20
WAITING = (
    "CREATING ACCEPTED PROVISIONING WAITING_FOR_RESOURCES SUSPENDING DELETING STATE_UNSPECIFIED"
)


def drive(cases):
    """What the loop does on each case (a dict of lists of words), as a list of lists of words."""
    names = ("states", "nodes", "creates", "deletes", "setups", "alives", "runs")
    lines = ["|".join(" ".join(case.get(name, ())) for name in names) + "|" for case in cases]
    out = subprocess.run(
        [DRIVER], input="\n".join(lines) + "\n", capture_output=True, text=True, check=True
    ).stdout
    return [line.split() for line in out.splitlines()]


def expected(case):
    """The same, by a second reading of the rules."""
    queues = {name: deque(words) for name, words in case.items()}
    did = []
    clock = since = failures = quick = preemptions = lost = 0
    ready = fresh = leftovers = False

    def take(queue, verb, default="yes"):
        words = queues.get(queue)
        word = words.popleft() if words else default
        did.append(f"{verb}:{word}")
        return word

    while True:
        if failures >= MAX_FAILURES or preemptions >= MAX_PREEMPTIONS or lost >= LOST or quick >= 3:
            return [*did, "exit:1"]
        for number in range(10):
            state = take("states", "describe", "ACTIVE")
            if state != "NO_NETWORK":
                break
            clock += min(5 * 2**number, 300) if number < 9 else 0
        else:
            return [*did, "exit:1"]
        if state == "ACTIVE":
            node = take("nodes", "list", "READY")
            if node in ("PREEMPTED", "TERMINATED"):
                state = "PREEMPTED"
            elif node != "READY":
                state = "NODES"
        if state == "FOREIGN":
            return [*did, "exit:2"]
        if state in ("SUSPENDED", "FAILED", "PREEMPTED"):
            failures += state == "FAILED"
            preemptions += state != "FAILED"
            if failures < MAX_FAILURES and preemptions < MAX_PREEMPTIONS:
                failures += take("deletes", "delete") != "yes"
                ready, lost = False, 0
                clock += POLL
        elif state == "MISSING":
            ready, lost = False, 0
            if take("creates", "create") == "yes":
                fresh = True
            else:
                failures += 1
            since = clock
            clock += POLL
        elif state != "ACTIVE":
            if clock - since >= DEADLINE:
                return [*did, "exit:1"]
            clock += POLL
        else:
            if not ready or leftovers:
                running = not ready and not fresh and take("alives", "alive") == "yes"
                if not running:
                    if ready or not fresh:
                        did.append("stop")
                    if take("setups", "setup") != "yes":
                        failures += 1
                        clock += POLL
                        continue
                ready, fresh, leftovers = True, False, False
            code, seconds = take("runs", "run", "0:100").split(":")
            clock += int(seconds)
            if code in ("0", "2", "3", "4", "5"):
                return [*did, f"exit:{code}"]
            if code == "stopped":
                return [*did, "exit:143"]
            if code == "255":
                lost += 1
                clock += POLL
            elif code == "143":
                preemptions, lost, quick, leftovers = preemptions + 1, 0, 0, True
                clock += POLL
            else:
                lost, leftovers = 0, True
                quick = quick + 1 if int(seconds) < QUICK else 0
                if quick < 3:
                    failures += 1
                clock += POLL * failures
            since = clock


def check_safe(did):
    """What must hold of any loop at all that spends other people's money."""
    assert not [word for word in did if word.startswith("UNKNOWN")]
    for before, word in pairwise(did):
        kind = word.split(":")[0]
        if kind == "create":
            assert before == "describe:MISSING"
        if kind == "delete":
            assert before in ("describe:SUSPENDED", "describe:FAILED", "list:PREEMPTED",
                              "list:TERMINATED")  # fmt: skip
        if kind == "run":
            looks = [w for w in did[: did.index(word) + 1] if w.startswith(("describe", "list"))]
            assert looks[-2:] == ["describe:ACTIVE", "list:READY"]
        if before.startswith("run:"):
            code = before.removeprefix("run:").split(":")[0]
            if code in ("0", "2", "3", "4", "5"):
                assert word == f"exit:{code}"
    assert [word for word in did if word.startswith("exit")] == did[-1:]
    assert "describe:FOREIGN" not in did[:-2]


states = st.sampled_from(
    ["ACTIVE"] * 8 + ["MISSING"] * 3 + ["SUSPENDED"] * 3 + ["FAILED", "FOREIGN", "NO_NETWORK"]
    + WAITING.split()
)  # fmt: skip
answers = st.lists(st.sampled_from(["yes", "yes", "yes", "no"]), max_size=6)
ends = st.builds(
    "{}:{}".format,
    st.sampled_from([143] * 5 + [255] * 3 + [1, 1, 134, 137, 254, 0, 2, 3, 4, 5, "stopped"]),
    st.sampled_from([5, 100, 7000]),
)
cases = st.fixed_dictionaries(
    {
        "states": st.lists(states, max_size=25),
        "nodes": st.lists(
            st.sampled_from(["READY"] * 6 + ["PREEMPTED", "TERMINATED", "REPAIRING"]), max_size=12
        ),
        "creates": answers,
        "deletes": answers,
        "setups": answers,
        "alives": st.lists(st.sampled_from(["yes", "no"]), max_size=4),
        "runs": st.lists(ends, max_size=12),
    }
)


def follows_its_rules(case):
    (did,) = drive([case])
    check_safe(did)
    assert did == expected(case)


@settings(max_examples=15, deadline=None)
@given(cases)
def test_the_loop_follows_its_state_machine(case):
    follows_its_rules(case)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(cases)
def test_the_loop_follows_its_state_machine_on_200_histories(case):
    follows_its_rules(case)


@pytest.mark.parametrize("code", [2, 3, 4, 5])
def test_a_failure_that_would_repeat_is_not_run_again(code):
    (did,) = drive([{"runs": [f"{code}:500"]}])
    assert did == ["describe:ACTIVE", "list:READY", "alive:yes", f"run:{code}:500", f"exit:{code}"]


def test_the_loop_gives_up_after_a_long_wait_many_failures_or_three_quick_ones():
    waiting, failing, crashing = drive(
        [
            {"states": ["WAITING_FOR_RESOURCES"] * 1000},
            {"runs": ["1:5000"] * 9},
            {"runs": ["1:5"] * 9},
        ]
    )
    assert len(waiting) == DEADLINE // POLL + 1 + 1
    assert waiting[-1] == failing[-1] == crashing[-1] == "exit:1"
    assert failing.count("run:1:5000") == 5
    assert crashing.count("run:1:5") == 3


def test_preemptions_are_not_failures():
    history = {"states": ["ACTIVE", "SUSPENDED", "MISSING"] * 9, "runs": ["143:9"] * 9 + ["0:9"]}
    with_limit = drive([{**history, "states": history["states"][:15], "runs": ["143:9"] * 5}])[0]
    assert with_limit[-2:] == ["run:0:100", "exit:0"]
    assert with_limit.count("delete:yes") == 5


@pytest.mark.parametrize(
    ("codes", "verdict"),
    [
        ("0 0 0 0", 0),
        ("1 134 2 134", 2),  # the one that tells why outweighs those that died of its absence
        ("134 143 1 1", "again"),
        ("0 255 0 0", "again"),
        ("0 0 143! 0", 143),
        ("0 1 0 0", "again"),
    ],
)
def test_the_exit_codes_of_all_workers_become_one_result(codes, verdict, tmp_path):
    cloud = Cloud(tmp_path)
    cloud.queue("states", "ACTIVE", "ACTIVE")
    cloud.queue("runs", codes, "0 0 0 0")
    ran = cloud.run("tpu.sh", "train", *WHERE, "--type", "v6e-16", "--", "--workdir", "runs/x")
    assert ran.returncode == (0 if verdict == "again" else verdict)
    assert cloud.verbs().count("run") == (2 if verdict == "again" else 1)


def test_a_resource_of_somebody_else_is_neither_run_on_nor_deleted(tmp_path):
    cloud = Cloud(tmp_path)
    for command in (["train", "--type", "v6e-8"], ["delete", "--yes"], ["setup"], ["wait"]):
        cloud.queue("states", "FOREIGN")
        ran = cloud.run("tpu.sh", *command, *WHERE)
        assert ran.returncode == 2
        assert "choose another --name" in ran.stderr
    assert set(cloud.verbs()) == {"describe"}


def test_no_answer_of_gcloud_is_not_taken_for_a_missing_resource(tmp_path):
    cloud = Cloud(tmp_path)
    cloud.program("sleep", "#!/bin/sh\n")
    cloud.queue("states", *["NO_NETWORK"] * 10)
    ran = cloud.run("tpu.sh", "train", *WHERE, "--type", "v6e-8")
    assert ran.returncode == 1
    assert "auth tokens" in ran.stderr
    assert cloud.verbs() == ["describe"] * 10


def test_deleting_twice_is_as_good_as_once(tmp_path):
    cloud = Cloud(tmp_path)
    cloud.worker()
    for _ in range(2):
        assert cloud.run("tpu.sh", "delete", "--yes", *WHERE).returncode == 0
    assert cloud.verbs() == ["describe", "list", "delete", "describe"]
    assert not (tmp_path / "resource.json").exists()
