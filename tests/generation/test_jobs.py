import argparse

import pytest

from diffjax.core.errors import ConfigError
from diffjax.core.limits import MAX_SEED
from diffjax.generation import jobs
from diffjax.tasks.settings import SampleSettings

STAGES = [SampleSettings(num_steps=8), SampleSettings(num_steps=4, aug_level=0.3)]


def flags(*arguments):
    parser = argparse.ArgumentParser()
    jobs.add_settings(parser)
    return parser.parse_args(arguments)


def test_every_prompt_meets_every_seed_in_order():
    made = jobs.all_jobs(["a", "b"], [3, 1], "c")
    assert [(job.prompt, job.seed) for job in made] == [("a", 3), ("a", 1), ("b", 3), ("b", 1)]
    assert {job.negative for job in made} == {"c"}


def test_prompts_come_from_the_command_and_then_from_the_file(tmp_path):
    file = tmp_path / "p.txt"
    file.write_bytes("\ufeffa red / circle\r\n\n  two\u2028lines \n🍏\0\n".encode())
    assert jobs.read_prompts(["x", ""], file) == [
        "x", "", "a red / circle", "two\u2028lines", "🍏\0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"ok\n\xff\xfe", "is not UTF-8 at byte 3"), (b"x" * 10_001, "10001 characters")],
)
def test_a_file_without_prompts_is_refused(content, words, tmp_path):
    (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        jobs.read_prompts([], tmp_path / "p.txt")


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [3]), ("0-3", [0, 1, 2, 3]), ("5, 1-2,1", [5, 1, 2, 1])]
)
def test_seeds_are_numbers_and_ranges(text, seeds):
    assert jobs.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "-1", "7-3", "a", "0-9999999", "2147483648", "1,,2"])
def test_text_that_is_not_a_seed_is_refused(text):
    with pytest.raises(ConfigError, match="--seeds"):
        jobs.parse_seeds(text)


def test_too_many_pictures_are_refused():
    with pytest.raises(ConfigError, match="at most 100000"):
        jobs.all_jobs(["x"] * 1001, range(100))


def test_a_flag_sets_one_field_of_all_stages_or_of_each():
    assert jobs.settings_of(flags(), STAGES) == STAGES
    asked = ["--steps", "64,16", "--guidance", "3, 1", "--sampler", "ddim,heun", "--noise", "0.5"]
    asked += ["--spacing", "logsnr", "--threshold", "none,static", "--percentile", "95"]
    first, second = jobs.settings_of(flags(*asked, "--aug-level", "0.2"), STAGES)
    assert first == SampleSettings(64, "ddim", "logsnr", 0.5, 3.0, "none", 95.0, 0.2)
    assert second == SampleSettings(16, "heun", "logsnr", 0.5, 1.0, "static", 95.0, 0.2)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["--steps", "0"], r"--steps = '0': a whole number from 1 to 10000"),
        (["--steps", "2.5"], "--steps = '2.5'"),
        (["--steps", "1,2,3"], "one value, or 2 with commas"),
        (["--guidance", "nan"], "a number from 0 to 1000"),
        (["--guidance", "inf"], "a number from 0 to 1000"),
        (["--guidance", ""], "a number from 0 to 1000"),
        (["--sampler", "ddpm,fast"], "--sampler = 'ddpm,fast': allowed: ddpm, ddpm_learned, ddim"),
        (["--sampler", "plms"], "allowed: ddpm, ddpm_learned, ddim"),
        (["--sampler", "unipc", "--noise", "0.1"], "unipc adds none"),
        (["--threshold", "hard"], "allowed: dynamic, static, none"),
        (["--spacing", "x"], "allowed: uniform"),
        (["--percentile", "0.99"], "a number from 1 to 100"),
        (["--aug-level", "2"], "a number from 0 to 1"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(asked, words):
    with pytest.raises(ConfigError, match=words):
        jobs.settings_of(flags(*asked), STAGES)


def test_a_seed_may_be_as_large_as_a_recipe_can_hold_and_no_larger():
    assert jobs.parse_seeds(str(MAX_SEED)) == [MAX_SEED]
    with pytest.raises(ConfigError, match="--seeds"):
        jobs.parse_seeds(str(MAX_SEED + 1))
