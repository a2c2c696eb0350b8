"""Merging of LoRA files into stages: the sum of NumPy, whose stage, recipes and refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.build.stages import loras
from diffjax.build.stages.loras import Given
from diffjax.core.errors import ConfigError
from diffjax.encoders import lora_files
from diffjax.encoders.lora_files import Layer
from diffjax.generation import folder
from diffjax.generation.jobs import Job
from diffjax.generation.recipe import Lora
from tests import tiny_cascade

SIDES = {"small": (6, 4), "large": (3, 3, 4, 5)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A cascade whose stages have a kernel each."""
    made = tiny_cascade.cascade(tmp_path_factory.mktemp("t5"))
    random = np.random.default_rng(0)

    def with_kernel(stage):
        kernel = jnp.asarray(random.standard_normal(SIDES[stage.task.name]), jnp.float32)
        params = {**stage.params, "attention": {"q": {"kernel": kernel}}}
        return dataclasses.replace(
            stage, params=jax.tree.map(lambda x: jax.device_put(x, jax.devices()[0]), params)
        )

    return dataclasses.replace(made, stages=tuple(map(with_kernel, made.stages)))


def write(path, name, seed, layout="kohya", alpha=3.0):
    """A file for a stage; returns what it adds to the stage's kernel, by NumPy."""
    random, sides = np.random.default_rng(seed), SIDES[name]
    inputs, outputs = int(np.prod(sides[:-1])), sides[-1]
    a, b = (random.standard_normal(x).astype(np.float32) for x in ((inputs, 2), (2, outputs)))
    found = lora_files.layers_of("attention/q/kernel", a, b, sides, alpha, lora_files.ours)
    lora_files.write(path, dict(found), layout, {})
    return (alpha / 2 * a.astype(np.float64) @ b.astype(np.float64)).reshape(sides)


def kernel(cascade, i):
    return np.asarray(cascade.stages[i].params["attention"]["q"]["kernel"])


def test_the_merge_is_numpys_sum_for_any_number_of_files(whole, tmp_path):
    added = [
        write(tmp_path / "a", "small", 1),
        write(tmp_path / "b", "large", 2, "diffusers"),
        write(tmp_path / "c", "small", 3, "diffusers", alpha=0.5),
    ]
    given = [Given(tmp_path / name, w) for name, w in (("a", 0.5), ("b", None), ("c", -2.0))]
    made = loras.merged(whole, given)
    wanted = [
        kernel(whole, 0) + 0.5 * added[0] - 2.0 * added[2],
        kernel(whole, 1) + added[1],
    ]
    for i in range(2):
        np.testing.assert_allclose(kernel(made, i), wanted[i], rtol=1e-5, atol=1e-6)
        assert made.stages[i].params["weight"] is whole.stages[i].params["weight"]
    assert [len(one.loras) for one in made.origins] == [2, 1]
    assert [one.weight for one in made.origins[0].loras] == [0.5, -2.0]
    assert [one.checkpoint for one in made.origins] == [one.checkpoint for one in whole.origins]


def test_nothing_is_merged_without_a_file(whole):
    assert loras.merged(whole, []) is whole


def test_a_weight_that_is_not_named_is_that_of_the_picture(whole, tmp_path):
    write(tmp_path / "a", "small", 1)
    first = loras.merged(whole, [Given(tmp_path / "a", 0.25)])
    picture = folder.recipes_of(Job("a dog", 0), first)[-1]
    again = loras.merged(whole, [Given(tmp_path / "a", None)], picture)
    assert again.origins == first.origins
    np.testing.assert_array_equal(kernel(again, 0), kernel(first, 0))
    loras.check_like(picture, again)
    for other in (whole, loras.merged(whole, [Given(tmp_path / "a", 0.5)])):
        with pytest.raises(ConfigError, match=r"0.25.* was merged into small.*--lora FILE"):
            loras.check_like(picture, other)


@pytest.mark.parametrize(
    ("text", "name", "weight"),
    [("a.safetensors", "a.safetensors", None), ("a:0.5", "a", 0.5), ("a:b", "a:b", None),
     ("a:-1", "a", -1.0)],
)  # fmt: skip
def test_a_weight_stands_behind_a_colon(text, name, weight):
    given = loras.parse(text)
    assert (str(given.path), given.weight) == (name, weight)


@pytest.mark.parametrize("text", ["a:nan", "a:inf", "a:11", "a:1e400"])
def test_a_weight_that_is_no_small_number_is_refused(text):
    with pytest.raises(ConfigError, match="want a weight from -10 to 10"):
        loras.parse(text)


def test_a_file_of_another_network_is_refused_with_the_reason_for_each_stage(whole, tmp_path):
    lora_files.write(
        tmp_path / "a", {"attention.q": Layer(np.ones((1, 7)), np.ones((4, 1)), 1.0)}, "kohya", {}
    )
    words = r"small: attention_q changes a weight of \(4, 7\), here it is \(4, 6\); large: "
    with pytest.raises(ConfigError, match=words):
        loras.merged(whole, [Given(tmp_path / "a", None)])


def test_a_missing_file_and_too_many_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no such file; python -m diffjax\.lora export"):
        loras.read([Given(tmp_path / "absent", None)])
    with pytest.raises(ConfigError, match="at most 16"):
        loras.read([Given(tmp_path / "absent", None)] * 17)


def test_what_a_file_holds_is_said(tmp_path):
    write(tmp_path / "a", "small", 1)
    (read,) = loras.read([Given(tmp_path / "a", None)])
    first, digest, layer = loras.described(read)
    assert "1 layers, rank 2" in first
    assert Lora(digest.split()[1], 1.0).digest == read.digest
    assert "attention_q: rank 2, alpha 3" in layer
