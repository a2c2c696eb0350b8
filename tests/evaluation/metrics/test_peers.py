"""The metrics equal torch-fidelity's and prdc's on the same features."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from diffjax.evaluation import fid
from diffjax.evaluation.metrics import inception_score, kid, moments, neighbours
from tools.inputs import metric_features

GOLDEN = Path(__file__).parents[2] / "golden" / "metrics.safetensors"


def ours(made, real, logits):
    return {
        "fid": fid.distance(moments.moments_of(made), moments.moments_of(real)),
        "kid": kid.kid(made, real, subsets=6, subset_size=20),
        "inception_score": inception_score.inception_score(logits, splits=5),
        "precision_recall": neighbours.precision_recall(made, real),
        "density_coverage": neighbours.density_coverage(made, real),
    }


@pytest.mark.parametrize("name", list(ours(*metric_features.features(seed=0))))
def test_a_number_equals_the_recorded_one_of_the_reference_tool(name):
    golden = load_file(GOLDEN)
    found = ours(golden["made"], golden["real"], golden["logits"])
    np.testing.assert_allclose(found[name], golden[name], rtol=1e-6, atol=0)


def test_features_in_float32_give_the_numbers_of_the_reference_tools():
    golden = load_file(GOLDEN)
    found = ours(*(golden[name].astype(np.float32) for name in ("made", "real", "logits")))
    for name, value in found.items():
        np.testing.assert_allclose(value, golden[name], rtol=1e-5, err_msg=name)


@pytest.mark.peers
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_numbers_equal_those_of_the_reference_tools(seed):
    if importlib.util.find_spec("torch_fidelity") is None:  # imported, it asks for torchvision
        pytest.skip("torch-fidelity is not installed")
    pytest.importorskip("prdc")
    from tools.peers import metric_peers

    given = metric_features.features(seed)
    theirs = metric_peers.numbers(*given)
    for name, value in ours(*given).items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-6, err_msg=name)
