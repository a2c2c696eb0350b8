"""What an extractor is, and how it is run over pictures: in batches, and spread over a mesh."""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh
from jax.stages import Wrapped
from jaxtyping import Array, Float, UInt8

from diffjax.core.errors import InputError
from diffjax.core.trees import Params
from diffjax.devices import mesh as mesh_lib
from diffjax.evaluation.metrics import moments, statistics
from diffjax.evaluation.metrics.features import check_finite
from diffjax.evaluation.metrics.moments import Moments
from diffjax.evaluation.metrics.statistics import Statistics

# What the Frechet distance of an extractor's features is called. Only Inception's is an FID.
Label: TypeAlias = Literal["fid", "fd_lite0", "fd_dinov2", "fd_clip"]
Apply: TypeAlias = Callable[[Params, UInt8[Array, "b h w c"]], Float[Array, "b d"]]
# One array of pictures, or any iterable of pictures [h w 3] or of arrays of them [n h w 3].
Pictures: TypeAlias = np.ndarray | Iterable[np.ndarray]
BATCH = 32
# Moments are summed over so many rows at once: a sum over fewer costs more than it saves memory.
ROWS = 1024


@dataclass(frozen=True, eq=False)
class Extractor:
    """A frozen network that turns pictures into features.

    name: of the network and its layer, with the first 16 hex digits of the sha256 of its weights.
    resize: how pictures come to the size of the network. width: the number of features. label: what
    the Frechet distance of its features is called. apply: (params, pictures of one size, as bytes)
    -> features, a pure function that resizes by itself; equal networks have the same function,
    because a program is compiled for each. classes: the kernel [d k] that makes logits for the
    Inception score of features; None if the network has none.
    """

    name: str
    resize: str
    width: int
    label: Label
    params: Params = field(repr=False)
    apply: Apply = field(repr=False)
    classes: np.ndarray | None = field(default=None, repr=False)


def features(
    extractor: Extractor,
    pictures: Pictures,
    *,
    batch: int = BATCH,
    mesh: Mesh | None = None,
    each_size: bool = False,
) -> Float[np.ndarray, "n d"]:
    """The features of each picture, in the order of the pictures.

    batch: how many pictures go through the devices at a time; every call has as many, so a program
    is compiled once for each size of pictures. mesh: spreads each batch over its devices. With
    several processes all have the same pictures, and all call it. each_size: allows pictures of
    different sizes, each of which is resized by itself.

    Raises:
      InputError: there are no pictures, one is not of bytes in three colours, sizes differ, or a
        feature is not finite.
    """
    parts = list(_answers(extractor, pictures, batch, mesh, each_size))
    found = np.concatenate([part.rows for part in parts])
    found[np.concatenate([part.places for part in parts])] = found.copy()
    return found


def moments_of(
    extractor: Extractor,
    pictures: Pictures,
    *,
    batch: int = BATCH,
    mesh: Mesh | None = None,
    each_size: bool = False,
) -> Moments:
    """The moments of the features; few pictures and features are in memory at a time.

    Raises:
      InputError: as `features`.
    """
    found = statistics_of(extractor, pictures, batch=batch, mesh=mesh, each_size=each_size)
    return found.moments


def statistics_of(
    extractor: Extractor,
    pictures: Pictures,
    *,
    batch: int = BATCH,
    mesh: Mesh | None = None,
    each_size: bool = False,
) -> Statistics:
    """The moments of the features, with the hash of the pictures; both are summed on the way.

    Raises:
      InputError: as `features`.
    """
    whole, held, hashed = moments.empty(extractor.width), [], statistics.NO_PICTURES
    for part in _answers(extractor, pictures, batch, mesh, each_size):
        held.append(part.rows)
        hashed = statistics.hash_together(hashed, statistics.hash_of(part.pictures))
        if sum(len(rows) for rows in held) >= ROWS:
            whole, held = moments.merged(whole, moments.moments_of(np.concatenate(held))), []
    if held:
        whole = moments.merged(whole, moments.moments_of(np.concatenate(held)))
    return Statistics(extractor.name, extractor.resize, hashed, whole)


class _Part(NamedTuple):
    """Some pictures of one size, their places among all, and their features."""

    places: np.ndarray
    pictures: np.ndarray
    rows: Float[np.ndarray, "b d"]


def _answers(
    extractor: Extractor, pictures: Pictures, batch: int, mesh: Mesh | None, each_size: bool
) -> Iterator[_Part]:
    """The features of each batch. The next batch is prepared while the devices compute."""
    if batch < 1:
        raise InputError(f"batch = {batch}: want at least 1 picture at a time")
    over = mesh_lib.make_mesh(devices=jax.local_devices()[:1]) if mesh is None else mesh
    sharding = mesh_lib.batch_sharding(over)
    shares = over.size // sharding.shard_shape((over.size,))[0]
    count = -(-batch // shares) * shares
    here = mesh_lib.rows_here(sharding, count)
    run = _program(extractor.apply, over)
    params = mesh_lib.replicate(extractor.params, over)
    if jax.process_count() == 1:
        params = jax.device_put(params, mesh_lib.replicated(over))
    running: tuple[np.ndarray, np.ndarray, jax.Array] | None = None

    def finished(places: np.ndarray, rows: np.ndarray, answer: jax.Array) -> _Part:
        found = np.asarray(answer)[: len(rows)]
        check_finite(f"features of {extractor.name}", found)
        return _Part(places, rows, found)

    for places, rows in _batches(pictures, count, each_size):
        filled = np.concatenate([rows, np.repeat(rows[-1:], count - len(rows), axis=0)])
        placed = mesh_lib.to_devices({"pictures": filled[here]}, sharding)["pictures"]
        answer = run(params, placed)
        if running is not None:
            yield finished(*running)
        running = places, rows, answer
    if running is None:
        raise InputError("no pictures: want at least one")
    yield finished(*running)


@functools.lru_cache(maxsize=16)
def _program(apply: Apply, mesh: Mesh) -> Wrapped:
    """The compiled function. Products are in float32 on every chip, as those of the peers are."""

    def run(params: Params, pictures: UInt8[Array, "b h w c"]) -> Float[Array, "b d"]:
        with jax.default_matmul_precision("float32"):
            return apply(params, pictures)

    return jax.jit(run, out_shardings=mesh_lib.replicated(mesh))


def _batches(
    pictures: Pictures, batch: int, each_size: bool
) -> Iterator[tuple[np.ndarray, UInt8[np.ndarray, "b h w 3"]]]:
    """(places, pictures) of `batch` pictures of one size; of each size the last ones are fewer."""
    waiting: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
    for place, picture in enumerate(_each(pictures)):
        _check(place, picture)
        if not each_size and waiting and picture.shape not in waiting:
            before = next(iter(waiting))
            raise InputError(
                f"picture {place} is {_size(picture.shape)}, those before are {_size(before)}: "
                "make all of one size, or allow different ones with each_size"
            )
        same = waiting.setdefault(picture.shape, [])
        same.append((place, picture))
        if len(same) == batch:
            yield _stacked(same)
            same.clear()
    for same in waiting.values():
        if same:
            yield _stacked(same)


def _each(pictures: Pictures) -> Iterator[np.ndarray]:
    for item in pictures:
        if item.ndim == 4:
            yield from item
        else:
            yield item


def _stacked(same: list[tuple[int, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([place for place, _ in same]), np.stack([picture for _, picture in same])


def _check(place: int, picture: np.ndarray) -> None:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise InputError(
            f"picture {place} has shape {picture.shape} of {picture.dtype}: want (height, width, "
            "3) of uint8"
        )


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]} px"
