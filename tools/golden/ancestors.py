"""Writes tests/golden/ancestors: what small networks of ADM's layout and of diffusers answer.

PEERS/bin/python -m tools.golden.ancestors   (an environment with requirements-peers.txt)

Weights are not kept: they follow from their names and shapes (tools/inputs/random_tensors.py).
"""

import json
import tempfile
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import save_file

from tools.inputs import ancestors_inputs
from tools.peers import ancestors_peers

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "ancestors"
SHORT = 50  # steps of the shorter trajectory
NAME = "ddpm"  # of the task, whose keys its noise comes from


def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    given = ancestors_inputs.given()
    nets = ancestors_inputs.NETS
    shapes = {name: ancestors_peers.shapes_of(net) for name, net in nets.items()}
    answers = {name: ancestors_peers.answer(net, given) for name, net in nets.items()}
    with tempfile.TemporaryDirectory() as folder:
        pipe = ancestors_peers.pipeline(Path(folder))
        answers["diffusers"] = ancestors_peers.predicted(pipe, given)
        for steps in (SHORT, ancestors_inputs.STEPS):
            noises = ancestors_inputs.noises(NAME, steps)
            answers[f"drawn_{steps}"] = ancestors_peers.drawn(pipe, *noises)
        for name in ("unet/config.json", "scheduler/scheduler_config.json", "model_index.json"):
            found = json.loads((Path(folder) / name).read_text())
            found.pop("_name_or_path", None)
            file = GOLDEN / name.rpartition("/")[2]
            file.write_text(json.dumps(found, separators=(",", ":")) + "\n")
        weights = next((Path(folder) / "unet").glob("*.safetensors"))
        with safe_open(weights, "np") as opened:
            shapes["diffusers"] = {
                key: tuple(opened.get_slice(key).get_shape())
                for key in opened.keys()  # noqa: SIM118
            }
    (GOLDEN / "shapes.json").write_text(json.dumps(shapes, separators=(",", ":")) + "\n")
    save_file(answers, GOLDEN / "answers.safetensors")


if __name__ == "__main__":
    main()
