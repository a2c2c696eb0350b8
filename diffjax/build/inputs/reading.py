"""Reads the records that a config names, with the columns that are computed of their pictures."""

import dataclasses

from ml_collections import ConfigDict

from diffjax.build.inputs import clip_columns, vectors
from diffjax.build.kinds import contrastive
from diffjax.core.errors import ConfigError, require
from diffjax.data.record import NoSplit, RecordSource
from diffjax.data.sources.open import Wanted, open_source
from diffjax.data.sources.prior import WithPrior
from diffjax.encoders.clip import encoder as clip_encoder
from diffjax.encoders.clip import vectors as clip_vectors
from diffjax.tasks.contrastive import VECTOR


def max_bad_fraction_of(config: ConfigDict) -> float:
    """The share of all records whose pictures may be broken."""
    return config.data.max_bad_fraction


def source_of(config: ConfigDict, split: str = "") -> RecordSource:
    """The records of the data set, of data.split unless another is named.

    Raises:
      ConfigError: there is no such data set, or no record in it.
    """
    data = config.data
    require(bool(data.name), "data.name", "", "name a data set, such as folder:DIR (docs/data.md)")
    wanted = wanted_of(config, split or data.split)
    try:
        found = open_source(data.name, wanted)
    except NoSplit as error:
        raise ConfigError("data.split", wanted.split, str(error)) from None
    except ValueError as error:
        raise ConfigError("data.name", data.name, str(error)) from None
    return with_columns(config, with_prior(config, found))


def with_prior(config: ConfigDict, records: RecordSource) -> RecordSource:
    """The records mixed with those of lora.prior, if there are any.

    Raises:
      ConfigError: there is no such data set, or no record in it.
    """
    name = config.lora.prior if "lora" in config else ""
    if not name:
        return records
    try:
        prior = open_source(
            name, dataclasses.replace(wanted_of(config, config.data.split), names=())
        )
    except ValueError as error:
        raise ConfigError("lora.prior", name, str(error)) from None
    return WithPrior(records, prior, config.lora.prior_share)


def wanted_of(config: ConfigDict, split: str) -> Wanted:
    """What the config wants of a split of its data set."""
    data = config.data
    return Wanted(
        split=split,
        size_px=data.size_px,
        ground=data.ground,
        image_key=data.image_key,
        caption_key=data.caption_key if "text" in config or "tokens" in config else "",
        captions=data.captions,
        validation=data.validation,
        names=data.names,
        vector_key=config.embedding.of if "embedding" in config and not _is_made(config) else "",
    )


def with_columns(config: ConfigDict, records: RecordSource) -> RecordSource:
    """The records with the column that a CLIP or the backbone of one computes of pictures.

    Each process whose cache lacks it computes it.

    Raises:
      ConfigError: it is no CLIP, or its vectors have another width.
      InputError: the weights of a CLIP's backbone are not installed.
      StorageError: the disk has no room for the vectors.
    """
    if contrastive.is_contrastive(config) and (made := contrastive.vectors_of(config)):
        ground = config.data.ground
        return clip_vectors.with_vectors(records, VECTOR, made, ground, _vectors_progress)
    if vectors.SECTION in config:
        return clip_columns.with_image_vectors(config, records)
    if not _is_made(config):
        return records
    name, width = config.embedding.encoder, config.embedding.width
    prefix = clip_encoder.PREFIX
    require(name.startswith(prefix), "embedding.encoder", name, f'want "{prefix}PLACE"')
    try:
        clip = clip_encoder.load(name.removeprefix(prefix))
    except ValueError as error:
        raise ConfigError("embedding.encoder", name, str(error)) from None
    require(width == clip.config.embed, "embedding.width", width, f"{name} has {clip.config.embed}")
    of, ground = config.embedding.of, config.data.ground
    return clip_vectors.with_vectors(records, of, clip, ground, _vectors_progress)


def _is_made(config: ConfigDict) -> bool:
    """Whether the column of `embedding` is computed of the pictures, and no field of a data set."""
    computed = vectors.SECTION in config
    return bool("embedding" in config and (config.embedding.encoder or computed))


def _vectors_progress(done: int, total: int) -> None:
    if done == total or done % 2048 < 64:
        print(f"vectors of pictures: {done} of {total}", flush=True)


def held_out(config: ConfigDict, split: str) -> RecordSource:
    """`records_held_out` with the columns that are computed; raises what both raise."""
    return with_columns(config, records_held_out(config, split))


def records_held_out(config: ConfigDict, split: str) -> RecordSource:
    """The records of a split that is not trained on, of data.validation_names if there are some.

    data.names, which are trained on, does not apply.

    Raises:
      ConfigError: the data set has no such split.
    """
    remedy = "name another, or train with train.evaluate_every=0"
    try:
        found = open_source(
            config.data.name,
            dataclasses.replace(wanted_of(config, split), names=config.data.validation_names),
        )
    except ValueError as error:
        raise ConfigError("data.validation_split", split, f"{error}; {remedy}") from None
    require(len(found) > 0, "data.validation_split", split, f"holds no record; {remedy}")
    return found
