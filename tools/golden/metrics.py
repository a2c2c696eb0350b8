"""Writes tests/golden/metrics.safetensors: features, and what torch-fidelity and prdc say of them.

PEERS/bin/python -m tools.golden.metrics      (an environment with requirements-peers.txt)
"""

from pathlib import Path

from safetensors.numpy import save_file

from tools.inputs import metric_features
from tools.peers import metric_peers

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"


def main() -> None:
    made, real, logits = metric_features.features(seed=0)
    given = {"made": made, "real": real, "logits": logits}
    save_file(given | metric_peers.numbers(made, real, logits), GOLDEN / "metrics.safetensors")


if __name__ == "__main__":
    main()
