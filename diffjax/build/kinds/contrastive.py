"""Makes the task of comparing pictures with texts from its config, which has other sections."""

import math
from collections.abc import Iterable, Mapping

from ml_collections import ConfigDict

from diffjax.build.inputs import texts
from diffjax.build.models import DTYPES
from diffjax.core.errors import ConfigError, require
from diffjax.encoders import lite0
from diffjax.encoders.clip import vocabulary
from diffjax.encoders.clip.bpe import BytePairs
from diffjax.encoders.clip.encoder import Words
from diffjax.models.clip.backbone import BACKBONES
from diffjax.models.clip.clip import CLIP, FIRST_LOG_SCALE
from diffjax.models.clip.sizes import ACTIVATIONS, CLIPConfig, Told, Tower
from diffjax.models.layers.level import KEPT
from diffjax.tasks.contrastive import KINDS, Contrastive
from diffjax.tasks.task import Params

# The section by which such a config is known.
SECTION = "contrastive"
# What the logits of SigLIP start from (Zhai et al. 2023, sec. 3.2).
SIGMOID_LOG_SCALE, SIGMOID_BIAS = math.log(10.0), -10.0
CHOICES: Mapping[str, Iterable[str]] = {
    "model.kind": ("clip",),
    "model.activation": ACTIVATIONS,
    "contrastive.backbone": ("", *BACKBONES),
    "model.remat": ("none", *KEPT),
    "contrastive.loss": KINDS,
}


def is_contrastive(config: ConfigDict) -> bool:
    """Whether the config trains a CLIP."""
    return SECTION in config


def task_of(config: ConfigDict) -> Contrastive:
    """The task.

    Raises:
      ConfigError: there is no such vocabulary.
    """
    sigmoid = config.contrastive.loss == "sigmoid"
    model = CLIP(
        clip_config_of(config),
        remat=config.model.remat,
        dtype=DTYPES[config.model.dtype],
        first_log_scale=SIGMOID_LOG_SCALE if sigmoid else FIRST_LOG_SCALE,
        first_bias=SIGMOID_BIAS if sigmoid else None,
    )
    return Contrastive(
        name=config.stage,
        model=model,
        kind=config.contrastive.loss,
        chunk=config.contrastive.chunk,
        shift_px=config.contrastive.shift_px,
        drop=config.contrastive.drop,
    )


def clip_config_of(config: ConfigDict) -> CLIPConfig:
    """The sizes of the network.

    Raises:
      ConfigError: there is no such vocabulary or text encoder.
    """
    model, told = config.model, "text" in config
    return CLIPConfig(
        image=Tower(model.image_width, 0, 1, 0)
        if config.contrastive.backbone
        else _tower(config, "image"),
        text=Tower(model.text_width, 0, 1, 0) if told else _tower(config, "text"),
        size_px=config.data.size_px,
        patch=1 if config.contrastive.backbone else model.patch,
        embed=model.embed,
        vocabulary=0 if told else num_tokens(config),
        length=config.text.max_tokens if told else config.tokens.length,
        activation=model.activation,
        noised=config.contrastive.noised,
        backbone=config.contrastive.backbone,
        told=Told(config.text.encoder, texts.text_width_of(config)) if told else None,
    )


def vectors_of(config: ConfigDict) -> lite0.Vectors | None:
    """What makes the column `vector`, if the CLIP has a backbone."""
    return lite0.Vectors(config.data.size_px) if config.contrastive.backbone else None


def whole(config: ConfigDict, params: Params) -> Params:
    """The trained parameters with those of the backbone, which training does not hold.

    Raises:
      InputError: the backbone's weights are not installed.
    """
    if not config.contrastive.backbone:
        return params
    return {**params, "image": {**params["image"], "backbone": lite0.below_classes(lite0.load())}}


def _tower(config: ConfigDict, name: str) -> Tower:
    width, layers, heads = (config.model[f"{name}_{part}"] for part in ("width", "layers", "heads"))
    return Tower(width, layers, heads, 4 * width)


def num_tokens(config: ConfigDict) -> int:
    """The number of ids; OpenAI's is known without its file, so that any machine can plan.

    Raises:
      ConfigError: there is no such vocabulary.
    """
    if config.tokens.vocabulary == vocabulary.OPENAI:
        return vocabulary.NUM_OPENAI
    return tokenizer_of(config).vocabulary


def words_of(config: ConfigDict) -> Words:
    """What reads the captions.

    Raises:
      ConfigError: there is no such vocabulary or text encoder.
    """
    return texts.encoder_of(config) if "text" in config else tokenizer_of(config)


def tokenizer_of(config: ConfigDict) -> BytePairs:
    """The tokenizer of config.tokens.

    Raises:
      ConfigError: there is no such vocabulary.
    """
    try:
        return vocabulary.load(config.tokens.vocabulary)
    except ValueError as error:
        raise ConfigError("tokens.vocabulary", config.tokens.vocabulary, str(error)) from None


def check(config: ConfigDict) -> None:
    """Checks what only such a config has.

    Raises:
      ConfigError: a value is not allowed.
    """
    size_px, crop_px, patch = config.data.size_px, config.data.crop_px, config.model.patch
    backbone, drop = config.contrastive.backbone, config.contrastive.drop
    require(bool(backbone) or size_px % patch == 0, "data.size_px", size_px,
            f"must be a multiple of {patch}, the model.patch")  # fmt: skip
    require(crop_px in (0, size_px), "data.crop_px", crop_px,
            "must be 0: a CLIP takes whole pictures; contrastive.shift_px moves them")  # fmt: skip
    told = "text" in config
    require(told or "tokens" in config, "tokens", None, "a CLIP reads texts")
    if told:
        check_told(config)
    else:
        require(config.tokens.length >= 3, "tokens.length", config.tokens.length,
                "at least 3: the start, a token and the end")  # fmt: skip
        num_tokens(config)
    require(bool(config.data.caption_key), "data.caption_key", "", "a CLIP needs captions")
    require(config.train.accumulate == 1, "train.accumulate", config.train.accumulate,
            "must be 1: a CLIP compares the examples of a batch with each other")  # fmt: skip
    if backbone:
        check_backbone(config)
    require(not drop or bool(backbone) or told, "contrastive.drop", drop,
            "must be 0 without a backbone or a text.encoder, whose vectors it drops")  # fmt: skip
    shift = config.contrastive.shift_px
    require(
        shift < size_px, "contrastive.shift_px", shift, f"must be below data.size_px, {size_px}"
    )
    trained = {"image": not backbone, "text": not told}
    for name in (name for name, whole in trained.items() if whole):
        tower = _tower(config, name)
        require(
            tower.width % tower.heads == 0,
            f"model.{name}_heads",
            tower.heads,
            f"must divide model.{name}_width, {tower.width}",
        )


def check_told(config: ConfigDict) -> None:
    """Refuses what a CLIP that is told states has no use for."""
    drop, backbone = config.text.drop, config.contrastive.backbone
    require(bool(backbone), "contrastive.backbone", backbone,
            "want one beside a section text: no folder holds such a CLIP alone")  # fmt: skip
    require("tokens" not in config, "tokens", "a section", "a CLIP reads tokens or text, not both")
    require(drop == 0, "text.drop", drop, "must be 0: a CLIP trains with every text")


def check_backbone(config: ConfigDict) -> None:
    """Refuses what changes pictures: the backbone sees each of them once, as it is."""
    once = "a contrastive.backbone sees each picture once, as it is: must be"
    for key, wanted in (("contrastive.shift_px", 0), ("contrastive.noised", False),
                        ("data.flip", False), ("data.aspect", "centre")):  # fmt: skip
        section, _, name = key.partition(".")
        value = config[section][name]
        require(value == wanted, key, value, f"{once} {wanted!r}")
