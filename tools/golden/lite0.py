"""Writes tests/golden/lite0.safetensors: what PyTorch's EfficientNet-lite0 says of random pictures.

PEERS/bin/python -m tools.golden.lite0      (an environment with requirements-peers.txt)
"""

import json
from pathlib import Path

from safetensors.numpy import save_file

from tools.peers import lite0_peers

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"


def main() -> None:
    features, logits = lite0_peers.answer(seed=0)
    metadata = {
        "shapes": json.dumps(lite0_peers.shapes())
    }  # so that the fast test needs no PyTorch
    found = {"features": features, "logits": logits}
    save_file(found, GOLDEN / "lite0.safetensors", metadata)


if __name__ == "__main__":
    main()
