"""Writes tests/golden/inception.safetensors: what torch-fidelity's network says of pictures.

PEERS/bin/python -m tools.golden.inception      (an environment with requirements-peers.txt)
"""

import json
from pathlib import Path

from safetensors.numpy import save_file

from tools.inputs import random_tensors
from tools.peers import inception_peers

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"


def main() -> None:
    small = random_tensors.blocks(0, 2, 10, 13)
    found = inception_peers.answer(0, small, inception_peers.SMALL_PX)
    found["resized"] = inception_peers.resized(small[:1], 31)
    metadata = {
        "shapes": json.dumps(inception_peers.shapes()),
        "side_px": str(inception_peers.SMALL_PX),
    }
    save_file(found, GOLDEN / "inception.safetensors", metadata)


if __name__ == "__main__":
    main()
