"""Writes tests/golden/karlo: what a small decoder, upsampler and text tower of others answer.

PEERS/bin/python -m tools.golden.karlo      (an environment with requirements-peers.txt)
"""

import json
import tempfile
from pathlib import Path

from safetensors.numpy import save_file

from tools.peers import karlo_peers

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "karlo"
TOWER = "text_encoder"


def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    nets = karlo_peers.networks()
    with tempfile.TemporaryDirectory() as folder:
        tokens, tower = karlo_peers.tower(Path(folder))
    shapes = {part: karlo_peers.shapes_of(net) for part, net in {**nets, TOWER: tower}.items()}
    (GOLDEN / "shapes.json").write_text(json.dumps(shapes, indent=0) + "\n")
    save_file(karlo_peers.answers(nets), GOLDEN / "answers.safetensors")
    save_file(karlo_peers.texts_answers(tokens, tower), GOLDEN / "texts.safetensors")


if __name__ == "__main__":
    main()
