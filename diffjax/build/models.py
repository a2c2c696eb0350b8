"""Makes the network of a config; all fields are checked before anything is traced."""

from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from diffjax.build.inputs import texts
from diffjax.build.options.config import one_of
from diffjax.core.errors import ConfigError, require
from diffjax.models.clip.sizes import Tower
from diffjax.models.clip_unet import ClipUNet
from diffjax.models.dit import DiT
from diffjax.models.efficient_unet import EfficientUNet
from diffjax.models.latent_unet import LatentUNet
from diffjax.models.layers import convolve
from diffjax.models.layers.attention import fastest_implementation
from diffjax.models.layers.level import KEPT
from diffjax.models.prior import Prior
from diffjax.models.unet import UNet
from diffjax.models.words import Words

MODELS = {
    "unet": UNet, "efficient_unet": EfficientUNet, "latent_unet": LatentUNet, "dit": DiT,
    "prior": Prior, "clip_unet": ClipUNet,
}  # fmt: skip
# The networks that make vectors, and see no pictures.
PRIORS = ("prior", "prior_ar")
# Those that are told the vector of a text by a CLIP.
TOLD_TEXT_VECTORS = (*PRIORS, "clip_unet")
# How a U-Net is told steps, which depends on the noise; `tasks.told_steps` makes it.
STEPS = "steps"
# The sizes of a text transformer inside the network.
OF_WORDS = ("text_width", "text_layers", "text_heads")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def out_channels(config: ConfigDict) -> int:
    """The output channels: twice those of the picture if the network learns a variance.

    0 means as many as the input has.
    """
    learned = config.diffusion.objective != "simple"
    if not learned and not config.diffusion.self_condition:
        return 0
    channels = config.latent.channels if "latent" in config else 3
    return channels * (2 if learned else 1)


def model_of(config: ConfigDict) -> Any:
    """The network of config.model.

    Raises:
      ConfigError: names the key, its value and what is allowed.
    """
    model = config.model
    if model.kind == "prior":
        return prior_of(config)
    fields = {
        name: value for name, value in model.items() if name not in ("kind", STEPS, *OF_WORDS)
    }
    fields["dtype"] = DTYPES[fields["dtype"]]
    fields["attention_implementation"] = fastest_implementation(fields["dtype"])
    fields["out_channels"] = out_channels(config)
    if model.kind != "dit":
        fields["convolution"] = convolve.fastest_convolution()
    if "classes" in config:
        fields["num_classes"] = config.classes.num
    if "tokens" in config:
        fields["words"] = words_of(config)
    check_levels(model)
    require(
        not model.get("from_low_res", False) or config.diffusion.predict == "x_0",
        "model.from_low_res",
        True,
        'wants diffusion.predict="x_0": only a picture can be added to a picture',
    )
    allowed = {
        "attention": ("self", "cross"),
        "remat": ("none", *KEPT),
        "skip": ("add", "concat"),
        "upsampling": ("repeat", "shuffle"),
        "text": ("cross", "joint"),
        "resample": ("block", "conv", "conv_after"),
    }
    for name, values in allowed.items():
        if name in model:
            one_of(config, f"model.{name}", values)
    try:
        return MODELS[model.kind](**fields)
    except TypeError as error:
        raise ConfigError("model", dict(model), str(error)) from None


def prior_of(config: ConfigDict) -> Prior:
    """The network of a diffusion prior; texts have the length of the config's."""
    model = config.model
    check_heads(model)
    one_of(config, "model.remat", ("none", *KEPT))
    return Prior(
        width=model.width,
        num_blocks=model.num_blocks,
        num_heads=model.num_heads,
        length=config.text.max_tokens,
        remat=model.remat,
        dtype=DTYPES[model.dtype],
    )


def check_heads(model: ConfigDict) -> None:
    """Checks that the heads of a transformer fill its width."""
    width, heads = model.width, model.num_heads
    fits = heads > 0 and width % heads == 0 and width % 2 == 0
    require(fits, "model.num_heads", heads, f"must divide model.width, {width}, which is even")


def words_of(config: ConfigDict) -> Words:
    """The sizes of the text transformer inside the network.

    Raises:
      ConfigError: there is no such vocabulary, or heads do not divide the width.
    """
    width, layers, heads = (config.model[name] for name in OF_WORDS)
    require(width % heads == 0, "model.text_heads", heads, f"must divide text_width, {width}")
    tower = Tower(width, layers, heads, 4 * width)
    return Words(tower, texts.num_tokens(config), config.tokens.length)


def check_levels(model: ConfigDict) -> None:
    """Checks the levels of a U-Net, and that heads fill the channels of each; a DiT has one level.

    Raises:
      ConfigError: names the key, its value and what is allowed.
    """
    mults = (1,) if model.kind == "dit" else model.mults
    num_levels = len(mults)
    require(num_levels > 0, "model.mults", mults, "must have at least one level")
    if not model.get("num_heads", 0):
        for mult in mults:
            require(
                bool(model.head_width) and model.width * mult % model.head_width == 0,
                "model.head_width",
                model.head_width,
                "must divide every level's channels, model.width x mult = "
                f"{model.width * mult}; or say model.num_heads",
            )
    elif not model.head_width:
        for mult in mults:
            require(
                model.width * mult % model.num_heads == 0,
                "model.num_heads",
                model.num_heads,
                f"must divide every level's channels, model.width x mult = {model.width * mult}",
            )
    check_norms(model)
    for level in model.get("attention_levels", ()):
        require(
            -num_levels <= level < num_levels,
            "model.attention_levels",
            model.attention_levels,
            f"levels are 0 to {num_levels - 1}, and -1 is the last",
        )
    if model.kind == "efficient_unet":
        require(
            len(model.num_blocks) == num_levels,
            "model.num_blocks",
            model.num_blocks,
            f"must have one entry per level of model.mults, {num_levels}",
        )
    if model.kind == "dit":
        require(
            model.width % 4 == 0,
            "model.width",
            model.width,
            "must be a multiple of 4, for positions",
        )


def check_norms(model: ConfigDict) -> None:
    """Checks that the groups of the norms, and the waves of a step, fit the widths of a U-Net.

    Raises:
      ConfigError: names the key, its value and what is allowed.
    """
    groups, embedding = model.get("norm_groups", 0), model.get("embedding_width", 0)
    for mult in model.get("mults", ()) if groups else ():
        require(
            model.width * mult % groups == 0,
            "model.norm_groups",
            groups,
            f"must divide every level's channels, model.width x mult = {model.width * mult}",
        )
    require(embedding % 8 == 0, "model.embedding_width", embedding, "must be a multiple of 8")
