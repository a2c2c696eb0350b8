"""The moments of pictures, made once by a frozen autoencoder and kept on disk.

They lie in a cache like that of captions. The key of a picture is the digest of its file's bytes
with the name of a view of it: as it is, mirrored, or one of several crops. So data sets that share
pictures share their moments, and a picture that has changed is another one.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Wrapped
from jaxtyping import Array, Bool, Float, UInt8

from diffjax.core.errors import BadData
from diffjax.core.trees import Params
from diffjax.data import transforms
from diffjax.data.broken import BrokenRecord
from diffjax.data.record import Record, RecordSource, captions_of, fingerprint_of, image_of
from diffjax.encoders.cache import cache, marks
from diffjax.images import pixels
from diffjax.images.colour import WHITE
from diffjax.models.autoencoder.network import Autoencoder

BATCH = 8  # pictures of a call
MIRRORED = "mirrored"


@dataclasses.dataclass(frozen=True)
class Views:
    """How pictures become squares of `size_px`, and of which variants the moments are kept.

    aspect, ground: see `transforms.square`. flip: of the mirrored picture too, unless a caption
    names a side. crops: of so many random squares; 1 is the middle, or the whole for "pad".
    """

    size_px: int
    aspect: str = "centre"
    ground: str = WHITE
    flip: bool = False
    crops: int = 1

    def of(self, record: Record) -> list[str]:
        """The keys of all views of a record's picture."""
        digest = digest_of(image_of(record))
        names = [key_of(digest, crop) for crop in range(self.crops)]
        if self.flip and may_be_mirrored(record):
            names += [f"{name} {MIRRORED}" for name in names]
        return names

    def chosen(self, record: Record, rng: np.random.Generator | None) -> str:
        """The key of one view; the first one without `rng`."""
        digest = digest_of(image_of(record))
        if rng is None:
            return key_of(digest, 0)
        name = key_of(digest, int(rng.integers(self.crops)) if self.crops > 1 else 0)
        turned = self.flip and rng.random() < 0.5 and may_be_mirrored(record)
        return f"{name} {MIRRORED}" if turned else name

    def picture(self, record: Record, key: str) -> UInt8[np.ndarray, "s s 3"]:
        """The view of a record's picture that a key names.

        Raises:
          BrokenRecord: the picture cannot be read.
        """
        digest, crop, *mirrored = key.split(" ")
        loaded = transforms.load(image_of(record), self.ground)
        # the place of a crop depends on the picture and its number alone
        rng = np.random.default_rng((int(digest, 16), int(crop))) if self.crops > 1 else None
        image = transforms.square(loaded, self.size_px, self.aspect, ground=self.ground, rng=rng)
        return image[:, ::-1] if mirrored else image


def digest_of(picture: bytes) -> str:
    """The digest of the bytes of a picture's file."""
    return hashlib.blake2b(picture, digest_size=16).hexdigest()


def key_of(digest: str, crop: int) -> str:
    """The key of a crop of a picture, not mirrored."""
    return f"{digest} {crop}"


def may_be_mirrored(record: Record) -> bool:
    """Whether no caption of the record names a side."""
    return not any(map(transforms.names_a_side, captions_of(record)))


@dataclasses.dataclass(frozen=True)
class PictureEncoder:
    """What fills a cache with moments: an autoencoder, and the records whose pictures it encodes.

    whose: the fingerprint of the autoencoder. A picture that cannot be read has NaN as its moments,
    and whoever reads it will be told.
    """

    name: str
    whose: str
    model: Autoencoder
    params: Params = dataclasses.field(repr=False)
    views: Views
    records: RecordSource
    places: dict[str, int] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def fingerprint(self) -> str:
        """Of all that moments depend on beside the picture."""
        views = self.views
        said = f"{self.whose} {views.size_px} {views.aspect} {views.ground} {views.crops > 1}"
        return hashlib.sha256(said.encode()).hexdigest()

    @property
    def width(self) -> int:
        """The channels of moments."""
        return self.model.sizes.latent * (1 if self.model.sizes.codes else 2)

    @property
    def side(self) -> int:
        """The side of a latent."""
        return self.views.size_px // self.model.stride

    @property
    def max_length(self) -> int:
        """The places of a latent."""
        return self.side**2

    def every_key(self) -> Iterator[str]:
        """The keys of all views of all pictures; records that cannot be read are left out."""
        for index in range(len(self.records)):
            try:
                names = self.views.of(self.records[index])
            except (BrokenRecord, ValueError):
                continue  # the run counts it
            self.places[names[0].partition(" ")[0]] = index
            yield from names

    def encode(
        self, captions: Sequence[str], length: int | None = None
    ) -> tuple[Float[Array, "b l d"], Bool[Array, "b l"]]:
        """The moments of the pictures of these keys, place by place."""
        parts = [self._made(captions[i : i + BATCH]) for i in range(0, len(captions), BATCH)]
        moments = np.concatenate(parts).reshape(len(captions), self.max_length, self.width)
        return jnp.asarray(moments), jnp.ones(moments.shape[:2], bool)

    def _made(self, keys: Sequence[str]) -> Float[np.ndarray, "b h w m"]:
        size_px = self.views.size_px
        pictures, broken = np.zeros((BATCH, size_px, size_px, 3), np.uint8), []
        for row, key in enumerate(keys):
            try:
                record = self.records[self.places[key.partition(" ")[0]]]
                pictures[row] = self.views.picture(record, key)
            except BrokenRecord:
                broken.append(row)
        moments = np.array(moments_of(self.model)(self.params, pictures))[: len(keys)]
        largest = float(np.abs(moments).max())
        if not largest < np.finfo(np.float16).max:
            raise BadData(
                f"{self.name}: a latent of {largest:.3g} does not fit into the cache's 16 bits; "
                "encode in each step: latent.cached=false"
            )
        moments[broken] = np.nan
        return moments


@functools.lru_cache(maxsize=4)
def moments_of(model: Autoencoder) -> Wrapped:
    """The jitted (params, pictures in bytes) -> moments."""

    def run(params: Params, rows: UInt8[Array, "b h w 3"]) -> Float[Array, "b _ _ m"]:
        image = pixels.from_uint8(rows)
        return model.apply({"params": params}, image, method="encode")  # type: ignore[return-value]

    return jax.jit(run)


@dataclasses.dataclass(frozen=True)
class Latents:
    """The moments of pictures that are in a cache, looked up by their records; it pickles."""

    found: cache.Embeddings
    views: Views
    side: int

    def of(self, record: Record, rng: np.random.Generator | None) -> Float[np.ndarray, "h w m"]:
        """The moments of a view of a record's picture, in float16.

        Raises:
          BrokenRecord: the picture cannot be read, or is another one than when the run began.
        """
        key = self.views.chosen(record, rng)
        try:
            moments = self.found[key].reshape(self.side, self.side, -1)
        except cache.MissingCaption:
            raise BrokenRecord(
                "its picture is new: it was another one when latents were made"
            ) from None
        except cache.Damaged as error:
            raise BrokenRecord(str(error)) from None
        if not np.isfinite(moments).all():
            self.views.picture(record, key)  # says what is wrong with it
            raise BrokenRecord("its picture could not be read when latents were made")
        return moments


def default_folder(encoder: PictureEncoder) -> Path:
    """The folder of this encoder's cache if none is named."""
    mark = encoder.fingerprint[:12]
    return cache.users_folder() / "latents" / f"{encoder.name}-{encoder.views.size_px}-{mark}"


def ensure(
    encoder: PictureEncoder, path: Path, progress: Callable[[int, int], None] | None = None
) -> Latents:
    """The cache at `path`, after encoding those pictures of the records that it lacks.

    If the cache has a mark that it holds all pictures of these records, none is read.

    Raises:
      ValueError: the cache is of another autoencoder, or of pictures of another size.
      StorageError: the disk has no room.
      BadData: a latent does not fit into 16 bits.
    """
    data = fingerprint_of(encoder.records)
    mark = None if data is None else f"{data} flip={encoder.views.flip} x{encoder.views.crops}"
    if mark is not None and marks.has_mark(path, mark):
        found = cache.open_cache(path, encoder)
    else:
        found = cache.ensure(
            path, encoder, encoder.every_key(), batch_size=BATCH, progress=progress,
            storage=cache.FLOAT16,
        )  # fmt: skip
        if mark is not None:
            marks.write_mark(path, mark)
    return Latents(found, encoder.views, encoder.side)
