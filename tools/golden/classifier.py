"""Writes tests/golden/ancestors/classifier.safetensors: a classifier's logits and its gradient.

PEERS/bin/python -m tools.golden.classifier   (an environment with requirements-peers.txt)

The weights are not kept: they follow from their names and shapes (tools/inputs/random_tensors.py).
"""

import json
from pathlib import Path

from safetensors.numpy import save_file

from tools.inputs import ancestors_inputs
from tools.peers import ancestors_peers

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "ancestors"


def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    given = ancestors_inputs.given()
    classes = ancestors_inputs.CLASSES
    logits, gradient = ancestors_peers.classified(given, classes)
    shapes = ancestors_peers.shapes_of_classifier(classes, ancestors_inputs.SIDE)
    (GOLDEN / "classifier.json").write_text(json.dumps(shapes, separators=(",", ":")) + "\n")
    save_file({"logits": logits, "gradient": gradient}, GOLDEN / "classifier.safetensors")


if __name__ == "__main__":
    main()
