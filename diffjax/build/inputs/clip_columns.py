"""Opens the CLIP whose vectors a stage makes or is told, and makes these columns once."""

import functools
from pathlib import Path

from ml_collections import ConfigDict

from diffjax.build.guides import clips
from diffjax.build.inputs.embeddings import made_of_captions, of_known_captions
from diffjax.build.inputs.vectors import KEY, SECTION
from diffjax.build.models import TOLD_TEXT_VECTORS
from diffjax.build.options import resume
from diffjax.core.errors import require
from diffjax.data.readers import Embed
from diffjax.data.record import RecordSource
from diffjax.encoders.cache import cache
from diffjax.encoders.clip import vectors
from diffjax.encoders.clip.captions import CaptionVectors
from diffjax.encoders.clip.encoder import PREFIX, Clip
from diffjax.tasks.vectors import IMAGE_VECTOR


def clip_of(config: ConfigDict) -> Clip:
    """The CLIP that the config names, after a check that it is the one that is meant.

    Raises:
      ConfigError: there is none, its vectors have another width, or it is another than the config
        was trained with.
    """
    where, width, mark = (config.vectors[key] for key in ("clip", "width", "mark"))
    named = f'want "{PREFIX}PLACE", such as "{PREFIX}emoji"'
    require(where.startswith(PREFIX) and where != PREFIX, KEY, where, named)
    clip = _opened(where.removeprefix(PREFIX))
    require(width == clip.width, "vectors.width", width, f"{where} has {clip.width}")
    another = f"is another CLIP, {clip.fingerprint[:12]}, than that of the vectors that were"
    require(mark in ("", clip.fingerprint), KEY, where,
            f"{another} learned, {mark[:12]}: name that one")  # fmt: skip
    return clip


@functools.lru_cache(maxsize=4)
def _opened(where: str) -> Clip:
    return clips.load(where, KEY)


def marked(config: ConfigDict, workdir: Path) -> ConfigDict:
    """The config with the fingerprint of its CLIP, which must be the one that a run began with.

    Raises what `clip_of` does.
    """
    if SECTION not in config:
        return config
    new = config.copy_and_resolve_references()
    with new.unlocked():
        new.vectors.mark = config.vectors.mark or str(resume.begun(workdir).get("vectors.mark", ""))
        new.vectors.mark = clip_of(new).fingerprint
    return new


def with_image_vectors(config: ConfigDict, records: RecordSource) -> RecordSource:
    """The records with the column of their pictures' vectors, which are computed once.

    Raises:
      ConfigError: as `clip_of`.
      StorageError: the disk has no room for the vectors.
    """
    ground, clip = config.data.ground, clip_of(config)
    return vectors.with_vectors(records, IMAGE_VECTOR, clip, ground, _pictures_progress)


def of_captions(config: ConfigDict, records: RecordSource) -> Embed | None:
    """Each caption of the records -> its vector [1 d], computed once; None if no stage is told it.

    Raises:
      ConfigError: as `clip_of`, or a caption cannot be read.
      StorageError: the disk has no room for the vectors.
    """
    if config.model.kind not in TOLD_TEXT_VECTORS:
        return None
    made = CaptionVectors(clip_of(config))
    found = made_of_captions(config, records, made, _captions_progress, cache.FLOAT16)
    return of_known_captions(found.embed)


def _pictures_progress(done: int, total: int) -> None:
    if done == total or done % 2048 < vectors.BATCH:
        print(f"vectors of pictures: {done} of {total}", flush=True)


def _captions_progress(done: int, total: int) -> None:
    if done == total or done % 2048 < vectors.BATCH:
        print(f"vectors of captions: {done} of {total}", flush=True)
