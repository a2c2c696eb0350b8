"""The text encoders of Stable Diffusion: CLIP's text tower, read at its last or penultimate layer.

Version 1 reads the last layer of OpenAI's ViT-L/14, version 2 the penultimate one of open_clip's
ViT-H/14; both after the last norm. Folders of version 2 lack the layer that is not read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffjax.core.json_types import Json, JsonObject
from diffjax.core.trees import Params
from diffjax.encoders.clip import names
from diffjax.encoders.clip.names import Layout
from diffjax.encoders.matching import SourceOf, Tensor, matched, shapes_of
from diffjax.encoders.source import Source
from diffjax.models.clip.sizes import ACTIVATIONS, Activation, Tower
from diffjax.models.clip.states import TextStates

PREFIX = "text_model."  # of all names, but not in files of transformers 5
LARGEST = 2**20  # of what a config says
# Buffers of old files.
IGNORED = ("embeddings.position_ids", "text_model.embeddings.position_ids", "attn_mask")
# What open_clip's tower has for other uses, beside the layer that is not read.
UNREAD = ("text_projection", "logit_scale", "transformer.resblocks.")


class Loaded(NamedTuple):
    """A text encoder of others. config: the config.json of transformers.

    prefix: of its names in Hugging Face's layout. unread: tensors of a single file that make no
    difference, by their names there.
    """

    model: TextStates
    params: Params
    config: JsonObject
    layout: Layout = "hugging_face"
    prefix: str = PREFIX
    unread: Mapping[str, Tensor] = {}

    def source(self, layout: Layout) -> SourceOf:
        """Where each parameter comes from in a layout."""
        return sources(layout, self.prefix)


def sources(layout: Layout, prefix: str = PREFIX) -> SourceOf:
    """Where the parameters of `TextStates` come from."""

    def source_of(ours: str) -> Source:
        found = names.source_of(layout, f"text/{ours}")
        if layout == "open_clip" or prefix == PREFIX:
            return found
        return found._replace(names=tuple(prefix + x.removeprefix(PREFIX) for x in found.names))

    return source_of


def of_config(config: JsonObject, stored: Mapping[str, Tensor], file: Path, where: Path) -> Loaded:
    """The text encoder that a config.json of transformers describes.

    Raises:
      ValueError: it is another network, or the tensors are not those of this one; one line.
    """
    if config.get("model_type") != "clip_text_model":
        raise ValueError(
            f"{file}: model_type is {config.get('model_type')!r}, want 'clip_text_model'"
        )
    if config.get("layer_norm_eps", 1e-5) != 1e-5:
        raise ValueError(f"{file}: layer_norm_eps is {config['layer_norm_eps']!r}, want 1e-05")
    known: dict[str, Activation] = {name: name for name in ACTIVATIONS}
    activation = known.get(str(config.get("hidden_act", "quick_gelu")))
    if activation is None:
        raise ValueError(
            f"{file}: hidden_act is {config['hidden_act']!r}, want one of {', '.join(known)}"
        )

    def size(name: str, default: int) -> int:
        return _whole(config.get(name, default), name, file)

    # where a key is missing, transformers has these
    tower = Tower(
        size("hidden_size", 512), size("num_hidden_layers", 12), size("num_attention_heads", 8),
        size("intermediate_size", 2048),
    )  # fmt: skip
    if tower.layers > len(stored) or tower.width % tower.heads:
        raise ValueError(f"{file}: {tower.layers} layers of {tower.width} with {tower.heads} heads")
    model = TextStates(
        tower, size("vocab_size", 49_408), size("max_position_embeddings", 77), activation
    )
    stored = {name: one for name, one in stored.items() if name not in IGNORED}
    prefix = PREFIX if any(name.startswith(PREFIX) for name in stored) else ""
    params, left = _params(model, sources("hugging_face", prefix), stored, where)
    if left:
        raise ValueError(f"{where}: {min(left)} is not of this text encoder")
    return Loaded(model, params, config, prefix=prefix)


def of_tensors(stored: Mapping[str, Tensor], layout: Layout, where: Path) -> Loaded:
    """The text encoder of a single file: version 1 in Hugging Face's names, 2 in open_clip's.

    Raises:
      ValueError: it is another network; one line.
    """
    stored = {name: one for name, one in stored.items() if name not in IGNORED}
    source_of = sources(layout)

    def shape(ours: str) -> tuple[int, ...]:
        name = source_of(ours).names[0]
        if name not in stored or len(stored[name].shape) != 2:
            raise ValueError(f"{where}: no tensor {name}: no text encoder of Stable Diffusion")
        return tuple(stored[name].shape)

    up = lambda i: source_of(f"blocks/block_{i}/up/kernel").names[0]  # noqa: E731
    layers = next(i for i in range(len(stored) + 1) if up(i) not in stored)
    (vocabulary, width), length = shape("tokens"), shape("positions")[0]
    second = layout == "open_clip"
    tower = Tower(width, layers, max(width // 64, 1), shape("blocks/block_0/up/kernel")[0])
    model = TextStates(
        tower, vocabulary, length, "gelu" if second else "quick_gelu", skip=int(second)
    )
    params, left = _params(model, source_of, stored, where)
    if odd := [name for name in left if not (second and name.startswith(UNREAD))]:
        raise ValueError(f"{where}: {min(odd)} is not of a text encoder of Stable Diffusion")
    return Loaded(model, params, config_of(model), layout, unread=left)


def config_of(model: TextStates) -> JsonObject:
    """The config.json of transformers; the layers that are not read are not counted."""
    tower, end = model.tower, model.vocabulary - 1
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "hidden_size": tower.width,
        "intermediate_size": tower.hidden,
        "num_hidden_layers": tower.layers - model.skip,
        "num_attention_heads": tower.heads,
        "hidden_act": model.activation,
        "layer_norm_eps": 1e-5,
        "vocab_size": model.vocabulary,
        "max_position_embeddings": model.length,
        "bos_token_id": end - 1,
        "eos_token_id": end,
        "torch_dtype": "float32",
    }


def _params(
    model: TextStates, source_of: SourceOf, stored: Mapping[str, Tensor], where: Path
) -> tuple[Params, dict[str, Tensor]]:
    wanted = shapes_of(model, jax.ShapeDtypeStruct((1, 1), jnp.int32))
    return matched(wanted, source_of, stored, where, "this text encoder")


def _whole(value: Json, name: str, file: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= LARGEST:
        raise ValueError(f"{file}: {name} is {value!r}, want a whole number from 1 to {LARGEST}")
    return value
