"""Pages that a script writes say what it says now; commands of others are there to be run."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from diffjax import evaluate
from diffjax.build.check import check
from diffjax.build.options import config
from diffjax.build.reports import report
from diffjax.evaluation.denoising import BITS
from tools.pages import diffusion as write_diffusion_page

ROOT = Path(__file__).resolve().parent.parent
RELIABILITY = (ROOT / "docs/reliability.md").read_text()
EVALUATION = (ROOT / "docs/evaluation.md").read_text()


def test_the_page_of_the_diffusion_core_is_what_the_docstrings_say():
    """If not: python -m tools.pages.diffusion."""
    assert write_diffusion_page.PAGE.read_text() == write_diffusion_page.page()


def test_every_module_of_the_diffusion_core_has_its_section():
    listed = [name for names in write_diffusion_page.SECTIONS.values() for name in names]
    code = write_diffusion_page.CODE
    assert sorted(listed) == sorted(
        str(path.relative_to(code).with_suffix("")) for path in code.glob("**/[a-z]*.py")
    )


def functions_in(path):
    """The names of a file's tests, and whether each is slow."""
    tree = ast.parse((ROOT / path).read_text())
    marks = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign)]
    all_slow = any(mark.startswith("pytestmark") and "slow" in mark for mark in marks)
    return {
        node.name: all_slow or any("slow" in ast.unparse(d) for d in node.decorator_list)
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize("command", re.findall(r"`(pytest [^`]+)`", RELIABILITY))
def test_a_command_that_measures_a_promise_names_tests_that_it_would_run(command):
    """Slow ones are run with -m '' alone; to run them here would take an hour."""
    words = shlex.split(command)[1:]
    slow_too = words[:2] == ["-m", ""]
    for word in words[2:] if slow_too else words:
        path, _, name = word.partition("::")
        known = functions_in(path)
        names = [name] if name else [test for test in known if test.startswith("test_")]
        assert names
        for test in names:
            assert test in known, f"{path} has no {test}"
            # a slow parameter is as good as none here
            assert slow_too or not known[test] or not name


@pytest.mark.parametrize(("page", "count"), [(RELIABILITY, 2), (EVALUATION, 2)])
def test_every_training_command_of_a_page_has_a_config_that_can_be_built(page, count):
    lines = re.findall(r"^python -m diffjax\.main (.*)$", page, re.M)
    assert len(lines) == count
    for line in lines:
        words = shlex.split(line, comments=True)
        options = config.load(words[words.index("--config") + 1])
        config.override(options, [word for word in words if word.startswith("--config.")])
        check(options)


def test_every_evaluating_command_of_its_page_has_flags_and_parts_that_there_are():
    lines = re.findall(r"^python -m diffjax\.evaluate (.*)$", EVALUATION, re.M)
    assert len(lines) == 7
    for line in lines:
        flags = evaluate.parser().parse_args(shlex.split(line))
        assert flags.out.suffix == ".json"
        assert set((flags.parts or "stages").split(",")) <= set(report.PARTS)


def test_the_evaluation_page_has_every_part_and_every_number_of_its_tables():
    rows = re.findall(r"^\| (.*?) \|", EVALUATION, re.M)
    assert set(report.PARTS) <= {row.strip("`") for row in rows}
    named = set(re.findall(r"`([a-z_]+)", "\n".join(rows)))
    known = {"loss", "psnr", "ssim", "retrieval_nearest", "retrieval_first_five"}
    known |= {BITS, "loss_logsnr_"}
    assert known <= named, known - named
