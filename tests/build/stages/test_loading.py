"""Whose parameters are taken for the same: what a checkpoint's identity holds."""

from pathlib import Path

import jax.numpy as jnp
import pytest

from diffjax.build import tasks
from diffjax.build.guides import clips
from diffjax.build.options import config, upgrade
from diffjax.build.stages import loading, places
from diffjax.generation.chain import Cascade

# What the pictures of given parameters depend on.
OF_PICTURES = ("model.", "diffusion.", "low_res.", "stage", "data.size_px", "text.max_tokens")


def changed(options, key, value):
    other = options.copy_and_resolve_references().unlock()
    node = other
    *parents, last = key.split(".")
    for parent in parents:
        node = node[parent]
    different = {bool: not value, str: f"{value}x", tuple: (*value, 1)} if isinstance(
        value, tuple
    ) else {bool: not value, str: f"{value}x"}  # fmt: skip
    with other.ignore_type():
        node[last] = different.get(type(value), value + 1 if isinstance(value, int | float) else 0)
    return other


@pytest.mark.parametrize("name", ["base64", "sr256"])
def test_an_identity_holds_all_that_pictures_depend_on_and_nothing_else(name):
    """So --like takes the parameters of a run that went on, and no others."""
    plain = config.load(f"{name}:tiny")
    before = loading.identity(plain)
    for key, value in config.leaves(plain):
        same = loading.identity(changed(plain, key, value)) == before
        assert same is not key.startswith(OF_PICTURES), key


def test_an_identity_is_the_same_for_a_config_that_is_older_than_some_of_its_keys():
    plain = config.load("base64:tiny")
    old = plain.copy_and_resolve_references().unlock()
    for key, value in upgrade.BEFORE.items():
        section, _, last = key.partition(".")
        if section in ("diffusion", "model", "low_res") and section in old:
            assert old[section][last] == value, key  # as the config has it by default
            del old[section][last]
    assert loading.identity(old) == loading.identity(upgrade.upgraded(old))
    assert loading.identity(plain) == loading.identity(old)


def test_a_stage_is_loaded_without_guidance_by_a_clip_until_it_is_asked_for(monkeypatch):
    """So commands that load no CLIP sample without it, and say so in their metadata."""
    options = config.load("base64:tiny")
    options.sample.clip_guidance = 2.0
    monkeypatch.setattr(places, "params_of", lambda *_: ({"w": jnp.zeros(2)}, 3, "live"))
    task = tasks.task_of(options, 16)
    stage, origin = loading.load_stage(options, Path("x"), task, None)
    assert stage.settings.clip_guidance == 0
    (asked,) = clips.configured(Cascade((stage,), (origin,), None)).stages
    assert asked.settings == task.settings
    assert asked.settings.clip_guidance == 2.0
