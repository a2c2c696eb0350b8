"""Encodes captions with a tokenizer and T5 in one call, and compiles only a few shapes."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float, Int, Shaped

from diffjax.core.trees import Params
from diffjax.devices import mesh
from diffjax.encoders import hub, sharding, tokenizer, weights
from diffjax.models.t5 import check_dtype

# The checkpoints that are part of this package, by name.
SHIPPED = {"t5-nano": Path(__file__).parent / "t5_nano"}
LENGTH_STEP = 16


@dataclasses.dataclass(frozen=True)
class TextEncoder:
    """A frozen T5 encoder with its tokenizer.

    fingerprint: the sha256 of config, tokenizer and weights; embeddings on disk are marked with it.
    load: returns the parameters; called when they are first needed, because a run whose embeddings
    are all on disk does not need them. embeds_blank: no text is the embedding of the empty text,
    as for Stable Diffusion; else it is the null text. rounds: prompts are rounded to bfloat16, as
    the embeddings of a training are. vectors: (embeddings, mask) -> the vector of each text, of an
    encoder of a CLIP whose vectors networks are told too.

    A caption is encoded at its own length, rounded up to a multiple of 16 tokens, and batch sizes
    are rounded up too. So a handful of compiled programs serve all calls.
    """

    name: str
    width: int
    max_length: int
    fingerprint: str
    dtype: np.dtype
    tokens: tokenizer.Tokenizer = dataclasses.field(repr=False)
    load: Callable[[], Params] = dataclasses.field(repr=False, compare=False)
    apply: Callable[[Params, ArrayLike, ArrayLike], Array] = dataclasses.field(
        repr=False, compare=False
    )
    mesh: Mesh | None = dataclasses.field(default=None, repr=False, compare=False)
    embeds_blank: bool = False
    rounds: bool = True
    vectors: Callable[[Array, Array], Array] | None = dataclasses.field(
        default=None, repr=False, compare=False
    )

    @functools.cached_property
    def params(self) -> Params:
        """The parameters, on the devices of `apply`; loaded at the first use."""
        return self.load()

    def encode(
        self, captions: Sequence[str], length: int | None = None
    ) -> tuple[Float[Array, "b l d"], Bool[Array, "b l"]]:
        """(embeddings, mask) of the captions, padded to a common number l of tokens.

        l is `length`, or else the smallest multiple of 16 that holds all captions. A larger
        `length` only adds rows of zeros. Embeddings are zero where the mask is False. An empty
        caption has one token, its eos.
        """
        ids, mask = self.tokenize(captions, length)
        groups, shards = _groups(mask, self.max_length), sharding.row_shards(self.mesh)
        parts = []
        for rows, longest in groups:
            shape = (_round_up(len(rows), shards), longest)
            part = (_pad_or_cut(x[rows], shape) for x in (ids, mask))
            parts.append(self.apply(self.params, *part))
        everywhere = None if self.mesh is None else mesh.replicated(self.mesh)
        rows_of_captions = _row_of_each(groups, parts)
        return _in_order(parts, rows_of_captions, mask.shape[1], everywhere), jnp.asarray(mask)

    def tokenize(
        self, captions: Sequence[str], length: int | None = None
    ) -> tuple[Int[np.ndarray, "b l"], Bool[np.ndarray, "b l"]]:
        """(ids, mask) of the captions, padded with 0 to the common length of `encode`."""
        if isinstance(captions, str):
            raise ValueError(f"captions={captions!r} is one string, want a list of strings")
        limit = min(self.max_length, length or self.max_length)
        rows = [self.tokens.ids(caption, limit) for caption in captions]
        if length is None:
            longest = max((len(row) for row in rows), default=1)
            length = min(-(-longest // LENGTH_STEP) * LENGTH_STEP, self.max_length)
        ids = np.full((len(rows), length), tokenizer.PAD, np.int32)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        lengths = np.array([len(row) for row in rows], int)
        return ids, np.arange(length)[None, :] < lengths[:, None]


def load_encoder(
    path_or_name: str | os.PathLike,
    max_length: int = 96,
    dtype: DTypeLike | None = None,
    mesh: Mesh | None = None,
) -> TextEncoder:
    """The encoder in a folder of Hugging Face's layout, "t5-nano", or a name on the hub.

    max_length: the most tokens of a caption, eos included.
    dtype: of parameters, matrix products and embeddings: float32 or bfloat16. None means float32 on
    CPUs, where bfloat16 saves no time, and bfloat16 on accelerators. Norms, softmax and the
    residual stream are always float32.
    mesh: of `mesh.make_mesh`; parameters and rows are split over it, with the same results up to
    rounding. `encode` then gives every device all embeddings; `apply` only its own rows.

    The encoder of a folder is named after the folder. The names and shapes of the weights are
    checked now; their values are read at the first caption.

    Raises:
      ValueError: there is no such checkpoint, it is not a T5 encoder, or the dtype is another.
    """
    if max_length < 1:
        raise ValueError(f"max_length={max_length}, want at least 1")
    path_or_name = os.path.expanduser(path_or_name)
    devices = [jax.local_devices()[0]] if mesh is None else list(mesh.devices.flat)
    dtype = check_dtype(default_dtype(devices[0].platform) if dtype is None else dtype)
    folder = resolve_folder(path_or_name)
    config, one_device = weights.check_folder(folder), SingleDeviceSharding(devices[0])
    split = None if mesh is None else sharding.params_sharding(mesh, config)
    shipped = str(path_or_name) in SHIPPED or not Path(path_or_name).exists()
    return TextEncoder(
        name=str(path_or_name) if shipped else folder.resolve().name,
        width=config.d_model,
        max_length=max_length,
        fingerprint=fingerprint(folder),
        dtype=dtype,
        tokens=tokenizer.load(folder),
        load=lambda: weights.load(folder, split or one_device, dtype)[1],
        apply=sharding.compile_encoder(config, dtype, mesh),
        mesh=mesh,
    )


def resolve_folder(path_or_name: str | os.PathLike) -> Path:
    """The folder of a path or a name. Names that are not shipped are fetched from the hub.

    Raises:
      ValueError: it is neither a folder nor a name, or `hub.fetch` fails.
    """
    name = os.path.expanduser(path_or_name)
    if name in SHIPPED:
        return SHIPPED[name]
    if Path(name).is_dir():
        return Path(name)
    neither = f"text encoder {name!r} is neither a folder nor one of {sorted(SHIPPED)}"
    if Path(name).exists() or not hub.is_name(name):
        raise ValueError(f"{neither}, nor could it be a name on the Hugging Face hub")
    try:
        return hub.fetch(name)
    except ValueError as error:
        raise ValueError(f"{neither}: {error}") from None


def default_dtype(platform: str) -> DTypeLike:
    """The dtype of an encoder if none is given: float32 on "cpu", bfloat16 elsewhere."""
    return jnp.float32 if platform == "cpu" else jnp.bfloat16


def _groups(
    mask: Bool[np.ndarray, "b l"], max_length: int
) -> list[tuple[Int[np.ndarray, "g"], int]]:
    """(rows, length) for each rounded length; one empty group if there are no captions."""
    if not len(mask):
        return [(np.arange(0), min(LENGTH_STEP, max_length))]
    needed = -(-mask.sum(1) // LENGTH_STEP) * LENGTH_STEP
    lengths = np.minimum(needed, max_length)
    return [(np.flatnonzero(lengths == n), int(n)) for n in np.unique(lengths)]


def _pad_or_cut(x: Shaped[np.ndarray, "_ _"], shape: tuple[int, int]) -> Shaped[np.ndarray, "b l"]:
    """Pad with 0, or cut, to a shape."""
    x = x[: shape[0], : shape[1]]
    return np.pad(x, [(0, want - have) for want, have in zip(shape, x.shape, strict=True)])


def _row_of_each(
    groups: Sequence[tuple[np.ndarray, int]], parts: Sequence[Array]
) -> Int[np.ndarray, "b"]:
    """The row of each caption in the concatenation of the parts, which have padded rows too."""
    starts = np.cumsum([0, *(len(part) for part in parts)])
    found = np.zeros(sum(len(rows) for rows, _ in groups), np.int32)
    for start, (rows, _) in zip(starts, groups, strict=False):
        found[rows] = start + np.arange(len(rows))
    return found


@functools.partial(jax.jit, static_argnums=(2, 3))
def _in_order(
    parts: list[Float[Array, "_ _ d"]],
    rows: Int[Array, "b"],
    length: int,
    sharding: NamedSharding | None,
) -> Float[Array, "b l d"]:
    """Pad the parts to one length, join them, and pick `rows`; the result gets `sharding`."""
    cut = [part[:, :length] for part in parts]
    wide = [jnp.pad(part, ((0, 0), (0, length - part.shape[1]), (0, 0))) for part in cut]
    picked = jnp.concatenate(wide)[rows]
    return picked if sharding is None else jax.lax.with_sharding_constraint(picked, sharding)


def _round_up(rows: int, shards: int = 1) -> int:
    """Round up to a power of two, or above 64 to a multiple of 64; then to one of `shards`."""
    few = 1 << max(rows - 1, 0).bit_length() if rows <= 64 else -(-rows // 64) * 64
    return -(-few // shards) * shards


def fingerprint(folder: Path) -> str:
    """The sha256 of the files of config, tokenizer and weights, in this order."""
    digest = hashlib.sha256()
    for file in [folder / weights.CONFIG, *tokenizer.files(folder), *weights.weight_files(folder)]:
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
