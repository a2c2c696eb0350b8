"""LPIPS's weights of two files, and its distances."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.encoders import lpips
from diffjax.models.perceptual import Lpips
from tools.inputs import lpips_inputs

NETWORK, LINEAR, A, B = lpips_inputs.inputs()


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder whose files have the random tensors; the reader of PyTorch's files has own tests."""
    found = {lpips.NETWORK: dict(NETWORK), lpips.LINEAR: dict(LINEAR)}
    for name in found:
        (tmp_path / name).write_bytes(b"PK")
    monkeypatch.setattr(lpips.torch_archive, "is_archive", lambda file: True)
    monkeypatch.setattr(lpips.torch_archive, "read", lambda file: found[file.name])
    return tmp_path, found


def test_distances_are_those_of_the_package_lpips(files):
    params = lpips.load(files[0])
    distance = jax.jit(Lpips().distance)
    near, far = distance(params, A, A), distance(params, A, B)
    np.testing.assert_allclose(far, json.loads(lpips_inputs.GOLDEN.read_text()), rtol=1e-5)
    np.testing.assert_array_equal(near, 0.0)


def test_the_gradient_of_equal_pictures_and_of_black_places_is_finite(files):
    params = lpips.load(files[0])
    a = A[:1, :16, :16]
    black = jnp.asarray(a).at[:, :, :8].set(-1e6)  # ReLUs leave nothing of it
    gradient = jax.jit(jax.grad(lambda a, b, params: Lpips().distance(params, a, b).sum()))
    for one, other in ((a, a), (black, a)):
        assert np.isfinite(gradient(jnp.asarray(one), jnp.asarray(other), params)).all()


def test_files_of_other_networks_are_one_line(files):
    folder, found = files
    found[lpips.LINEAR]["lin2.model.1.weight"] = np.zeros((1, 192, 1, 1), np.float32)
    with pytest.raises(ValueError, match=r"lin2\.model\.1\.weight is \(1, 192, 1, 1\), want"):
        lpips.load(folder)
    found[lpips.LINEAR] = LINEAR
    del found[lpips.NETWORK]["features.28.bias"]
    with pytest.raises(ValueError, match=r"features\.28\.bias is missing, want \(512,\)"):
        lpips.load(folder)
    (folder / lpips.LINEAR).unlink()
    with pytest.raises(ValueError, match=r"LPIPS has vgg16-397923af\.pth and vgg\.pth"):
        lpips.load(folder)
