"""Tiny runs of what a network may be told beside text, from the config to a picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import checkpoint, main, sample
from diffjax.build import tasks
from diffjax.build.check import check
from diffjax.build.options import config
from diffjax.build.stages import places
from diffjax.core import rng
from diffjax.core.errors import ConfigError
from diffjax.images import png

TOLD = """
from configs import digits, pieces

PRESETS = ("all",)


def get_config(preset):
    config = digits.get_config("tiny_holes")
    config.classes = pieces.classes(5)
    config.embedding = pieces.embedding("colour", 3)
    config.data.name = "fake/16"
    return config
"""
# A network that compiles soon, and learns at once.
SMALL = ["model.mults=(1,)", "model.width=16", "model.patch=4", "train.ema=()",
         "train.num_steps=2", "train.save_every=2", "train.sample_every=2",
         "optim.learning_rate=0.02", "optim.warmup_steps=0"]  # fmt: skip


def trained(folder, spec, *more):
    """The task of a run of few steps, and its parameters."""
    flags = [f"--config.{one}" for one in (*SMALL, *more)]
    assert main.main(["--config", str(spec), "--workdir", str(folder), *flags]) == 0
    options = places.options_of(folder)
    task = tasks.task_of(options, 0)
    return task, places.params_of(options, folder, task, None)[0]


@pytest.mark.slow
def test_a_run_that_is_told_nothing_trains_and_makes_pictures_of_seeds(tmp_path):
    task, _ = trained(tmp_path / "run", "configs/digits.py:tiny_unconditional")
    assert set(task.columns()) == {"image"}
    assert task.conditions == ()
    asked = ["--workdir", str(tmp_path / "run"), "--seeds", "3", "--out", str(tmp_path / "out")]
    assert sample.main(asked) == 0
    assert png.read(tmp_path / "out" / "0000_seed3_8px.png").std() > 0


@pytest.mark.slow
def test_a_run_learns_from_the_class_the_vector_and_the_picture_with_a_hole(tmp_path):
    """Each alone changes what the network says; what is in the hole does not.

    The noise levels of this run are drawn by importance: its losses are in the checkpoint.
    """
    own = tmp_path / "own.py"
    own.write_text(TOLD)
    by_losses = ("diffusion.times=importance", "diffusion.num_levels=4")
    task, params = trained(tmp_path / "run", own, *by_losses)
    assert set(task.columns()) == {"image", "label", "colour"}
    saved, _ = checkpoint.read(tmp_path / "run/checkpoints/2")
    assert saved["memory"]["losses"].shape == (4, 10)
    assert saved["memory"]["counts"].sum() == 2 * 8
    keys, x_t = rng.per_example(jnp.arange(1)), jax.random.normal(jax.random.key(0), (1, 8, 8, 3))

    @jax.jit
    def says(columns):
        given = {
            name: x
            for one in task.conditions
            for name, x in one.given(columns, keys, task.settings).items()
        }
        return task.bind(params, given)(x_t, jnp.zeros(1))

    columns = {
        "label": jnp.array([1]),
        "colour": jnp.array([[1.0, 0.0, 0.5]]),
        "picture": jnp.ones((1, 8, 8, 3)),
        "hole": jnp.zeros((1, 8, 8, 1), bool).at[:, :4].set(True),
    }
    plain = says(columns)
    changes = {
        "label": jnp.array([2]),
        "colour": -columns["colour"],
        "picture": columns["picture"].at[:, 4:].set(-1.0),
        "hole": ~columns["hole"],
    }
    for name, other in changes.items():
        assert float(jnp.abs(says({**columns, name: other}) - plain).max()) > 1e-5, name
    inside = {**columns, "picture": columns["picture"].at[:, :4].set(-1.0)}
    np.testing.assert_array_equal(says(inside), plain)


@pytest.mark.parametrize(
    ("spec", "section", "values", "words"),
    [
        ("configs/sr256.py:tiny", "mask", {"drop": 0.1}, "model.kind = 'efficient_unet': mask"),
        ("configs/digits.py:tiny", "mask", {"drop": 2.0}, "mask.drop = 2.0"),
        ("configs/digits.py:tiny", "embedding", {"of": "image", "width": 3, "drop": 0.1},
         "embedding.of = 'image'"),
        ("configs/digits.py:tiny", "classes", {"num": 3, "drop": 0.1, "names": ("a", "A", "b")},
         "classes.names"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused(spec, section, values, words):
    options = config.load(spec)
    with options.unlocked():
        options[section] = values
    with pytest.raises(ConfigError, match=words):
        check(options)
