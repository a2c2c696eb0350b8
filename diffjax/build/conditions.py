"""What a config says that the network is told beside the noised picture."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffjax.build import noise
from diffjax.build.inputs import texts
from diffjax.build.models import TOLD_TEXT_VECTORS
from diffjax.encoders.stable_diffusion.encoder import PREFIX as STABLE_DIFFUSION
from diffjax.tasks.conditions import Class, Condition, Embedding, LowRes, Masked, Text, Tokens
from diffjax.tasks.vectors import TextVector


def conditions_of(config: ConfigDict, text_width: int) -> tuple[Condition, ...]:
    """The conditions, in the order in which tasks ask them. text_width: of the text embeddings."""
    size_px = config.data.size_px
    low_res_px = config.low_res.size_px if "low_res" in config else 0
    found: list[Condition] = []
    if "text" in config:
        text = Text(text_width, config.text.max_tokens, config.text.drop, embeds_blank(config))
        found.append(text)
    if "tokens" in config:
        found.append(Tokens(config.tokens.length, config.tokens.drop))
    if "classes" in config:
        names = tuple(config.classes.names)
        null = config.model.get("null_class", True)
        found.append(Class(config.classes.num, config.classes.drop, names, null))
    if "embedding" in config:
        vector = config.embedding
        found.append(Embedding(vector.of, vector.width, vector.drop))
    if config.model.kind in TOLD_TEXT_VECTORS:
        found.append(TextVector(config.vectors.width))
    if "mask" in config:
        told = config.mask
        hole = Masked(size_px, drop=told.drop, strokes=told.strokes, known=told.known)
        found.append(hole)
    if low_res_px:
        factor, level = size_px // low_res_px, config.low_res.max_aug_level
        noised = config.model.kind != "unet"  # which is told no level of that noise
        spoil = config.low_res.degrade or None
        schedule = noise.schedule_named("cosine")
        found.append(LowRes(low_res_px, factor, schedule, level, noised, spoil))
    return tuple(found)


def embeds_blank(config: ConfigDict) -> bool:
    """Whether no text is the embedding of the empty text, as for Stable Diffusion's encoder."""
    return "text" in config and config.text.encoder.startswith(STABLE_DIFFUSION)


def no_text_of(config: ConfigDict, width: int) -> jax.Array | jax.ShapeDtypeStruct:
    """The embedding [l d] of the empty text; its shape if no encoder is named, as in plans."""
    length = config.text.max_tokens
    if config.text.encoder == STABLE_DIFFUSION:
        return jax.ShapeDtypeStruct((length, width), jnp.float32)
    return texts.encoder_of(config).encode([""], length)[0][0].astype(jnp.float32)
