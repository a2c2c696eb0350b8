"""python -m tools.peers.lpips_peers: writes what the package lpips says to tests/golden/lpips.json.

The weights are random. Needs requirements-peers.txt.

lpips takes its VGG16 from torchvision; a stand-in with the same layers serves in its place.
"""

import json
import sys
import types

import numpy as np
import torch

from diffjax.models.perceptual import VGG16
from tools.inputs import lpips_inputs


def features() -> torch.nn.Sequential:
    """VGG16's convolutional layers."""
    layers: list[torch.nn.Module] = []
    channels = 3
    for widths in VGG16:
        for width in widths:
            layers += [torch.nn.Conv2d(channels, width, 3, padding=1), torch.nn.ReLU(inplace=True)]
            channels = width
        layers.append(torch.nn.MaxPool2d(2, 2))
    return torch.nn.Sequential(*layers)


def distances(network: dict[str, np.ndarray], linear: dict[str, np.ndarray], a: np.ndarray,
              b: np.ndarray) -> np.ndarray:  # fmt: skip
    """Of each pair of pictures [b h w 3] in [-1, 1]."""
    models = types.ModuleType("torchvision.models")
    models.vgg16 = lambda pretrained=False: types.SimpleNamespace(features=features())  # type: ignore[attr-defined]
    stand_in = types.ModuleType("torchvision")
    stand_in.models = models  # type: ignore[attr-defined]
    before = {name: sys.modules.get(name) for name in ("torchvision", "torchvision.models")}
    sys.modules |= {"torchvision": stand_in, "torchvision.models": models}
    try:
        import lpips

        net = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False).eval()
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    state = {name: torch.from_numpy(x) for name, x in linear.items()}
    ours = net.state_dict()
    for name, x in network.items():
        (found,) = [n for n in ours if n.startswith("net.slice") and n.endswith(
            "." + name.removeprefix("features."))]  # fmt: skip
        state[found] = torch.from_numpy(x)
    net.load_state_dict(state, strict=False)
    with torch.inference_mode():
        given = [torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in (a, b)]
        return net(*given).numpy().reshape(-1)


def main() -> None:
    """Write the file."""
    network, linear, a, b = lpips_inputs.inputs()
    found = [float(x) for x in distances(network, linear, a, b)]
    lpips_inputs.GOLDEN.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
