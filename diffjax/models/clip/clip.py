"""CLIP: features of pictures and of texts (Radford et al. 2021)."""

import math
from typing import ClassVar, NamedTuple

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from diffjax.core.types import Image, LogSnr, Scalar
from diffjax.devices.mesh import SPLIT_INPUTS, SPLIT_OUTPUTS, Rules
from diffjax.models.clip.backbone import Kept, States, ToldTower, Vectors, image_head, text_head
from diffjax.models.clip.sizes import CLIPConfig
from diffjax.models.clip.transformer import Transformer, norm
from diffjax.models.layers.embedding import NoiseLevelEmbedding
from diffjax.models.layers.level import Remat

Features = Float[Array, "b e"]
# The temperature of the paper starts at 0.07; its inverse is learned as a logarithm.
FIRST_LOG_SCALE = math.log(1 / 0.07)
# The log SNR of a picture without noise.
CLEAN = 20.0

SHARDING: Rules = (
    (r".*/(qkv|up)/kernel", SPLIT_OUTPUTS),
    (r".*/(attention_out|down)/kernel", SPLIT_INPUTS),
    (r"(.*/)?image/level/dense_[01]/kernel", SPLIT_OUTPUTS),
    (r"(.*/)?(image|text)/(patch/kernel|tokens|projection)", (None, "fsdp")),
    (r"(.*/)?(image|text)/(positions|class_token|levels)", (None,)),  # a vector for each position
    (r".*/(bias|scale)", (None,)),
)


class Pair(NamedTuple):
    """What the loss reads: unit vectors of pictures and texts, and how their products count.

    A logit is exp(log_scale) <image, text> + bias.
    """

    image: Features
    text: Features
    log_scale: Scalar
    bias: Scalar


class Dropped(NamedTuple):
    """Which numbers of vectors and of mean states training keeps; None: all."""

    image: Kept | None = None
    text: Kept | None = None


WHOLE = Dropped()


class CLIP(nn.Module):
    """Pictures [b s s 3] in [-1, 1] and token ids [b l] -> `Pair`.

    A CLIP on frozen networks may have vectors [b d] in place of pictures, and has `States` in place
    of token ids if it is told these.

    dtype: of products; features are float32. first_log_scale: the logarithm of the scale before
    training. first_bias: of the logits before training; None means that there is no bias.
    """

    config: CLIPConfig
    remat: Remat = "none"
    dtype: DTypeLike = jnp.float32
    first_log_scale: float = FIRST_LOG_SCALE
    first_bias: float | None = None
    sharding: ClassVar[Rules] = SHARDING

    @property
    def stride(self) -> int:
        """Sides of pictures are multiples of it."""
        return self.config.patch

    def setup(self) -> None:
        """The towers by their names in a checkpoint."""
        self.image = (
            image_head(self.config, self.dtype)
            if self.config.backbone
            else ImageTower(self.config, self.remat, self.dtype)
        )
        self.text = (
            text_head(self.config, self.dtype)
            if self.config.told
            else TextTower(self.config, self.remat, self.dtype)
        )
        constant = nn.initializers.constant
        self.log_scale = self.param("log_scale", constant(self.first_log_scale), ())
        if self.first_bias is not None:
            self.bias = self.param("bias", constant(self.first_bias), ())

    def __call__(
        self,
        image: Image | Vectors,
        text: Int[Array, "b l"] | States,
        logsnr: LogSnr | None = None,
        kept: Dropped = WHOLE,
    ) -> Pair:
        """The unit vectors of both, and the parameters of the loss. logsnr: as in `of_image`."""
        seen = self.of_image(image, logsnr) if image.ndim > 2 else self.of_vector(image, kept.image)
        words = self.of_text(text, kept.text)
        bias = self.bias if self.first_bias is not None else jnp.zeros(())
        return Pair(unit(seen), unit(words), self.log_scale, bias)

    def of_vector(self, vector: Vectors, kept: Kept | None = None) -> Features:
        """As `of_image`, of what the backbone has made before; its weights are not needed."""
        return self.image.of_vector(vector, kept)

    def of_image(self, image: Image, logsnr: LogSnr | None = None) -> Features:
        """The features of pictures, not normalised.

        logsnr: of noised pictures, for a network that takes these; None means CLEAN.
        """
        return self.image(image, logsnr)

    def of_text(self, text: Int[Array, "b l"] | States, kept: Kept | None = None) -> Features:
        """The features of texts, not normalised. kept: of their mean states, in training."""
        match self.text, text:
            case ToldTower() as head, States():
                return head(text, kept)
            case TextTower() as tower, jax.Array():
                return tower(text)
        raise TypeError("a CLIP that is told states has no tokens, and the other way round")

    def states_of_text(self, tokens: Int[Array, "b l"]) -> Float[Array, "b l d"]:
        """The text tower's state at each token, after the last norm; later tokens change none."""
        return self.text.states(tokens)


def unit(features: Features) -> Features:
    """x / |x|."""
    return features / jnp.linalg.norm(features, axis=-1, keepdims=True)


class ImageTower(nn.Module):
    """A ViT with a class token and one more LayerNorm before its first block (sec. 2.4)."""

    config: CLIPConfig
    remat: Remat
    dtype: DTypeLike

    @nn.compact
    def __call__(self, image: Image, logsnr: LogSnr | None = None) -> Features:
        """[b s s 3] in [-1, 1] -> [b e]."""
        config, tower = self.config, self.config.image
        init = nn.initializers.normal(tower.width**-0.5)
        mean, std = jnp.array(config.mean), jnp.array(config.std)
        image = ((image + 1.0) / 2 - mean) / std
        square, width = (config.patch, config.patch), tower.width
        patch = nn.Conv(width, square, square, "VALID", use_bias=False, dtype=self.dtype,
                        name="patch")  # fmt: skip
        h = einops.rearrange(patch(image.astype(self.dtype)), "b h w d -> b (h w) d")
        level = jnp.full(len(h), CLEAN) if logsnr is None else logsnr
        if config.step is None:
            first = self.param("class_token", init, (width,))
            first = jnp.broadcast_to(first, (len(h), 1, width))
        else:
            levels = self.param("levels", init, (config.levels, width))
            step = jnp.round(config.step(level)).astype(jnp.int32)
            first = jnp.take(levels, step, axis=0)[:, None]
        places = self.param("positions", init, (config.patches + 1, width))
        h = jnp.concatenate([first, h.astype(jnp.float32)], axis=1) + places
        if config.noised and config.step is None:
            token = NoiseLevelEmbedding(width, name="level")(level)
            h = jnp.concatenate([h, token[:, None]], axis=1)
        h = norm("norm_in")(h)
        h = Transformer(tower, False, config.activation, self.remat, self.dtype, name="blocks")(h)
        projection = self.param("projection", init, (width, config.embed))
        return norm("norm_out")(h[:, 0]) @ projection


class TextTower(nn.Module):
    """A causal transformer, read at the token that ends the text, which has the highest id."""

    config: CLIPConfig
    remat: Remat
    dtype: DTypeLike

    def setup(self) -> None:
        """The layers by their names in a checkpoint."""
        config, tower = self.config, self.config.text
        normal = nn.initializers.normal
        self.tokens = self.param("tokens", normal(0.02), (config.vocabulary, tower.width))
        self.positions = self.param("positions", normal(0.01), (config.length, tower.width))
        self.blocks = Transformer(tower, True, config.activation, self.remat, self.dtype)
        self.norm_out = norm()
        self.projection = self.param(
            "projection", normal(tower.width**-0.5), (tower.width, config.embed)
        )

    def __call__(self, tokens: Int[Array, "b l"]) -> Features:
        """[b l] -> [b e]."""
        last = jnp.argmax(tokens, axis=-1)[:, None, None]
        state = jnp.take_along_axis(self.states(tokens), last, axis=1)[:, 0]
        return state @ self.projection

    def states(self, tokens: Int[Array, "b l"]) -> Float[Array, "b l d"]:
        """[b l] -> [b l d], the residual stream after its last norm; l is at most the length."""
        h = jnp.take(self.tokens, tokens, axis=0) + self.positions[: tokens.shape[1]]
        return self.norm_out(self.blocks(h.astype(jnp.float32)))
