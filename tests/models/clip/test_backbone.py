"""A CLIP on frozen networks: what it trains, that vectors stand for pictures, and its folder."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import trees
from diffjax.encoders.clip import encoder, weights
from diffjax.models.clip.backbone import States
from diffjax.models.clip.clip import CLIP
from diffjax.models.clip.sizes import CLIPConfig, Told, Tower, tower
from diffjax.models.efficientnet_lite import Lite0, prepared
from diffjax.tasks.contrastive import Contrastive

CONFIG = CLIPConfig(
    Tower(16, 0, 1, 0), tower(16, 1, 2), 16, 1, 8, vocabulary=24, length=8, backbone="lite0"
)
TASK = Contrastive("pairs", CLIP(CONFIG), drop=0.5)
TOKENS = jnp.array([[22, 3, 23, 0, 0, 0, 0, 0], [22, 5, 7, 23, 0, 0, 0, 0]], jnp.int32)
# The same, but told the states of the T5 of this package.
TOLD = dataclasses.replace(
    CONFIG, text=Tower(12, 0, 1, 0), vocabulary=0, length=32, told=Told("t5-nano", 256)
)
TOLD_TASK = Contrastive("told", CLIP(TOLD), drop=0.5)


@pytest.fixture(scope="module")
def backbone():
    made = jax.jit(Lite0(classes=0).init)(jax.random.key(1), jnp.zeros((1, 32, 32, 3)))
    return made["params"]


def whole(task, backbone):
    trained = jax.jit(task.init)(jax.random.key(0))
    return {**trained, "image": {**trained["image"], "backbone": backbone}}


@pytest.fixture(scope="module")
def params(backbone):
    return whole(TASK, backbone)


@pytest.fixture(scope="module")
def told_params(backbone):
    return whole(TOLD_TASK, backbone)


def test_training_holds_no_parameter_of_the_frozen_networks():
    shapes = jax.eval_shape(TASK.init, jax.random.key(0))
    assert shapes["image"].keys() == {"up", "down"}
    told = jax.eval_shape(TOLD_TASK.init, jax.random.key(0))
    assert told["text"].keys() == told["image"].keys() == {"up", "down"}


@pytest.mark.slow
def test_the_features_of_a_picture_are_those_of_its_vector(params):
    image = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)), jnp.float32)
    of_pictures = jax.jit(CLIP(CONFIG).apply)({"params": params}, image, TOKENS)
    run = jax.jit(lambda x: Lite0(classes=0).apply({"params": params["image"]["backbone"]}, x)[0])
    vector = run(prepared(image))
    head = {**params, "image": {k: params["image"][k] for k in ("up", "down")}}
    batch = {"vector": vector, "tokens": TOKENS}
    pair = jax.jit(TASK.pair)(head, batch)
    np.testing.assert_allclose(pair.image, of_pictures.image, atol=1e-4)
    np.testing.assert_allclose(pair.text, of_pictures.text, atol=1e-5)


@pytest.mark.slow
def test_the_features_of_a_text_are_those_of_the_mean_of_its_states(told_params):
    """NumPy's norm, layers and QuickGELU of the mean; what stands after the end has no effect."""
    rng = np.random.default_rng(0)
    text, length = rng.normal(size=(2, 32, 256)), np.array([3, 32])
    batch = {"text": jnp.asarray(text, jnp.bfloat16), "text_length": jnp.asarray(length),
             "vector": jnp.ones((2, 1280))}  # fmt: skip
    text = np.asarray(batch["text"], np.float64)
    mean = np.stack([text[i, : length[i]].mean(0) for i in (0, 1)])
    centred = mean - mean.mean(-1, keepdims=True)
    h = centred / np.sqrt(mean.var(-1, keepdims=True) + 1e-5)
    head = jax.tree.map(np.float64, told_params["text"])
    h = h @ head["up"]["kernel"] + head["up"]["bias"]
    wanted = h / (1 + np.exp(-1.702 * h)) @ head["down"]["kernel"]
    wanted /= np.linalg.norm(wanted, axis=-1, keepdims=True)
    pair = jax.jit(TOLD_TASK.pair)(told_params, batch)
    np.testing.assert_allclose(pair.text, wanted, atol=1e-5)


def test_training_drops_a_share_of_the_numbers_of_a_vector_and_of_a_mean_state():
    batch = {"vector": jnp.ones((50, 1280)), "tokens": jnp.tile(TOKENS[:1], (50, 1))}
    kept = TASK.draw(jax.random.key(0), batch, jnp.int32(0))["kept"]
    assert float(kept.mean()) == pytest.approx(0.5, abs=0.02)
    all_kept = dataclasses.replace(TASK, drop=0.0)
    assert all_kept.draw(jax.random.key(0), batch, jnp.int32(0)).keys() == batch.keys()
    batch = {"vector": jnp.ones((50, 1280)), "text": jnp.ones((50, 4, 256))}
    drawn = TOLD_TASK.draw(jax.random.key(0), batch, jnp.int32(0))
    assert drawn["text_kept"].shape == (50, 256)
    assert float(drawn["text_kept"].mean()) == pytest.approx(0.5, abs=0.02)
    assert (drawn["kept"][:, :256] != drawn["text_kept"]).any()


@pytest.mark.parametrize("config", [CONFIG, TOLD])
def test_a_folder_keeps_the_clip_and_refuses_what_it_says_wrongly(
    tmp_path, params, told_params, config
):
    """Kernels of the backbone lose at most what half precision does; all else is kept."""
    stored = told_params if config.told else params
    weights.save(tmp_path, config, stored, "ab" * 32 if config.told else "")
    found, loaded = weights.load(tmp_path)
    assert found == config
    flat = trees.named_leaves(loaded)
    for name, leaf in trees.named_leaves(stored).items():
        loss = 1e-3 if name.startswith("image/backbone") else 0.0
        np.testing.assert_allclose(flat[name], leaf, rtol=loss, atol=1e-7 if loss else 0.0)
    said = json.loads((tmp_path / "config.json").read_text())
    wrong = [
        ("vision", "backbone", "vgg", "backbone='vgg', want one of lite0"),
        ("vision", "image_size", 10**9, "image_size is 1000000000, want at most"),
        ("vision", "image_size", "64", "image_size is '64', want a whole number"),
    ]
    if config.told:
        wrong = [
            ("text", "encoder", 3, "encoder=3 of 'abab.*, want a name and a fingerprint"),
            ("text", "max_position_embeddings", 0, "max_position_embeddings is 0, want a whole"),
            ("text", "max_position_embeddings", 10**9, "is 1000000000, want at most 4096"),
        ]
    for part, key, value, message in wrong:
        changed = {**said, f"{part}_config": {**said[f"{part}_config"], key: value}}
        (tmp_path / "config.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=message):
            weights.check(tmp_path)


@pytest.mark.slow
def test_a_clip_that_is_told_states_asks_their_encoder_and_no_other(tmp_path, told_params):
    t5 = encoder.t5.load_encoder("t5-nano", TOLD.length)
    weights.save(tmp_path, TOLD, told_params, t5.fingerprint)
    clip = encoder.load(tmp_path)
    found = clip.of_captions(["a ship", "a red apple", "a ship"])
    text, mask = t5.encode(["a ship"], TOLD.length)
    wanted = CLIP(TOLD).apply({"params": told_params}, States(text, mask), method="of_text")[0]
    np.testing.assert_allclose(found[0], wanted / jnp.linalg.norm(wanted), atol=1e-5)
    np.testing.assert_allclose(found[2], found[0], atol=1e-6)
    assert np.abs(found[1] - found[0]).max() > 1e-3
    with pytest.raises(ValueError, match="its texts are read by t5-nano; name that"):
        encoder.load_text_encoder(tmp_path, 8)
    weights.save(tmp_path, TOLD, told_params, "ab" * 32)
    with pytest.raises(ValueError, match="was trained with the t5-nano of fingerprint abab"):
        encoder.load(tmp_path)
    elsewhere = dataclasses.replace(TOLD, told=Told("./no_such_t5", 256))
    weights.save(tmp_path, elsewhere, told_params, t5.fingerprint)
    with pytest.raises(ValueError, match=r"its text encoder: .*no_such_t5"):
        encoder.load(tmp_path)
