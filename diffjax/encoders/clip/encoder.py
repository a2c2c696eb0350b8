"""A frozen CLIP: unit vectors of pictures and captions, and embeddings of captions by tokens."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.stages import Wrapped
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, UInt8
from PIL import Image

from diffjax.core.trees import Params
from diffjax.data import transforms
from diffjax.devices import mesh as mesh_lib
from diffjax.encoders import hub, t5
from diffjax.encoders.clip import vocabulary, weights
from diffjax.encoders.clip.bpe import BytePairs
from diffjax.encoders.t5 import TextEncoder, default_dtype
from diffjax.images import pixels
from diffjax.models.clip.backbone import States
from diffjax.models.clip.clip import CLIP, unit
from diffjax.models.clip.sizes import CLIPConfig
from diffjax.models.t5 import check_dtype

# What a text encoder's name begins with if it is a CLIP.
PREFIX = "clip:"
BATCH, BATCH_OF_BACKBONE = 64, 16  # rows of a call
# The CLIPs that may be part of this package, by name; tools/ship/clip.py makes them.
SHIPPED = {vocabulary.EMOJI: Path(__file__).parent / "emoji"}


# What reads captions: a tokenizer, or for a CLIP that is told states the encoder of these.
Words: TypeAlias = BytePairs | TextEncoder


@dataclasses.dataclass(frozen=True)
class Clip:
    """A frozen CLIP. fingerprint: the sha256 of its weights, config, and merges or text encoder.

    load: returns the parameters; called when they are first needed. batch: rows of a call.
    """

    name: str
    config: CLIPConfig
    fingerprint: str
    words: Words = dataclasses.field(repr=False)
    load: Callable[[], Params] = dataclasses.field(repr=False, compare=False)
    dtype: np.dtype = dataclasses.field(default_factory=lambda: np.dtype(np.float32))
    batch: int = BATCH

    @property
    def side_px(self) -> int:
        """Of the pictures that the network sees."""
        return self.config.size_px

    @property
    def width(self) -> int:
        """Of the unit vectors."""
        return self.config.embed

    @functools.cached_property
    def params(self) -> Params:
        """The parameters; loaded at the first use."""
        return jax.tree.map(jnp.asarray, self.load())

    def of_pictures(self, pictures: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n e"]:
        """Unit vectors. Pictures of another size are made the network's, bicubically."""
        size_px = self.config.size_px
        if pictures.shape[1:3] != (size_px, size_px):
            pictures = np.stack(
                [transforms.square(Image.fromarray(one), size_px, "centre") for one in pictures]
            )
        return self._in_batches(of_pictures(self.config, self.dtype), pictures)

    def of_captions(self, captions: Sequence[str]) -> Float[np.ndarray, "n e"]:
        """Unit vectors; captions that are too long lose their ends."""
        run, length = of_captions(self.config, self.dtype), self.config.length
        if isinstance(self.words, TextEncoder):
            parts = []
            for first in range(0, len(captions), self.batch):
                part = list(captions[first : first + self.batch])
                filled = [*part, *part[-1:] * (self.batch - len(part))]
                told = States(*self.words.encode(filled, length))
                parts.append(np.asarray(run(self.params, told))[: len(part)])
            return np.concatenate(parts)
        return self._in_batches(run, np.stack([self.words.padded(c, length) for c in captions]))

    def _in_batches(self, run: Wrapped, rows: np.ndarray) -> Float[np.ndarray, "n e"]:
        """The function of all rows; every call has `batch` of them, the last ones are repeated."""
        made = []
        for first in range(0, len(rows), self.batch):
            part = rows[first : first + self.batch]
            filled = np.concatenate([part, np.repeat(part[-1:], self.batch - len(part), axis=0)])
            made.append(np.asarray(run(self.params, filled))[: len(part)])
        return np.concatenate(made)


@functools.lru_cache(maxsize=8)
def of_pictures(config: CLIPConfig, dtype: np.dtype) -> Wrapped:
    """The jitted (params, pictures in bytes) -> unit vectors."""
    model = CLIP(config, dtype=dtype)

    def run(params: Params, rows: UInt8[Array, "b h w 3"]) -> Float[Array, "b e"]:
        image = pixels.from_uint8(rows)
        return unit(model.apply({"params": params}, image, method="of_image"))  # type: ignore[arg-type]

    return jax.jit(run)


@functools.lru_cache(maxsize=8)
def of_captions(config: CLIPConfig, dtype: np.dtype) -> Wrapped:
    """The jitted (params, token ids or states) -> unit vectors."""
    model = CLIP(config, dtype=dtype)

    def run(params: Params, text: Int[Array, "b l"] | States) -> Float[Array, "b e"]:
        return unit(model.apply({"params": params}, text, method="of_text"))  # type: ignore[arg-type]

    return jax.jit(run)


def load(path_or_name: str | os.PathLike, dtype: DTypeLike = jnp.float32) -> Clip:
    """The CLIP in a folder of Hugging Face's or open_clip's, in a file of OpenAI's, or on the hub.

    Raises:
      ValueError: there is none, it is not a CLIP with a ViT, or it has no vocabulary.
    """
    path = resolve(path_or_name)
    config = weights.check(path)
    words = words_of(path, config)
    name = str(path_or_name) if not Path(path_or_name).exists() else path.resolve().name
    mark = fingerprint(path, words)
    # a backbone sees each picture at its own size, which is larger
    batch = BATCH_OF_BACKBONE if config.backbone else BATCH
    read = lambda: weights.load(path)[1]  # noqa: E731
    return Clip(name, config, mark, words, read, check_dtype(dtype), batch)


def resolve(path_or_name: str | os.PathLike) -> Path:
    """The folder or file of a CLIP; names are fetched from the hub.

    Raises:
      ValueError: there is no such folder, file or model.
    """
    name = os.path.expanduser(path_or_name)
    if name in SHIPPED and SHIPPED[name].is_dir():
        return SHIPPED[name]
    if Path(name).exists():
        return Path(name)
    if not hub.is_name(name):
        raise ValueError(f"CLIP {name!r} is neither a folder, a file, nor a name on the hub")
    try:
        return hub.fetch(name, also=(weights.PREPROCESSOR, vocabulary.FILES[0]))
    except ValueError as error:
        raise ValueError(f"CLIP {name!r} is neither a folder nor a file: {error}") from None


def words_of(path: Path, config: CLIPConfig) -> Words:
    """What reads the captions for the CLIP of a folder or file.

    Raises:
      ValueError: its vocabulary has another size; or its text encoder is not here, or is another.
    """
    if config.told is None:
        tokens = tokens_of(path)
        if tokens.vocabulary != config.vocabulary:
            raise ValueError(
                f"{path}: {config.vocabulary} tokens, its vocabulary has {tokens.vocabulary}"
            )
        return tokens
    name = config.told.encoder
    try:
        encoder = t5.load_encoder(name, config.length)
    except ValueError as error:
        raise ValueError(f"{path}: its text encoder: {error}") from None
    wanted = weights.opened(path).said.mark
    if (encoder.fingerprint, encoder.width) != (wanted, config.told.width):
        raise ValueError(
            f"{path}: was trained with the {name} of fingerprint {wanted[:12]}, here it is "
            f"{encoder.fingerprint[:12]}"
        )
    return encoder


def tokens_of(path: Path) -> BytePairs:
    """The tokenizer of a folder that has its merges; OpenAI's of any other."""
    own = path.is_dir() and any((path / name).is_file() for name in vocabulary.FILES)
    return vocabulary.load(str(path) if own else vocabulary.OPENAI)


def fingerprint(path: Path, words: Words) -> str:
    """The sha256 of the files of the network, and of its merges or its text encoder."""
    digest = hashlib.sha256(words.fingerprint.encode())
    for file in weights.files(path):
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def load_text_encoder(
    path_or_name: str | os.PathLike,
    max_length: int,
    dtype: DTypeLike | None = None,
    mesh: Mesh | None = None,
) -> TextEncoder:
    """The text tower as an encoder: the state of each token after the last norm.

    A token's state depends on those before it alone; the last one, which ends the text, has seen
    all. On a mesh, rows are split and every device holds all parameters.

    Raises:
      ValueError: as `load`; or the tower reads fewer than `max_length` tokens.
    """
    devices = [jax.local_devices()[0]] if mesh is None else list(mesh.devices.flat)
    used = check_dtype(default_dtype(devices[0].platform) if dtype is None else dtype)
    clip = load(path_or_name, used)
    if isinstance(clip.words, TextEncoder):
        raise ValueError(f"its texts are read by {clip.words.name}; name that as text.encoder")
    if max_length > clip.config.length:
        raise ValueError(f"it reads {clip.config.length} tokens at most, not {max_length}")
    model = CLIP(clip.config, dtype=used)

    def states(
        params: Params, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]
    ) -> Float[Array, "b l d"]:
        made = model.apply({"params": params}, ids, method="states_of_text")
        return jnp.where(mask[..., None], made, 0.0).astype(used)  # type: ignore[arg-type]

    apply = jax.jit(states)
    if mesh is not None:
        rows, whole = mesh_lib.batch_sharding(mesh), mesh_lib.replicated(mesh)
        apply = jax.jit(states, in_shardings=(whole, rows, rows), out_shardings=rows)
    return TextEncoder(
        name=f"{PREFIX}{clip.name}",
        width=clip.config.text.width,
        max_length=max_length,
        fingerprint=clip.fingerprint,
        dtype=used,
        tokens=clip.words,
        load=lambda: clip.params,
        apply=apply,
        mesh=mesh,
    )
