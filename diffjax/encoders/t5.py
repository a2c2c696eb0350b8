"""Captions to embeddings: tokenizer and T5 behind one call, with few compiled shapes."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Shaped

from diffjax.devices import mesh
from diffjax.encoders import hub, sharding, tokenizer, weights
from diffjax.models.t5 import checked_dtype

# Names of checkpoints that ship inside this package.
SHIPPED = {"t5-nano": Path(__file__).parent / "t5_nano"}
LENGTH_STEP = 16


@dataclasses.dataclass(frozen=True)
class TextEncoder:
    """A frozen T5 encoder with its tokenizer.

    `fingerprint` is the sha256 of config, weights and tokenizer, by which embeddings on disk tell
    whose they are. A caption is encoded at its own length, rounded up to a multiple of 16 tokens,
    and batches are rounded up too: a handful of compiled programs serve every call. `load()` gives
    the parameters and is called when they are first needed: a run whose embeddings are all on disk
    needs none.
    """

    name: str
    width: int
    max_length: int
    fingerprint: str
    dtype: Any
    tokens: tokenizer.Tokenizer = dataclasses.field(repr=False)
    load: Callable[[], Any] = dataclasses.field(repr=False, compare=False)
    apply: Any = dataclasses.field(repr=False, compare=False)
    mesh: Mesh | None = dataclasses.field(default=None, repr=False, compare=False)

    @functools.cached_property
    def params(self) -> Any:
        """The parameters where `apply` wants them."""
        return self.load()

    def encode(
        self, captions: Sequence[str], length: int | None = None
    ) -> tuple[Float[Array, "b l d"], Bool[Array, "b l"]]:
        """(embeddings, mask) of the captions; l is the least multiple of 16 that holds them all.

        `length` asks for that l instead, the same whatever the captions, and a larger one adds
        rows of zeros and changes no bit of the others. Rows are zero where the mask is False. An
        empty caption is its eos alone.
        """
        ids, mask = self.tokenize(captions, length)
        groups, shards = _groups(mask, self.max_length), sharding.row_shards(self.mesh)
        parts = []
        for rows, longest in groups:
            shape = (_round_up(len(rows), shards), longest)
            part = (_fitted(x[rows], shape) for x in (ids, mask))
            parts.append(self.apply(self.params, *part))
        everywhere = None if self.mesh is None else mesh.replicated(self.mesh)
        places = _places(groups, parts)
        return _in_order(parts, places, mask.shape[1], everywhere), jnp.asarray(mask)

    def tokenize(
        self, captions: Sequence[str], length: int | None = None
    ) -> tuple[Int[np.ndarray, "b l"], Bool[np.ndarray, "b l"]]:
        """(ids, mask), padded with 0 to the common length that `encode` uses."""
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
    """The encoder of a folder in Hugging Face's layout, of "t5-nano", or of a name on its hub.

    `max_length` counts tokens, eos included. Parameters are kept in `dtype`, matrices multiply in
    it and the embeddings have it: float32 or bfloat16; None is float32 on CPUs, where bfloat16
    saves no time, and bfloat16 on accelerators. Norms, softmax and residual stream are computed
    in float32 whatever it is. On a `mesh` of
    `mesh.make_mesh` parameters and rows are split, with the same results to rounding; `encode`
    then hands every device all embeddings, `apply` its rows alone.

    The name of a folder is its last part. The weights' names and shapes are checked now, their
    values read at the first caption.

    Raises:
      ValueError: no such checkpoint, one that is not a T5 encoder's, or another dtype.
    """
    if max_length < 1:
        raise ValueError(f"max_length={max_length}, want at least 1")
    path_or_name = os.path.expanduser(path_or_name)
    devices = [jax.local_devices()[0]] if mesh is None else list(mesh.devices.flat)
    dtype = checked_dtype(default_dtype(devices[0].platform) if dtype is None else dtype)
    folder = resolve(path_or_name)
    config, place = weights.check(folder), SingleDeviceSharding(devices[0])
    split = None if mesh is None else sharding.params_sharding(mesh, config)
    shipped = str(path_or_name) in SHIPPED or not Path(path_or_name).exists()
    return TextEncoder(
        name=str(path_or_name) if shipped else folder.resolve().name,
        width=config.d_model,
        max_length=max_length,
        fingerprint=fingerprint(folder),
        dtype=dtype,
        tokens=tokenizer.load(folder),
        load=lambda: weights.load(folder, split or place, dtype)[1],
        apply=sharding.compiled(config, dtype, mesh),
        mesh=mesh,
    )


def resolve(path_or_name: str | os.PathLike) -> Path:
    """The folder of a path or a name; an unknown name is asked of the Hugging Face hub.

    Raises:
      ValueError: it is neither, or the hub does not give it; see `hub.fetch`.
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
    """What an encoder computes in unless it is told: float32 on "cpu", bfloat16 elsewhere."""
    return jnp.float32 if platform == "cpu" else jnp.bfloat16


def _groups(
    mask: Bool[np.ndarray, "b l"], max_length: int
) -> list[tuple[Int[np.ndarray, "g"], int]]:
    """(rows, length) of the captions of each rounded length; one empty group if there are none."""
    if not len(mask):
        return [(np.arange(0), min(LENGTH_STEP, max_length))]
    needed = -(-mask.sum(1) // LENGTH_STEP) * LENGTH_STEP
    lengths = np.minimum(needed, max_length)
    return [(np.flatnonzero(lengths == n), int(n)) for n in np.unique(lengths)]


def _fitted(x: Shaped[np.ndarray, "_ _"], shape: tuple[int, int]) -> Shaped[np.ndarray, "b l"]:
    """Filled up with 0, and cut, to a shape."""
    x = x[: shape[0], : shape[1]]
    return np.pad(x, [(0, want - have) for want, have in zip(shape, x.shape, strict=True)])


def _places(groups: Sequence[tuple[np.ndarray, int]], parts: Sequence[Array]) -> np.ndarray:
    """Where each caption stands when the parts, with the rows they were padded with, are joined."""
    starts = np.cumsum([0, *(len(part) for part in parts)])
    places = np.zeros(sum(len(rows) for rows, _ in groups), np.int32)
    for start, (rows, _) in zip(starts, groups, strict=False):
        places[rows] = start + np.arange(len(rows))
    return places


@functools.partial(jax.jit, static_argnums=(2, 3))
def _in_order(
    parts: list[Float[Array, "_ _ d"]],
    places: Int[Array, "b"],
    length: int,
    where: NamedSharding | None,
) -> Float[Array, "b l d"]:
    """The parts fitted to one length and joined; of that the rows at `places`, lying at `where`."""
    cut = [part[:, :length] for part in parts]
    wide = [jnp.pad(part, ((0, 0), (0, length - part.shape[1]), (0, 0))) for part in cut]
    rows = jnp.concatenate(wide)[places]
    return rows if where is None else jax.lax.with_sharding_constraint(rows, where)


def _round_up(rows: int, shards: int = 1) -> int:
    """The next power of two up to 64, then multiples of 64, all of `shards`: few shapes."""
    few = 1 << max(rows - 1, 0).bit_length() if rows <= 64 else -(-rows // 64) * 64
    return -(-few // shards) * shards


def fingerprint(folder: Path) -> str:
    """sha256 over config, tokenizer and weights, in this order."""
    digest = hashlib.sha256()
    for file in [folder / weights.CONFIG, *tokenizer.files(folder), *weights.weight_files(folder)]:
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
