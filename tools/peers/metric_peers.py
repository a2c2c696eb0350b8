"""The metrics of torch-fidelity and prdc, on features in float64.

Needs requirements-peers.txt, and torch-fidelity, which the Makefile installs without torchvision.
"""

import contextlib
import io
import sys
from typing import Any
from unittest import mock

import numpy as np
import prdc
import torch

# What torch-fidelity's package imports for pictures, which are not needed here.
STUBS = ("torchvision", "torchvision.datasets", "torchvision.models", "torchvision.transforms",
         "torchvision.transforms.functional")  # fmt: skip

with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in STUBS}):
    from torch_fidelity import (  # all at once: a second import would make other classes
        feature_extractor_inceptionv3,
        interpolate_compat_tensorflow,
        metric_fid,
        metric_isc,
        metric_kid,
        metric_prc,
        utils,
    )

# tools.peers.inception_peers and benchmarks.fid take these from here.
__all__ = ["feature_extractor_inceptionv3", "interpolate_compat_tensorflow", "numbers", "utils"]

KID = {"kid_subsets": 6, "kid_subset_size": 20}
SPLITS = 5
COVERED = 5


def numbers(made: np.ndarray, real: np.ndarray, logits: np.ndarray) -> dict[str, np.ndarray]:
    """Every number by name; a number with a deviation is a pair."""
    x, y = torch.from_numpy(made), torch.from_numpy(real)
    quiet: dict[str, Any] = {"verbose": False}
    fid = metric_fid.fid_statistics_to_metric(
        metric_fid.fid_features_to_statistics(x), metric_fid.fid_features_to_statistics(y), False
    )
    kid = metric_kid.kid_features_to_metric(x, y, **KID, **quiet)
    scores = metric_isc.isc_features_to_metric(torch.from_numpy(logits), splits=SPLITS)
    covered = metric_prc.prc_features_to_metric(x, y, **quiet)
    with contextlib.redirect_stdout(io.StringIO()):
        around = prdc.compute_prdc(real, made, nearest_k=COVERED)
    found = {
        "fid": fid["frechet_inception_distance"],
        "kid": [kid["kernel_inception_distance_mean"], kid["kernel_inception_distance_std"]],
        "inception_score": [scores["inception_score_mean"], scores["inception_score_std"]],
        "precision_recall": [covered["precision"], covered["recall"]],
        "density_coverage": [around["density"], around["coverage"]],
    }
    return {name: np.asarray(value, np.float64) for name, value in found.items()}
