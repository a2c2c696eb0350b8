"""Writes tests/golden/stable_diffusion: configs of small ones, and what diffusers makes of them.

PEERS/bin/python -m tools.golden.sd      (an environment with requirements-peers.txt)

Weights are not kept: they follow from their names and shapes (tools/inputs/random_tensors.py).
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from tools.inputs import sd_inputs
from tools.peers import sd_peers

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "stable_diffusion"
PROMPTS = [sd_inputs.PROMPT, "", sd_inputs.NEGATIVE]


def main() -> None:
    for version in sd_peers.UNETS:
        out = GOLDEN / version
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            pipe = sd_peers.pipeline(version, Path(folder))
            save_file(answers(pipe), out / "answers.safetensors")
            kept(Path(folder), out)


def answers(pipe) -> dict[str, np.ndarray]:
    """What its parts and the whole make of given inputs."""
    given = sd_inputs.of_unet(pipe.unet.config.cross_attention_dim)
    ids, states = sd_peers.states(pipe.tokenizer, pipe.text_encoder, PROMPTS)
    x_T = sd_inputs.noise()
    found = {
        "predicted": sd_peers.predicted(pipe.unet, given),
        "ids": ids.astype(np.int32),
        # of these the first, those around the end, and the last
        "states": np.ascontiguousarray(states[:, [0, 1, 2, 8, 76]]),
        "x_T": x_T,
    }
    for sampler in ("ddim", "dpmpp_2m", "pndm"):
        if sampler == "pndm" and pipe.scheduler.config.prediction_type != "epsilon":
            continue  # of v it takes other means than the paper
        found[sampler] = sd_peers.drawn(pipe, sampler, x_T)
    found["negative"] = sd_peers.drawn(pipe, "ddim", x_T, sd_inputs.NEGATIVE)
    return found


def kept(folder: Path, out: Path) -> None:
    """Copies the small files, and writes the shapes of all tensors."""
    shapes: dict[str, dict[str, list[int]]] = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.suffix == ".safetensors":
            with safe_open(file, "np") as opened:
                keys = list(opened.keys())
                shapes[name] = {key: opened.get_slice(key).get_shape() for key in keys}
        elif file.is_file() and file.name not in ("vocab.json", "merges.txt", "tokenizer.json"):
            found = json.loads(file.read_text())
            found.pop("_name_or_path", None)
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(json.dumps(found, separators=(",", ":")) + "\n")
    (out / "shapes.json").write_text(json.dumps(shapes, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
