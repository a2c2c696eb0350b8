"""The text tower of a whole Karlo: its folder in diffusers' layout, and the encoder of a chain."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from diffjax.core import digest
from diffjax.core.json_types import JsonObject
from diffjax.core.trees import Params
from diffjax.encoders import tensors
from diffjax.encoders.clip.bpe import BytePairs
from diffjax.encoders.matching import Tensor, read
from diffjax.encoders.stable_diffusion import text, tokens
from diffjax.encoders.t5 import TextEncoder, default_dtype
from diffjax.encoders.unreadable import read_downloaded_json
from diffjax.models.clip.states import TextStates
from diffjax.models.t5 import check_dtype

INDEX, CLASS = "model_index.json", "UnCLIPPipeline"
FOLDER, TOKENIZER = "text_encoder", "tokenizer"
CONFIG, PROJECTION = "config.json", "text_projection.weight"
# What the schedulers beside the networks say, if they are there; the prior's is checked with it.
NOISE: dict[str, JsonObject] = {
    "decoder_scheduler": {
        "_class_name": "UnCLIPScheduler", "num_train_timesteps": 1000,
        "variance_type": "learned_range", "prediction_type": "epsilon",
    },
    "super_res_scheduler": {
        "_class_name": "UnCLIPScheduler", "num_train_timesteps": 1000,
        "variance_type": "fixed_small_log", "prediction_type": "epsilon",
    },
}  # fmt: skip


class Loaded(NamedTuple):
    """The tower, and the projection [d e] of the state at the end of a text to its vector."""

    model: TextStates
    params: Params
    projection: Float[np.ndarray, "d e"]
    tokens: BytePairs


def is_whole(where: Path) -> bool:
    """Whether the place is the folder of a whole Karlo."""
    file = where / INDEX
    try:
        return file.is_file() and read_downloaded_json(file).get("_class_name") == CLASS
    except ValueError:
        return False


def check_noise(where: Path) -> None:
    """Checks that the schedulers of decoder and upsampler, as far as they are there, fit.

    Raises:
      ValueError: one says other noise; one line.
    """
    for name, wanted in NOISE.items():
        file = where / name / "scheduler_config.json"
        said = read_downloaded_json(file) if file.is_file() else {}
        for key, value in wanted.items():
            if said.get(key, value) != value:
                raise ValueError(f"{file}: {key} is {said[key]!r}, want {value!r}")


def load(where: Path) -> Loaded:
    """The text tower in the folder of a whole Karlo.

    Raises:
      ValueError: it is another network, or a file is damaged; one line.
    """
    folder = where / FOLDER
    config = read_downloaded_json(folder / CONFIG)
    stored: dict[str, Tensor] = dict(
        tensors.open_safetensors(folder, tensors.WEIGHTS, text.IGNORED)
    )
    if PROJECTION not in stored:
        raise ValueError(f"{folder}: no tensor {PROJECTION}: want a CLIPTextModelWithProjection")
    projection = np.asarray(read(stored.pop(PROJECTION)), np.float32)
    found = text.of_config(config, stored, folder / CONFIG, folder)
    width = found.model.tower.width
    if projection.shape[1:] != (width,) or not np.isfinite(projection).all():
        what = f"want (vectors, {width}), all finite"
        raise ValueError(f"{folder}: {PROJECTION} is {projection.shape}, {what}")
    words = tokens.load(where / TOKENIZER).tokens
    if words.vocabulary != found.model.vocabulary:
        raise ValueError(
            f"{where}: its text encoder knows {found.model.vocabulary} tokens, its tokenizer has "
            f"{words.vocabulary}"
        )
    return Loaded(found.model, found.params, projection.T, words)


def text_encoder(one: Loaded, name: str, dtype: DTypeLike | None = None) -> TextEncoder:
    """The states of the tokens of a text, and its vector; the empty text is encoded like others.

    A state depends on the tokens before it alone, so padding makes no difference. The vector is the
    projected state at the end of the text, not normalised. dtype: as in `t5.load_encoder`.
    """
    platform = jax.local_devices()[0].platform
    used = check_dtype(default_dtype(platform) if dtype is None else dtype)
    model, projection = one.model.clone(dtype=used), jnp.asarray(one.projection)

    def states(
        params: Params, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]
    ) -> Float[Array, "b l d"]:
        made = jnp.asarray(model.apply({"params": params}, ids))
        return jnp.where(mask[..., None], made, 0.0).astype(used)

    def vectors(text: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b e"]:
        end = jnp.sum(mask, axis=-1)[:, None, None] - 1
        state = jnp.take_along_axis(text, end, axis=1)[:, 0]
        return jnp.matmul(state, projection, precision="highest")

    whose: JsonObject = {"tokens": one.tokens.fingerprint, "activation": one.model.activation}
    return TextEncoder(
        name=name,
        width=one.model.tower.width,
        max_length=one.model.length,
        fingerprint=digest.digest_of({"tower": one.params, "projection": one.projection}, whose),
        dtype=used,
        tokens=one.tokens,
        load=lambda: jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), one.params),
        apply=jax.jit(states),
        embeds_blank=True,
        rounds=False,
        vectors=vectors,
    )
