"""Makes the moments that a stage of latents trains on, and measures how they are spread."""

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator

import numpy as np
from ml_collections import ConfigDict

from diffjax.build.inputs.embeddings import meet
from diffjax.build.kinds import latents
from diffjax.build.stages import autoencoders
from diffjax.core.command import path
from diffjax.core.errors import BadData, ConfigError, require
from diffjax.data.broken import BrokenRecord
from diffjax.data.record import RecordSource
from diffjax.devices import processes
from diffjax.encoders.autoencoder import latents as encoding
from diffjax.encoders.autoencoder import spread
from diffjax.encoders.autoencoder.latents import Latents, PictureEncoder, Views, key_of
from diffjax.evaluation.examples import Spread

# Pictures whose latents are measured; moments that lie on the disk cost nothing.
MEASURED, MEASURED_CACHED = 256, 2048
DIGITS = 6  # of numbers that are written into a config


def encoder_of(options: ConfigDict, records: RecordSource) -> PictureEncoder:
    """What encodes the pictures of these records as the config says.

    Raises:
      ConfigError: no autoencoder is named, or it is another than the config says.
    """
    latent, data = options.latent, options.data
    require(bool(latent.autoencoder), autoencoders.KEY, "", NAME_ONE)
    opened = latents.opened_for(options)
    views = Views(data.size_px, data.aspect, data.ground, data.flip, latent.crops)
    model = latents.model_of(opened.sizes)
    return PictureEncoder(opened.name, opened.mark, model, opened.params, views, records)


NAME_ONE = (
    "name an autoencoder: a workdir of configs/autoencoder.py, diffusers:FOLDER, or a file of "
    "Stable Diffusion"
)


def cached(options: ConfigDict, records: RecordSource) -> Latents | None:
    """The moments of all pictures of these records; None if each step encodes its pictures.

    Pictures that the cache lacks are encoded first, by the first process, while the others wait.

    Raises:
      ConfigError: latent.cache is of another autoencoder, or no autoencoder is named.
      StorageError: the disk has no room for the moments.
    """
    if latents.SECTION not in options or not options.latent.cached:
        return None
    encoder = encoder_of(options, records)
    named = options.latent.cache
    folder = path(named) if named else encoding.default_folder(encoder)
    if not processes.is_first():
        meet()
    try:
        found = encoding.ensure(encoder, folder, _progress)
    except (BadData, OSError):
        raise
    except ValueError as error:
        raise ConfigError("latent.cache", str(folder), f"{error}; name another folder") from None
    if processes.is_first():
        meet()
    return found


def measured(options: ConfigDict, records: Callable[[], RecordSource]) -> ConfigDict:
    """The config with the mark of its autoencoder, and with a scale and a shift.

    Those that it lacks are measured on the records, which are then opened: z = (raw - mean) / std
    has variance 1, over all channels or by channel. All processes take what the first measures.

    Raises:
      ConfigError, StorageError: as `cached`; or no picture can be read.
    """
    new = options.copy_and_resolve_references()
    with new.unlocked():
        require(bool(options.latent.autoencoder), autoencoders.KEY, "", NAME_ONE)
        new.latent.mark = latents.opened_for(options).mark
        if options.latent.scale and options.latent.shift:
            return new
        scale, shift = _spread(new, records())
        new.latent.scale = tuple(new.latent.scale) or scale
        new.latent.shift = tuple(new.latent.shift) or shift
    return new


def _spread(options: ConfigDict, records: RecordSource) -> tuple[tuple[float, ...], ...]:
    """(scale, shift), of which the first process's count."""
    found = spread.measure(_moments(options, records), options.latent.channels)
    require(found.pictures > 0, "data.name", options.data.name, "no picture of it can be read")
    mean, std = found.over_all()
    print(
        f"latents of {found.pictures} pictures: mean {mean:.4g}, standard deviation {std:.4g}; by "
        f"channel {_shown(found.mean)} and {_shown(found.std)}",
        flush=True,
    )
    means, stds = ((mean,), (std,)) if not options.latent.by_channel else (found.mean, found.std)
    # a channel that is always the same stays as it is
    scale = [_rounded(1 / value) if value > 1e-6 else 1.0 for value in stds]
    shift = [_rounded(value) for value in means]
    said = processes.told_by_all(f"latents of {options.stage}", json.dumps([scale, shift]))
    scale, shift = json.loads(said[0])
    return tuple(scale), tuple(shift)


def _moments(options: ConfigDict, records: RecordSource) -> Iterator[np.ndarray]:
    """The moments of pictures that are spread over the records, without those that are broken."""
    there = cached(options, records)
    some = Spread(records, MEASURED if there is None else MEASURED_CACHED)
    if there is not None:
        for index in range(len(some)):
            with contextlib.suppress(BrokenRecord):
                yield there.of(some[index], None)
        return
    encoder = encoder_of(options, some)
    keys = (key for key in encoder.every_key() if key == key_of(key.partition(" ")[0], 0))
    while part := list(itertools.islice(keys, encoding.BATCH)):
        for moments in np.asarray(encoder.encode(part)[0]):
            if np.isfinite(moments).all():
                yield moments


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _shown(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def _progress(done: int, total: int) -> None:
    if done == total or done % 1024 < encoding.BATCH:
        print(f"latents: {done} of {total} pictures", flush=True)
