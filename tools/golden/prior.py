"""Writes tests/golden/prior: what a small prior of diffusers answers.

PEERS/bin/python -m tools.golden.prior      (an environment with requirements-peers.txt)
"""

import json
from pathlib import Path

from safetensors.numpy import save_file

from tools.peers import prior_peers

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "prior"


def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    net = prior_peers.network()
    (GOLDEN / "shapes.json").write_text(json.dumps(prior_peers.shapes_of(net), indent=0) + "\n")
    save_file(prior_peers.answers(net), GOLDEN / "answers.safetensors")


if __name__ == "__main__":
    main()
