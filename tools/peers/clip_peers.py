"""CLIPs of open_clip and transformers with random weights, and what they say of an input.

Needs requirements-peers.txt. open_clip imports torchvision for layers that no ViT has; a stand-in
serves where torchvision is not installed or does not fit PyTorch.
"""

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

# For parity: widths and depths that differ in every number.
SIZES: dict[str, dict[str, Any]] = {
    "small": dict(size=16, patch=8, width=32, layers=1, heads=2, text_width=24, text_layers=2,
                  text_heads=3, embed=20, length=11, vocabulary=60),
    "tall": dict(size=24, patch=4, width=16, layers=3, heads=4, text_width=32, text_layers=1,
                 text_heads=2, embed=8, length=7, vocabulary=40),
    "wide": dict(size=32, patch=16, width=64, layers=2, heads=1, text_width=64, text_layers=2,
                 text_heads=1, embed=64, length=16, vocabulary=100),
}  # fmt: skip


def inputs(size: dict[str, Any], rows: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """(pictures [b s s 3] in [-1, 1], token ids [b l] that end with the highest id)."""
    random = np.random.default_rng(7)
    image = random.uniform(-1, 1, (rows, size["size"], size["size"], 3)).astype(np.float32)
    tokens = np.zeros((rows, size["length"]), np.int64)
    for row in range(rows):
        count = size["length"] - 2 * row
        tokens[row, :count] = random.integers(1, size["vocabulary"] - 2, count)
        tokens[row, 0], tokens[row, count - 1] = size["vocabulary"] - 2, size["vocabulary"] - 1
    return image, tokens


def as_pixels(image: np.ndarray, mean: Any, std: Any) -> torch.Tensor:
    """What the peers take: [b 3 s s], scaled."""
    scaled = ((image.astype(np.float64) + 1) / 2 - np.array(mean)) / np.array(std)
    return torch.tensor(scaled.transpose(0, 3, 1, 2), dtype=torch.float32)


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Random weights for every parameter, so that none is at zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if name == "logit_scale":
                value.fill_(2.0)
            elif value.ndim > 1:
                value.copy_(noise * 1.5 * value[0].numel() ** -0.5)
            else:
                value.copy_(0.3 * noise + (1.0 if "weight" in name else 0.0))


def of_transformers(size: dict[str, Any], activation: str = "quick_gelu") -> Any:
    """A CLIPModel of transformers."""
    config = transformers.CLIPConfig(
        projection_dim=size["embed"],
        text_config=dict(
            vocab_size=size["vocabulary"], hidden_size=size["text_width"],
            intermediate_size=4 * size["text_width"], num_hidden_layers=size["text_layers"],
            num_attention_heads=size["text_heads"], max_position_embeddings=size["length"],
            hidden_act=activation, projection_dim=size["embed"],
            bos_token_id=size["vocabulary"] - 2, eos_token_id=size["vocabulary"] - 1,
            pad_token_id=0,
        ),
        vision_config=dict(
            hidden_size=size["width"], intermediate_size=4 * size["width"],
            num_hidden_layers=size["layers"], num_attention_heads=size["heads"],
            image_size=size["size"], patch_size=size["patch"], hidden_act=activation,
            projection_dim=size["embed"],
        ),
    )  # fmt: skip
    model = transformers.CLIPModel(config).eval()
    randomise(model)
    return model


def open_clip() -> ModuleType:
    """The package open_clip."""
    try:
        importlib.import_module("torchvision")
    except Exception:  # built for another PyTorch: many types of errors
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in STUBS:
            parent, _, last = name.rpartition(".")
            sys.modules[name] = _stand_in(name)
            if parent:
                setattr(sys.modules[parent], last, sys.modules[name])
    return importlib.import_module("open_clip")


STUBS = ("torchvision", "torchvision.ops", "torchvision.ops.misc", "torchvision.transforms",
         "torchvision.transforms.functional", "torchvision.transforms.v2")  # fmt: skip


class _Names(type):
    """Classes whose constants in capitals are their own names, like an enumeration's."""

    def __getattr__(cls, name: str) -> str:
        if name.isupper():
            return name
        raise AttributeError(name)


def _stand_in(name: str) -> ModuleType:
    """A module all of whose names are classes that do nothing."""
    module = ModuleType(name)
    module.__path__ = []
    module.__spec__ = importlib.util.spec_from_loader(name, loader=None)

    def absent(attribute: str) -> type:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return _Names(attribute, (torch.nn.Module,), {})

    module.__getattr__ = absent  # type: ignore[method-assign]
    return module


def of_open_clip(size: dict[str, Any], quick_gelu: bool = False, custom_text: bool = False) -> Any:
    """A CLIP of open_clip."""
    package = open_clip()
    kind = package.model.CustomTextCLIP if custom_text else package.model.CLIP
    model = kind(**model_cfg(size, quick_gelu)).eval()
    randomise(model)
    return model


def model_cfg(size: dict[str, Any], quick_gelu: bool) -> dict[str, Any]:
    """What open_clip_config.json says of a network."""
    return dict(
        embed_dim=size["embed"],
        vision_cfg=dict(
            image_size=size["size"], layers=size["layers"], width=size["width"],
            patch_size=size["patch"], head_width=size["width"] // size["heads"],
        ),
        text_cfg=dict(
            context_length=size["length"], vocab_size=size["vocabulary"],
            width=size["text_width"], heads=size["text_heads"], layers=size["text_layers"],
        ),
        quick_gelu=quick_gelu,
    )  # fmt: skip


def save_open_clip(model: Any, size: dict[str, Any], quick_gelu: bool, folder: Path) -> None:
    """A folder as open_clip pushes it to the hub."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, str(folder / "open_clip_model.safetensors"))
    said = {
        "model_cfg": model_cfg(size, quick_gelu),
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(said))


def answers(model: Any, pixels: torch.Tensor, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Unit features of both towers, by either package."""
    ids = torch.tensor(tokens)
    with torch.no_grad():
        if isinstance(model, transformers.CLIPModel):
            out = model(input_ids=ids, pixel_values=pixels)
            states = out.text_model_output.last_hidden_state
            found = {"image": out.image_embeds, "text": out.text_embeds, "states": states}
        else:
            found = {
                "image": model.encode_image(pixels, normalize=True),
                "text": model.encode_text(ids, normalize=True),
            }
    return {name: value.numpy() for name, value in found.items()}
