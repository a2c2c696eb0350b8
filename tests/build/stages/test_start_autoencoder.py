"""An autoencoder begins with a trained one, and what may learn from there on."""

import json
import re

import jax
import numpy as np
import pytest

from diffjax.build.kinds import autoencoding
from diffjax.build.options import config
from diffjax.build.stages import autoencoders, start
from diffjax.core import tensorfile, trees
from diffjax.core.errors import ConfigError
from diffjax.training import optim


def tiny(base="", **changes):
    made = config.load("autoencoder:tiny").copy_and_resolve_references().unlock()
    made.start.base = str(base)
    for key, value in changes.items():
        section, _, last = key.partition("__")
        made[section][last] = value
    return made


def params_of(seed):
    made = jax.jit(autoencoding.task_of(tiny()).init)(jax.random.key(seed))
    return jax.tree.map(np.asarray, made)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    file = tmp_path_factory.mktemp("base") / "autoencoder.safetensors"
    metadata = {"config": json.dumps(tiny().to_dict()), "step": "7", "ema": "live"}
    tensorfile.write(file, trees.named_leaves(params_of(5)), metadata)
    return file


def test_it_has_the_weights_of_its_base_and_a_new_discriminator(base):
    made = tiny(base)
    made.seed = 1
    found = start.params_of(made, autoencoding.task_of(made))
    theirs = autoencoders.opened(str(base)).params
    jax.tree.map(np.testing.assert_array_equal, found["autoencoder"], theirs)
    new = params_of(1)
    for part in ("discriminator", "log_variance"):
        jax.tree.map(np.testing.assert_array_equal, found[part], new[part])
    assert (theirs["last"]["kernel"] != new["autoencoder"]["last"]["kernel"]).any()


@pytest.mark.parametrize(
    ("where", "changes", "said"),
    [
        ("absent", {}, r"start\.base = 'absent': there is no such workdir"),
        ("base", {"model__latent": 3}, "its latent is 2, not 3"),
        ("base", {"model__codes": 5}, "its codes is 0, not 5"),
        ("shipped", {}, "its channels is 48, not 8"),
        ("base", {"start__average": "decay_0.5"}, "holds .* alone"),
        ("shipped", {"start__average": "decay_0.5"}, "has no averages, so none is named decay_0.5"),
    ],
)
def test_a_base_that_cannot_be_is_refused_in_one_line(where, changes, said, base, tmp_path):
    made = tiny(base if where == "base" else where, **changes)
    with pytest.raises(ConfigError, match=said) as caught:
        start.check(made, tmp_path)
    assert "\n" not in str(caught.value)


def test_the_fine_preset_moves_what_comes_after_the_latent_alone():
    made = config.load("autoencoder:fine")
    start.check(made, made_nowhere := config.shipped() / "no run")
    assert not made_nowhere.exists()
    (group,) = map(optim.parse_group, made.optim.groups)
    assert group.rate == 0
    parts = trees.named_leaves({"autoencoder": autoencoders.opened("shipped").params})
    still = {name.split("/")[1] for name in parts if re.fullmatch(group.pattern, name)}
    assert still == {"encoder", "moments"}
    assert {name.split("/")[1] for name in parts} - still == {"decoder", "latent", "last"}
