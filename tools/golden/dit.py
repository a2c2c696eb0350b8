"""Writes tests/golden/dit: what small diffusion transformers of diffusers answer.

PEERS/bin/python -m tools.golden.dit      (an environment with requirements-peers.txt)
"""

import json
from pathlib import Path

from safetensors.numpy import save_file

from tools.inputs import dit_inputs
from tools.peers import dit_peers

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "dit"


def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    net = dit_peers.network()
    shapes = {"classes": dit_peers.shapes_of(net)}
    answers = {"classes": dit_peers.answer(net, dit_inputs.given())}
    for name, last, qk_norm in (("joint", False, True), ("joint_last", True, False)):
        block = dit_peers.joint_block(last=last, qk_norm=qk_norm)
        shapes[name] = dit_peers.shapes_of(block)
        after = dit_peers.joint_answer(block, dit_inputs.streams())
        answers |= {f"{name}_{stream}": x for stream, x in after.items()}
    (GOLDEN / "shapes.json").write_text(json.dumps(shapes, indent=0) + "\n")
    save_file(answers, GOLDEN / "answers.safetensors")


if __name__ == "__main__":
    main()
