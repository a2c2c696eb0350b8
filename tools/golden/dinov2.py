"""Writes tests/golden/dinov2: a small DINOv2 of transformers, and what it says of pictures.

PEERS/bin/python -m tools.golden.dinov2      (an environment with requirements-peers.txt)
"""

from pathlib import Path

from safetensors.numpy import save_file

from tools.inputs import random_tensors
from tools.peers import dinov2_peers

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "dinov2"


def main() -> None:
    net = dinov2_peers.network(0)
    net.save_pretrained(GOLDEN)
    grid = random_tensors.pictures(0)[0, :7, :7]
    found = {
        "same_grid": dinov2_peers.answer(net, random_tensors.pictures(0)[:, :84, :84]),
        "smaller_grid": dinov2_peers.answer(net, random_tensors.pictures(0)[:, :56, :56]),
        "larger_grid": dinov2_peers.answer(net, random_tensors.pictures(0)[:, :112, :112]),
        "grid_of_4": dinov2_peers.interpolated(grid, 4, 0.1),
        "grid_of_16": dinov2_peers.interpolated(grid, 16, 0.1),
    }
    save_file(found, GOLDEN / "answers.safetensors")


if __name__ == "__main__":
    main()
