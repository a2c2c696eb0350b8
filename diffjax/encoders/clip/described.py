"""What the configs beside a CLIP's weights say of it, beyond what the shapes tell."""

from pathlib import Path
from typing import NamedTuple

from diffjax.core.json_types import Json, JsonObject
from diffjax.models.clip.backbone import BACKBONES
from diffjax.models.clip.sizes import ACTIVATIONS, MEAN, STD, Activation, CLIPConfig

Triple = tuple[float, float, float]


class Said(NamedTuple):
    """Heads (0: as many of 64 as fill the width), the activation, and how pixels are scaled.

    backbone, size_px: of a CLIP on a backbone, whose tensors do not tell the side of its pictures.
    encoder, length, mark: of a CLIP that is told states, their encoder, the most tokens and the
    encoder's fingerprint.
    """

    image_heads: int = 0
    text_heads: int = 0
    activation: Activation = "quick_gelu"
    mean: Triple = MEAN
    std: Triple = STD
    backbone: str = ""
    size_px: int = 0
    encoder: str = ""
    length: int = 0
    mark: str = ""


# What config.json calls a CLIP on a backbone, which no other package reads; the most that its
# pictures and texts may have.
ON_BACKBONE, MAX_SIDE_PX, MAX_LENGTH = "diffjax_clip_on_backbone", 1024, 4096
# OpenAI's files have no config; all their networks are alike in this.
OPENAI = Said()


def of_hugging_face(config: JsonObject, pixels: JsonObject, file: Path) -> Said:
    """From config.json, and preprocessor_config.json if there is one.

    Raises:
      ValueError: it is not a CLIP, or one that cannot be run here.
    """
    if config.get("model_type") == ON_BACKBONE:
        return _of_backbone(config, file)
    if config.get("model_type") != "clip":
        raise ValueError(f"{file}: model_type={config.get('model_type')!r}, want 'clip'")
    image, text = (_part(config, name) for name in ("vision_config", "text_config"))
    acts = {part.get("hidden_act", "quick_gelu") for part in (image, text)}
    eps = {part.get("layer_norm_eps", 1e-5) for part in (image, text)}
    if len(acts) != 1 or eps != {1e-5}:
        raise ValueError(f"{file}: hidden_act {acts}, layer_norm_eps {eps}: want one and 1e-05")
    # where a key is missing, transformers has these
    heads = [part.get("num_attention_heads", n) for part, n in ((image, 12), (text, 8))]
    return Said(
        _whole(heads[0], file, "vision heads"),
        _whole(heads[1], file, "text heads"),
        _activation(acts.pop(), file),
        _triple(pixels.get("image_mean"), MEAN, file),
        _triple(pixels.get("image_std"), STD, file),
    )


def _of_backbone(config: JsonObject, file: Path) -> Said:
    image, text = (_part(config, name) for name in ("vision_config", "text_config"))
    name, side = image.get("backbone"), _whole(image.get("image_size"), file, "image_size")
    if not isinstance(name, str) or name not in BACKBONES:
        raise ValueError(f"{file}: backbone={name!r}, want one of {', '.join(BACKBONES)}")
    if side > MAX_SIDE_PX:
        raise ValueError(f"{file}: image_size is {side}, want at most {MAX_SIDE_PX}")
    activation = _activation(text.get("hidden_act"), file)
    if "encoder" not in text:
        heads = _whole(text.get("num_attention_heads"), file, "text heads")
        return Said(text_heads=heads, activation=activation, backbone=name, size_px=side)
    encoder, mark = text["encoder"], text.get("encoder_fingerprint")
    if not isinstance(encoder, str) or not isinstance(mark, str):
        raise ValueError(f"{file}: encoder={encoder!r} of {mark!r}, want a name and a fingerprint")
    length = _whole(text.get("max_position_embeddings"), file, "max_position_embeddings")
    if length > MAX_LENGTH:
        raise ValueError(f"{file}: max_position_embeddings is {length}, want at most {MAX_LENGTH}")
    return Said(activation=activation, backbone=name, size_px=side, encoder=encoder,
                length=length, mark=mark)  # fmt: skip


def of_open_clip(config: JsonObject, file: Path) -> Said:
    """From open_clip_config.json.

    Raises:
      ValueError: it is not a CLIP that can be run here.
    """
    model, pixels = _part(config, "model_cfg"), _part(config, "preprocess_cfg")
    image, text = (_part(model, name) for name in ("vision_cfg", "text_cfg"))
    strange = sorted({*image, *text, *model} & UNLIKE)
    if strange:
        raise ValueError(f"{file}: {', '.join(strange)}: a network unlike the paper's")
    width, head_width = image.get("width", 768), image.get("head_width", 64)
    heads = _whole(width, file, "width") // _whole(head_width, file, "head_width")
    return Said(
        heads,
        _whole(text.get("heads", 8), file, "text heads"),
        "quick_gelu" if model.get("quick_gelu") else "gelu",
        _triple(pixels.get("mean"), MEAN, file),
        _triple(pixels.get("std"), STD, file),
    )


# Keys of open_clip's configs whose networks have other layers.
UNLIKE = {
    "timm_model_name", "hf_model_name", "ls_init_value", "attentional_pool", "pool_type",
    "no_ln_pre", "proj_bias", "no_causal_mask", "multimodal_cfg", "embed_cls", "act_kwargs",
}  # fmt: skip


def hugging_face(config: CLIPConfig, mark: str = "") -> JsonObject:
    """config.json of a CLIP. mark: the fingerprint of the text encoder whose states it is told."""

    def part(which: str, **more: Json) -> JsonObject:
        tower = config.image if which == "image" else config.text
        return {
            "hidden_size": tower.width,
            "intermediate_size": tower.hidden,
            "num_hidden_layers": tower.layers,
            "num_attention_heads": tower.heads,
            "hidden_act": config.activation,
            "layer_norm_eps": 1e-5,
            "projection_dim": config.embed,
            **more,
        }

    end = config.vocabulary - 1
    image = part("image", image_size=config.size_px, patch_size=config.patch)
    named: JsonObject = {"architectures": ["CLIPModel"], "model_type": "clip"}
    if config.backbone:
        image = {"backbone": config.backbone, "image_size": config.size_px}
        named = {"model_type": ON_BACKBONE}
    text = part(
        "text",
        vocab_size=config.vocabulary,
        max_position_embeddings=config.length,
        bos_token_id=end - 1,
        eos_token_id=end,
    )
    if config.told:
        text = {
            "encoder": config.told.encoder,
            "encoder_fingerprint": mark,
            "max_position_embeddings": config.length,
            "hidden_act": config.activation,
        }
    return {
        **named,
        "projection_dim": config.embed,
        "vision_config": image,
        "text_config": text,
    }


def preprocessor(config: CLIPConfig) -> JsonObject:
    """preprocessor_config.json of a CLIP."""
    return {
        "do_normalize": True,
        "do_rescale": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
        "size": {"shortest_edge": config.size_px},
        "crop_size": {"height": config.size_px, "width": config.size_px},
        "resample": 3,
    }


def _part(config: JsonObject, name: str) -> JsonObject:
    found = config.get(name, {})
    return found if isinstance(found, dict) else {}


def _activation(value: Json, file: Path) -> Activation:
    for known in ACTIVATIONS:
        if value == known:
            return known
    raise ValueError(f"{file}: hidden_act={value!r}, want one of {', '.join(ACTIVATIONS)}")


def _whole(value: Json, file: Path, what: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise ValueError(f"{file}: {what} is {value!r}, want a whole number from 1 up")


def _triple(value: Json, default: Triple, file: Path) -> Triple:
    match value:
        case None:
            return default
        case [int() | float() as red, int() | float() as green, int() | float() as blue]:
            return float(red), float(green), float(blue)
    raise ValueError(f"{file}: {value!r}, want three numbers, for red, green and blue")
