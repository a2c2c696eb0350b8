"""Writes tests/golden/vae: small autoencoders of diffusers, and what they make of pictures.

PEERS/bin/python -m tools.golden.vae      (an environment with requirements-peers.txt)
"""

import json
from pathlib import Path

from safetensors.numpy import save_file

from tools.peers import vae_peers

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "vae"


def main() -> None:
    for kind in vae_peers.SMALL:
        net = vae_peers.network(kind)
        (GOLDEN / kind).mkdir(parents=True, exist_ok=True)
        net.save_config(GOLDEN / kind)
        config = json.loads((GOLDEN / kind / "config.json").read_text())
        config.pop("_name_or_path", None)
        (GOLDEN / kind / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        shapes = {name: list(tensor.shape) for name, tensor in net.state_dict().items()}
        (GOLDEN / kind / "shapes.json").write_text(json.dumps(shapes, indent=0) + "\n")
        save_file(
            vae_peers.answers(kind, net, vae_peers.pictures()),
            GOLDEN / kind / "answers.safetensors",
        )


if __name__ == "__main__":
    main()
