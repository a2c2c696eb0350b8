"""The Inception of FID equals torch-fidelity's on random weights, with its resize."""

import functools
import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

from diffjax.encoders import foreign
from diffjax.evaluation import fid
from diffjax.evaluation.extractors import extractor as extractors
from diffjax.evaluation.extractors import inception
from diffjax.evaluation.extractors.open import open_extractor
from diffjax.evaluation.metrics import inception_score, kid, moments, neighbours
from diffjax.models.inception import Inception
from tests.encoders import test_torch_legacy
from tools.inputs import random_tensors

GOLDEN = Path(__file__).parents[2] / "golden" / "inception.safetensors"
MEANS = {"64": "of_64", "192": "of_192", "768": "of_768", "2048": "of_2048"}


@functools.cache
def recorded():
    with safe_open(GOLDEN, framework="np") as file:
        said = file.metadata()
        answers = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    shapes = {name: tuple(size) for name, size in json.loads(said["shapes"]).items()}
    return shapes, int(said["side_px"]), answers


@functools.partial(jax.jit, static_argnames="side_px")
def layers(params, pictures, side_px):
    means, logits = Inception().apply({"params": params}, inception.prepared(pictures, side_px))
    return {**{name: getattr(means, ours) for name, ours in MEANS.items()},
            "logits_unbiased": logits}  # fmt: skip


def equal(ours, theirs):
    for name, value in ours.items():
        size = np.abs(theirs[name]).max()
        np.testing.assert_allclose(value, theirs[name], atol=1e-4 * size, err_msg=name)


def test_every_layer_equals_torch_fidelitys_from_the_bytes_on():
    shapes, side_px, want = recorded()
    params = inception.from_torch(random_tensors.weights(0, shapes))
    equal(layers(params, jnp.asarray(random_tensors.blocks(0, 2, 10, 13)), side_px), want)


@pytest.mark.peers
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 48), (299, 299), (320, 400)])
def test_features_and_logits_equal_those_of_torch_fidelity(height, width):
    if importlib.util.find_spec("torch_fidelity") is None:  # imported, it asks for torchvision
        pytest.skip("torch-fidelity is not installed")
    from tools.peers import inception_peers

    shapes, _, _ = recorded()
    pictures = random_tensors.blocks(3, 2, height, width)
    params = inception.from_torch(random_tensors.weights(3, shapes))
    equal(layers(params, jnp.asarray(pictures), 299), inception_peers.answer(3, pictures, 299))


@pytest.mark.peers
@pytest.mark.slow
def test_numbers_of_sets_of_pictures_equal_those_of_torch_fidelity():
    """From the bytes to FID, KID, Inception score, precision and recall, with random weights."""
    if importlib.util.find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not installed")
    from tools.peers import inception_peers, metric_peers

    sets = [random_tensors.blocks(seed, 22, 6, 8) for seed in (6, 7)]
    sets[1] = sets[1] // 2 + 90  # paler
    params = inception.from_torch(random_tensors.weights(6, recorded()[0]))
    kernel = np.asarray(params["fc"]["kernel"])
    ours = extractors.Extractor("i", inception.RESIZE, 2048, "fid", params, inception.pool3, kernel)
    made, real = (extractors.features(ours, one, batch=22) for one in sets)
    logits = made @ ours.classes
    found = {
        "fid": fid.distance(*(moments.moments_of(x) for x in (made, real)), full_rank=False),
        "kid": kid.kid(made, real, **{name.removeprefix("kid_"): n
                                      for name, n in metric_peers.KID.items()}),
        "inception_score": inception_score.inception_score(logits, splits=metric_peers.SPLITS),
        "precision_recall": neighbours.precision_recall(made, real),
    }  # fmt: skip
    answers = [inception_peers.answer(6, one, 299) for one in sets]
    wide = [one["2048"].astype(np.float64) for one in answers]
    want = metric_peers.numbers(*wide, answers[0]["logits_unbiased"].astype(np.float64))
    for name, value in found.items():
        np.testing.assert_allclose(value, want[name], rtol=1e-3, atol=1e-9, err_msg=name)


@pytest.mark.peers
@pytest.mark.parametrize("zipped", [True, False], ids=["zipped", "before PyTorch 1.6"])
def test_a_file_that_pytorch_wrote_is_read(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    if importlib.util.find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not installed")
    from tools.peers import inception_peers

    net, path = inception_peers.network(5), tmp_path / "inception.pth"
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=zipped)
    found = inception.load(path)
    want = inception.from_torch(random_tensors.weights(5, recorded()[0]))
    jax.tree.map(np.testing.assert_array_equal, found.params, want)


def test_pictures_are_enlarged_as_torch_fidelity_enlarges_them():
    _, _, want = recorded()
    x = random_tensors.blocks(0, 2, 10, 13)[:1].astype(np.float32)
    np.testing.assert_allclose(inception.resized(jnp.asarray(x), 31), want["resized"], atol=1e-4)


@pytest.mark.parametrize(("size", "side"), [(4, 10), (10, 4), (7, 7), (9, 5)])
def test_a_resized_row_is_a_line_between_pixels_at_i_size_over_side(size, side):
    row = np.random.default_rng(1).integers(0, 256, size).astype(np.float32)
    x = np.broadcast_to(row[None, None, :, None], (1, size, size, 3))
    want = np.interp(np.arange(side) * size / side, np.arange(size), row)
    for given in (x, x.transpose(0, 2, 1, 3)):
        found = np.asarray(inception.resized(jnp.asarray(given), side))
        found = found if given is x else found.transpose(0, 2, 1, 3)
        np.testing.assert_allclose(found[0, :, :, 0], np.tile(want, (side, 1)), atol=1e-3)


def test_pixels_are_those_of_the_graph():
    flat = np.broadcast_to(np.array([0, 128, 255], np.uint8)[:, None, None, None], (3, 5, 5, 3))
    found = np.asarray(inception.prepared(jnp.asarray(flat), 9))
    np.testing.assert_array_equal(found[:, 3, 3, 1], np.array([-1, 0, 127 / 128], np.float32))


def test_a_folded_convolution_is_a_convolution_and_its_batch_norm():
    draw = np.random.default_rng(2)
    kernel, x = draw.normal(size=(4, 3, 1, 1)), draw.normal(size=(7, 3))
    scale, shift, mean = draw.normal(size=(3, 4))
    variance = np.array([0.0, 1.0, 4.0, 1e-3])
    want = scale * (x @ kernel[:, :, 0, 0].T - mean) / np.sqrt(variance + 1e-3) + shift
    ours, bias = inception.folded(*(v.astype(np.float32) for v in (kernel, scale, shift, mean,
                                                                   variance)))  # fmt: skip
    np.testing.assert_allclose(x @ ours[0, 0] + bias, want, rtol=1e-4, atol=1e-4)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file whose tensors the test chooses: a function of a change of the right ones."""

    def write(**changes):
        shapes, _, _ = recorded()
        found = {name: np.broadcast_to(np.float32(1), size) for name, size in shapes.items()}
        found |= {name.replace("__", "."): value for name, value in changes.items()}
        found = {name: value for name, value in found.items() if value is not None}
        monkeypatch.setattr(foreign, "read_torch", lambda path: found)
        path = tmp_path / "inception.pth"
        path.write_bytes(b"weights")
        return path

    return write


def test_a_file_is_an_extractor_that_says_what_it_is(file):
    found = open_extractor(f"inception:{file()}")
    assert found.name == "inception-v3 of 2015 pool3, weights 9a129038d9a00aed"
    assert (found.label, found.width) == ("fid", 2048)
    assert found.resize == "bilinear of TensorFlow 1, 299 px"
    assert found.classes.shape == (2048, 1008)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(fc__weight=np.zeros((1000, 2048), np.float32)),
         r"fc/kernel is \(2048, 1000\), want \(2048, 1008\): not the weights of"),
        (dict(Mixed_7c__branch_pool__bn__bias=None), "Mixed_7c.branch_pool.bn.bias is missing"),
        (dict(AuxLogits__fc__weight=np.zeros((2, 2), np.float32)), "AuxLogits.fc.weight is not of"),
    ],
)  # fmt: skip
def test_a_file_of_another_network_is_refused(file, change, said):
    path = file(**change)
    with pytest.raises(ValueError, match=said) as caught:
        inception.load(path)
    assert str(caught.value).startswith(str(path))


def test_another_file_of_pytorch_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"tensor some\.weight is not of") as caught:
        open_extractor(f"inception:{test_torch_legacy.file(tmp_path)}")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_features_over_eight_devices_are_those_of_one():
    """The whole way at 299 px, through `features`."""
    from diffjax.devices import mesh as mesh_lib

    shapes, _, _ = recorded()
    params = inception.from_torch(random_tensors.weights(0, shapes))
    found = extractors.Extractor("i", inception.RESIZE, 2048, "fid", params, inception.pool3)
    pictures = random_tensors.blocks(4, 11, 20, 20)
    one = extractors.features(found, pictures, batch=8)
    spread = extractors.features(found, pictures, batch=8, mesh=mesh_lib.make_mesh(4, 2))
    np.testing.assert_allclose(spread, one, atol=1e-4 * np.abs(one).max())
