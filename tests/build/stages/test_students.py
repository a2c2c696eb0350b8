"""Students take the places of stages where nothing is asked that they have not learned."""

import numpy as np
import pytest

from configs import base64
from diffjax.build.stages import students
from diffjax.core import tensorfile
from diffjax.core.errors import ConfigError
from diffjax.sample import parser


@pytest.fixture
def dirs(tmp_path):
    """Two exported stages, of which the first has a student that draws in 3 steps."""
    for name, step, steps in (("a", 70, 8), ("few/a", 9, 3), ("b", 80, 16)):
        options = base64.get_config("tiny")
        options.sample.num_steps = steps
        metadata = {"step": str(step), "config": options.to_json(), "ema": "live"}
        tensorfile.write(tmp_path / f"{name}.safetensors", {"x": np.zeros(2)}, metadata)
    return [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]


def chosen(dirs, *words, made_by=None):
    found = students.instead(dirs, parser().parse_args(words), made_by)
    return [str(place.relative_to(dirs[0].parent)) for place in found]


TEACHERS = ["a.safetensors", "b.safetensors"]
STUDENTS = ["few/a.safetensors", "b.safetensors"]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], STUDENTS),
        (["--steps", "3"], STUDENTS),
        (["--steps", "3,40"], STUDENTS),
        (["--seeds", "0-3", "--best-of", "2"], STUDENTS),
        (["--steps", "8"], TEACHERS),
        (["--steps", "4,3"], TEACHERS),
        (["--guidance", "2"], TEACHERS),
        (["--sampler", "ddpm"], TEACHERS),
        (["--clip-guidance", "1"], TEACHERS),
        (["--negative", "a hat"], TEACHERS),
        (["--negative", ""], TEACHERS),
        (["--and", "a hat"], TEACHERS),
        (["--guide-by", "runs/weak"], TEACHERS),
        (["--lora", "x.safetensors"], TEACHERS),
        (["--ema", "live"], TEACHERS),
        (["--stages", "a.safetensors,b.safetensors"], TEACHERS),
    ],
)
def test_a_student_draws_unless_more_is_asked(dirs, words, wanted):
    assert chosen(dirs, *words) == wanted


@pytest.mark.parametrize(("steps", "wanted"), [([9], STUDENTS), ([70, 80], TEACHERS)])
def test_a_picture_is_made_again_by_what_made_it(dirs, steps, wanted):
    assert chosen(dirs, "--guidance", "2", made_by=steps) == wanted


def test_wrong_steps_are_refused(dirs):
    with pytest.raises(ConfigError, match="--steps = '1,2,3': one value, or 2 with commas"):
        chosen(dirs, "--steps", "1,2,3")


def test_stages_without_students_are_themselves(dirs, tmp_path):
    (tmp_path / "few/a.safetensors").unlink()
    assert chosen(dirs) == TEACHERS
    (tmp_path / "run").mkdir()
    assert students.instead([tmp_path / "run"], parser().parse_args([])) == [tmp_path / "run"]
