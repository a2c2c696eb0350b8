"""Writes tests/golden/karlo: what a small decoder and upsampler of diffusers answer.

PEERS/bin/python -m tools.make_golden_karlo      (an environment with requirements-peers.txt)
"""

import json
from pathlib import Path

from safetensors.numpy import save_file

from tools import karlo_peers

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden" / "karlo"


def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    nets = karlo_peers.networks()
    shapes = {part: karlo_peers.shapes_of(net) for part, net in nets.items()}
    (GOLDEN / "shapes.json").write_text(json.dumps(shapes, indent=0) + "\n")
    save_file(karlo_peers.answers(nets), GOLDEN / "answers.safetensors")


if __name__ == "__main__":
    main()
