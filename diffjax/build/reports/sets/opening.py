"""Opens what sets of pictures are judged by: an extractor, a CLIP, and the real pictures."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from diffjax.build.guides import clips
from diffjax.build.reports.loaded import Asked
from diffjax.core.errors import ConfigError, InputError, require
from diffjax.data import readers
from diffjax.data.record import RecordSource
from diffjax.data.sources.chosen import Chosen
from diffjax.data.sources.open import Wanted, open_source
from diffjax.encoders.clip import encoder as clip_encoder
from diffjax.encoders.clip.encoder import Clip
from diffjax.evaluation import collect, examples
from diffjax.evaluation.collect import Collected, Pictures
from diffjax.evaluation.examples import Examples, Spread
from diffjax.evaluation.extractors import clip as clip_tower
from diffjax.evaluation.extractors.extractor import Extractor
from diffjax.evaluation.extractors.open import open_extractor
from diffjax.evaluation.metrics import statistics
from diffjax.evaluation.sets import Set

BLOCK = 256  # records in memory at a time
SAFETENSORS, NUMPYS = ".safetensors", ".npz"


@dataclasses.dataclass(frozen=True, eq=False)
class Judges:
    """The extractor, the CLIP if one is named, and the mesh on which they run."""

    extractor: Extractor
    clip: Clip | None
    mesh: Mesh

    def look(
        self, name: str, blocks: Iterable[Pictures], count: int, *, with_clip: bool = False
    ) -> Collected:
        """What is kept of a set of `count` pictures; see `collect`."""
        clip = self.clip if with_clip else None
        return collect.collect(name, blocks, self.extractor, clip=clip, asked=count, mesh=self.mesh)


def judges_of(asked: Asked, mesh: Mesh) -> Judges:
    """The judges that the flags name.

    Raises:
      ConfigError: there is no such extractor or CLIP.
      InputError: its weights are missing or damaged.
    """
    clip = None if asked.clip is None else clips.load(asked.clip)
    return Judges(extractor_of(asked.extractor), clip, mesh)


def extractor_of(text: str, flag: str = "--extractor") -> Extractor:
    """The extractor that a flag names; that of "clip:WHERE" may also be trained here.

    Raises:
      ConfigError: there is no such one.
      InputError: its weights are missing or damaged.
    """
    if text.startswith(clip_encoder.PREFIX):
        return clip_tower.of(clips.load(text.removeprefix(clip_encoder.PREFIX), flag))
    return open_extractor(text)


def is_statistics(against: str) -> bool:
    """Whether the text names a file of statistics, and not a source of pictures."""
    return Path(against).suffix in (SAFETENSORS, NUMPYS)


def of_file(against: str, extractor: Extractor, made: int, any_count: bool) -> Set:
    """The statistics in a file that --statistics wrote.

    Raises:
      InputError: there is no such file, it holds something else, or it is of another extractor,
        resize or count.
      StorageError: the file is damaged.
    """
    path = Path(against).expanduser()
    if path.suffix != SAFETENSORS:
        raise InputError(
            f"{against}: does not say of which pictures, extractor and resize it is; give "
            "--against the pictures themselves, or a file that --statistics wrote of them"
        )
    found = statistics.load(path)
    mine = dataclasses.replace(found, extractor=extractor.name, resize=extractor.resize)
    statistics.check_alike(mine, found)  # before anything is drawn
    if found.count != made and not any_count:
        raise InputError(
            f"{against}: is of {found.count} pictures, and {made} are to be compared with them: "
            f"--num {found.count}, or --any-count"
        )
    return Set(found)


def of_source(asked: Asked, size_px: int, judges: Judges, made: int) -> Set:
    """The real pictures of --against: as many as are made, spread evenly, or all.

    They are cut to squares and shrunk to `size_px`, as those of training are.

    Raises:
      ConfigError: there is no such source, or it has fewer pictures than are made.
      InputError: what `collect` refuses.
    """
    against = asked.against or ""
    try:
        records = open_source(against, Wanted(asked.split or "train", size_px, caption_key=""))
    except ValueError as error:
        raise ConfigError("--against", against, str(error)) from None
    count = real_count(len(records), made, asked.any_count, against)
    blocks = pictures_of(Spread(records, count), [readers.picture(size_px)])
    return judges.look("real", blocks, count).whole


def real_count(there: int, made: int, any_count: bool, source: str) -> int:
    """How many real pictures are taken.

    Raises:
      ConfigError: there are fewer than are made, and other counts are not allowed.
    """
    allowed = f"{source} has {there} pictures: lower it, or --any-count compares with all of them"
    require(any_count or there >= made, "--num", made, allowed)
    return there if any_count else made


def pictures_of(
    records: RecordSource, needed: Sequence[readers.Reader], max_bad_fraction: float = 0.0
) -> Iterator[Pictures]:
    """The pictures of all records, a block at a time."""
    for block in blocks_of(records, needed, max_bad_fraction):
        yield np.asarray(block.columns["image"])


def blocks_of(
    records: RecordSource, needed: Sequence[readers.Reader], max_bad_fraction: float = 0.0
) -> Iterator[Examples]:
    """The examples of all records, a block at a time.

    Raises:
      BadData: a record cannot be read, or too many are broken.
    """
    for first in range(0, len(records), BLOCK):
        rows = np.arange(first, min(first + BLOCK, len(records)))
        yield examples.read(Chosen(records, rows, f"from {first}"), needed, max_bad_fraction)
