"""Writes tests/golden/glide: what small networks of GLIDE's layout answer.

PEERS/bin/python -m tools.golden.glide   (an environment with requirements-peers.txt)

Weights are not kept: they follow from their names and shapes (tools/inputs/random_tensors.py).
"""

import json
from pathlib import Path

from safetensors.numpy import save_file

from tools.inputs import glide_inputs
from tools.peers import glide_peers

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "glide"


def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    given, nets = glide_inputs.given(), glide_inputs.NETS
    shapes = {name: glide_peers.shapes_of(net) for name, net in nets.items()}
    answers = {name: glide_peers.answer(net, given) for name, net in nets.items()}
    answers |= glide_peers.vectors(glide_inputs.CLIP, {**given, **glide_inputs.texts()})
    clip = {f"clip_{k}": own for k, own in glide_peers.shapes_of_clip(glide_inputs.CLIP).items()}
    # beside the channels of their inputs, all have the tensors of the first
    first = shapes.pop("base")
    others = {name: {k: s for k, s in own.items() if first[k] != s} for name, own in shapes.items()}
    text = json.dumps({"base": first, **others, **clip}, separators=(",", ":"))
    (GOLDEN / "shapes.json").write_text(text + "\n")
    save_file(answers, GOLDEN / "answers.safetensors")


if __name__ == "__main__":
    main()
