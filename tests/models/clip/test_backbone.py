"""A CLIP on a frozen backbone: what it trains, that vectors stand for pictures, and its folder."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import trees
from diffjax.encoders.clip import weights
from diffjax.models.clip.clip import CLIP
from diffjax.models.clip.sizes import CLIPConfig, Tower, tower
from diffjax.models.efficientnet_lite import Lite0, prepared
from diffjax.tasks.contrastive import Contrastive

CONFIG = CLIPConfig(
    Tower(16, 0, 1, 0), tower(16, 1, 2), 16, 1, 8, vocabulary=24, length=8, backbone="lite0"
)
TASK = Contrastive("pairs", CLIP(CONFIG), drop=0.5)
TOKENS = jnp.array([[22, 3, 23, 0, 0, 0, 0, 0], [22, 5, 7, 23, 0, 0, 0, 0]], jnp.int32)


@pytest.fixture(scope="module")
def params():
    trained = jax.jit(TASK.init)(jax.random.key(0))
    backbone = jax.jit(Lite0(classes=0).init)(jax.random.key(1), jnp.zeros((1, 32, 32, 3)))
    return {**trained, "image": {**trained["image"], "backbone": backbone["params"]}}


def test_training_holds_no_parameter_of_the_backbone():
    shapes = jax.eval_shape(TASK.init, jax.random.key(0))
    assert shapes["image"].keys() == {"up", "down"}


def test_the_features_of_a_picture_are_those_of_its_vector(params):
    image = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)), jnp.float32)
    whole = jax.jit(CLIP(CONFIG).apply)({"params": params}, image, TOKENS)
    run = jax.jit(lambda x: Lite0(classes=0).apply({"params": params["image"]["backbone"]}, x)[0])
    vector = run(prepared(image))
    head = {**params, "image": {k: params["image"][k] for k in ("up", "down")}}
    batch = {"vector": vector, "tokens": TOKENS}
    pair = jax.jit(TASK.pair)(head, batch)
    np.testing.assert_allclose(pair.image, whole.image, atol=1e-4)
    np.testing.assert_allclose(pair.text, whole.text, atol=1e-5)


def test_training_drops_a_share_of_the_numbers_of_a_vector():
    batch = {"vector": jnp.ones((50, 1280)), "tokens": jnp.tile(TOKENS[:1], (50, 1))}
    kept = TASK.draw(jax.random.key(0), batch, jnp.int32(0))["kept"]
    assert float(kept.mean()) == pytest.approx(0.5, abs=0.02)
    whole = dataclasses.replace(TASK, drop=0.0)
    assert whole.draw(jax.random.key(0), batch, jnp.int32(0)).keys() == batch.keys()


def test_a_folder_keeps_the_clip_and_refuses_what_it_says_wrongly(tmp_path, params):
    """Kernels of the backbone lose at most what half precision does; all else is kept."""
    weights.save(tmp_path, CONFIG, params)
    config, loaded = weights.load(tmp_path)
    assert config == CONFIG
    flat = trees.named_leaves(loaded)
    for name, leaf in trees.named_leaves(params).items():
        loss = 1e-3 if name.startswith("image/backbone") else 0.0
        np.testing.assert_allclose(flat[name], leaf, rtol=loss, atol=1e-7 if loss else 0.0)
    said = json.loads((tmp_path / "config.json").read_text())
    for key, value, message in [
        ("backbone", "vgg", "backbone='vgg', want one of lite0"),
        ("image_size", 10**9, "image_size is 1000000000, want at most"),
        ("image_size", "64", "image_size is '64', want a whole number"),
    ]:
        wrong = {**said, "vision_config": {**said["vision_config"], key: value}}
        (tmp_path / "config.json").write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match=message):
            weights.check(tmp_path)
