"""Every key of a config changes something: no value is read and forgotten on its way."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.build import config, data, tasks, training
from diffjax.data import pipeline
from tests.tiny_t5 import save_tiny

# Keys whose effect cannot be seen without a run or another data set, and where a test sees it.
ELSEWHERE = {
    "data.split": "made-up pictures have no splits: tests/data/sources/test_tfds.py",
    "data.names": "made-up pictures are all taken: tests/data/sources/test_tfds.py",
    "data.image_key": "made-up pictures have no fields: tests/data/sources/test_tfds.py",
    "data.caption_key": "made-up pictures have no fields: tests/data/sources/test_tfds.py",
    "data.embeddings": "names a cache on the disk: tests/build/test_embeddings.py",
    "mesh.data": "of 8 devices -1 takes what the others leave: tests/training/test_meshes.py",
    "model.kind": "changes which other keys there are: tests/build/test_check.py",
    "text.width": "0 asks the encoder, any other number must be its own: test_check.py",
    "train.allow_dtype_change": "allows what a resume refuses: test_resume.py",
}
# Another allowed value, where the general rule of `other` gives one that is not.
OTHER = {
    "stage": "another",
    "data.name": "fake/17",
    "data.size_px": 32,
    "data.batch_size": 16,
    "data.crop_px": 8,
    "text.encoder": "t5-nano",
    "model.width": 32,
    "model.dtype": "bfloat16",
    "model.mults": (1, 2, 2),
    "model.num_blocks": 2,
    "model.attention_levels": (0,),
    "model.head_width": 8,
    "model.num_heads": 1,
    "model.patch": 2,
    "model.remat": "full",
    "diffusion.schedule": "sigmoid",
    "diffusion.predict": "v",
    "diffusion.weighting": "min_snr",
    "diffusion.times": "stratified",
    "diffusion.objective": "hybrid",
    "diffusion.over": "logsnr",
    "optim.name": "adamw",
    "optim.decay": "constant",
    "optim.groups": ("stem/.* rate=0.5",),
    "optim.weight_decay": 0.1,
    "train.ema": ("decay_0.5",),
    "sample.sampler": "ddim",
    "sample.spacing": "uniform_logsnr",
    "sample.threshold": "none",
    "sample.prompts": ("a frog",),
    "sample.num_images": 3,
    "low_res.size_px": 32,
    "mesh.fsdp": 8,
    "mesh.tensor": 2,
}
# What has to be said with a key for its value to count.
OF_SR = {"low_res.size_px": 16, "low_res.max_aug_level": 1.0}
WITH = {
    "optim.weight_decay": {"optim.name": "adamw"},
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("t5"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


def example(encoder, **changes):
    """A tiny config with a small encoder and these values; sr256's for keys of low_res."""
    file = "sr256" if any(key.startswith("low_res.") for key in changes) else "base64"
    options = config.load(f"configs/{file}.py:tiny")
    options.text.update(encoder=encoder, max_tokens=16)
    for key, value in changes.items():
        section, _, last = key.rpartition(".")
        with options.unlocked():
            (options[section] if section else options)[last] = value
    return options


def other(key, value):
    """Another value of the same type."""
    if key in OTHER:
        return OTHER[key]
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return value / 2 + 0.25
    return value + 1


def moved(tx, rate):
    """Where an optimiser takes a few parameters in three steps of uneven gradients."""
    params = {"stem": {"kernel": jnp.ones((2, 2))}, "out": {"bias": jnp.array([0.5, -2.0])}}
    state = tx.init(params)
    for step in range(3):
        scale = (0.1, 3.0, 1.0)[step]  # clipping tells them apart
        gradients = jax.tree.map(lambda p, s=scale: p * s, params)
        updates, state = tx.update(gradients, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    small = jax.tree.map(lambda p: 1e-9 * p, params)
    updates, _ = tx.update(small, tx.init(params), params)
    rates = [float(rate(step)) for step in (0, 1, 2, 3, 5, 100)]
    return [np.asarray(x).tolist() for x in jax.tree.leaves((params, updates))], rates


def signature(options):
    """All that a run is made of, as values that compare."""
    encoder = tasks.encoder_of(options)
    made = training.training_of(options, encoder.width)
    records = data.source_of(options)
    embed = lambda caption: np.full((2, encoder.width), len(caption), np.float32)  # noqa: E731
    batches = pipeline.train_iterator(
        records,
        data.readers_of(options, embed),
        batch_size=made.batch_size,
        seed=made.seed,
        max_broken=data.max_broken_of(options),
        threads=0,
    )
    digest = hashlib.sha256()
    for name, column in sorted(next(batches).items()):
        digest.update(name.encode() + np.ascontiguousarray(column).tobytes())
    shown = data.shown_of(options, records, encoder, embed)
    return {
        "task": repr(made.task),
        "optimiser": moved(made.tx, made.rate),
        "training": (made.averages, dict(made.mesh.shape), made.seed, made.parts, made.log_every),
        "batch": (digest.hexdigest(), batches._broken.limit),
        "loop": training.loop_of(options),
        "sampled": training.sampled_average(options),
        "shown": shown.captions,
    }


KEYS = [key for key, _ in config.leaves(config.load("configs/base64.py:tiny"))]


@pytest.mark.parametrize("key", [key for key in KEYS if key not in ELSEWHERE])
def test_another_value_changes_what_a_run_is_made_of(encoder, key):
    before = {"diffusion.predict": "eps", "optim.weight_decay": 0.05, **WITH.get(key, {})}
    if key.startswith("low_res."):
        before = {key: OF_SR[key]}
    value = dict(config.leaves(example(encoder, **before)))[key]
    changed = other(key, value)
    assert changed != value
    assert signature(example(encoder, **{**before, key: changed})) != signature(
        example(encoder, **before)
    )


def test_the_keys_that_are_left_out_exist():
    assert set(ELSEWHERE) | set(OTHER) <= {*KEYS}
