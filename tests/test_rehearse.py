"""The command of a rehearsal, from a trained stage to a picture."""

import jax
import numpy as np
import pytest

from diffjax import main
from diffjax.build import check
from diffjax.build.options import config
from diffjax.build.stages import loading, places
from diffjax.core import trees
from diffjax.core.errors import ConfigError

CONFIG = "configs/rehearse.py:tiny"


def train(folder, *flags, config_file=CONFIG, steps=4):
    short = [f"num_steps={steps}", "sample_every=0", "save_every=2", "log_every=2"]
    flags = [*(f"--config.train.{one}" for one in short), *flags]
    return main.main(["--config", config_file, "--workdir", str(folder), *flags])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The workdir of a stage that learned on noised pictures."""
    folder = tmp_path_factory.mktemp("rehearse") / "base"
    assert train(folder, config_file="configs/base64.py:tiny", steps=2) == 0
    return folder


@pytest.mark.slow
def test_it_begins_with_a_stage_and_ends_the_same_when_it_was_stopped(base, tmp_path, capsys):
    begin = f"--config.start.base={base}"
    for steps in (1, 3, 4):
        capsys.readouterr()
        assert train(tmp_path / "b", begin, steps=steps) == 0
    again = capsys.readouterr().out
    assert train(tmp_path / "a", begin) == 0
    said = capsys.readouterr().out
    assert "begins with the weights of step 2" in said
    ends = [
        next(line for line in text.splitlines() if line.startswith("digest of step 4"))
        for text in (again, said)
    ]
    assert ends[0] == ends[1]
    was, now = (
        trees.named_leaves(jax.device_get(loading.load([place]).stages[0].params))
        for place in (base, tmp_path / "a")
    )
    assert was.keys() == now.keys()
    assert not all(np.array_equal(was[name], now[name]) for name in was)
    settings = loading.load([tmp_path / "a"]).stages[0].settings
    assert (settings.num_steps, settings.sampler, settings.guidance_weight) == (2, "ddim", 1.0)


@pytest.mark.slow
def test_the_stage_of_a_workdir_keeps_its_network_and_its_data(base):
    own = config.load(f"configs/rehearse.py:own:{base}")
    there = places.options_of(base)
    assert own.start.base == str(base)
    assert (own.model, own.data) == (there.model, there.data)
    assert own.sample.num_steps == 4


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("sample.sampler", "heun", 'its way of "ddim"'),
        ("sample.guidance_weight", 2.0, "must be 1"),
        ("diffusion.self_condition", 0.5, "must be 0 in a rehearsal"),
        ("rehearsal.perceptual", "vgg", 'want "lite0"'),
        ("rehearsal.perceptual_weight", -1.0, "must be between 0"),
    ],
)
def test_what_a_rehearsal_cannot_do_is_refused(key, value, words):
    options = config.load(CONFIG).copy_and_resolve_references().unlock()
    section, _, name = key.partition(".")
    options[section][name] = value
    with pytest.raises(ConfigError, match=words):
        check.check(options)
