"""Writes tests/golden/metrics.safetensors: features, and what torch-fidelity and prdc say of them.

PEERS/bin/python -m tools.make_golden_metrics      (an environment with requirements-peers.txt)
"""

from pathlib import Path

from safetensors.numpy import save_file

from tools import metric_features, metric_peers

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"


def main() -> None:
    made, real, logits = metric_features.features(seed=0)
    given = {"made": made, "real": real, "logits": logits}
    save_file(given | metric_peers.numbers(made, real, logits), GOLDEN / "metrics.safetensors")


if __name__ == "__main__":
    main()
