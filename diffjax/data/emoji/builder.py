"""The embedded data set as a TFDS builder: 7,841 emoji drawings in two styles, with captions.

`prepare(1024)` makes the data set of that size before it is needed.
"""

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from etils import epath

from diffjax.core import pools
from diffjax.core.errors import StorageError
from diffjax.core.files import disk_fault
from diffjax.data.emoji import aliases, splits, styles
from diffjax.data.emoji import drawings as drawings_lib
from diffjax.data.emoji.drawings import Drawing
from diffjax.data.emoji.phrases import captions

SIZES_PX = (64, 256, 1024)

_DESCRIPTION = """\
Emoji drawn by two hands, each with captions that say what it shows and in which style.

`train`, `validation` and `test` share no name and no picture. `compositional` has pairs of
profession and skin tone that `train` never shows together. `style` has one drawing each of names
whose other drawing is in `train`. Pictures are rasterised on white.
"""
_LICENSE = (
    "Pictures of style openmoji: CC BY-SA 4.0, all emojis designed by OpenMoji "
    "(https://openmoji.org). Pictures of style twemoji: CC BY 4.0, Copyright Twitter, Inc and "
    "other contributors (https://github.com/jdecked/twemoji)."
)
_FURTHER_LICENSES = (
    " Pictures of style fluent: MIT, Copyright (c) Microsoft Corporation "
    "(https://github.com/microsoft/fluentui-emoji). Pictures of style noto: Apache-2.0, Copyright "
    "Google Inc. (https://github.com/googlefonts/noto-emoji)."
)
_CITATION = """\
@misc{openmoji, title={OpenMoji: the open-source emoji and icon project},
  howpublished={https://openmoji.org}, note={CC BY-SA 4.0}}
@misc{twemoji, title={Twemoji}, author={Twitter, Inc and other contributors},
  howpublished={https://github.com/jdecked/twemoji}, note={CC BY 4.0}}
"""
# TFDS refuses to register a name twice, but reloading the module defines the class again, and so
# does the `__main__` of a spawned process.
_IS_AGAIN = __name__ != "diffjax.data.emoji.builder" or "Emoji" in globals()


def prepare(
    size_px: int = 64,
    data_dir: str | Path | None = None,
    *,
    workers: int | None = None,
    builder: "type[Emoji] | None" = None,
) -> Path:
    """The folder of `emoji/SIZE`, which is made if it does not exist or is incomplete.

    data_dir: defaults to $TFDS_DATA_DIR, then to ~/tensorflow_datasets. builder: of `emoji`, or
    `EmojiStyles`.
    workers: the number of processes that rasterise. The default is none at 64 px, which takes
    seconds, and else one per core. They are spawned, so a script that calls this must guard its
    `__main__`.

    Raises:
      ValueError: the data set does not have this size, or `EmojiStyles` lacks its packages.
      StorageError: the disk is full.
    """
    if size_px not in SIZES_PX:
        raise ValueError(f"size_px={size_px} is not a size of the emoji data set: {SIZES_PX}")
    made = (builder or Emoji)(
        config=str(size_px), data_dir=resolve_data_dir(data_dir), file_format="array_record"
    )
    made.workers = workers
    builder_dir = Path(made.data_dir)
    try:
        made.download_and_prepare()
    except StorageError:
        raise
    except (OSError, RuntimeError) as error:
        # Another process may have made the folder meanwhile, which is as good.
        if not (builder_dir / "dataset_info.json").exists():
            fault = disk_fault(error)
            if not fault:
                raise
            raise StorageError(
                f"{builder_dir}: {fault}; make room, or set TFDS_DATA_DIR to another folder"
            ) from None
    return builder_dir


def resolve_data_dir(data_dir: str | Path | None) -> str:
    """`data_dir`, or TFDS's default folder. The environment is read now, not at import."""
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return str(Path(chosen).expanduser())


class Emoji(tfds.core.GeneratorBasedBuilder, skip_registration=_IS_AGAIN):  # type: ignore[call-arg]
    """OpenMoji and Twemoji drawings, captioned, at 64, 256 or 1024 px."""

    name = "emoji"
    VERSION = tfds.core.Version("1.0.2")
    RELEASE_NOTES = {  # noqa: RUF012
        "1.0.0": "OpenMoji 17.0, Twemoji 17, names of emoji 2.16.",
        "1.0.1": "The one drawing that is no square, Twemoji's watermelon, is set in one.",
        "1.0.2": "A fifth caption, which names no style.",
    }
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name=str(size_px), description=f"{size_px} px squared, RGB")
        for size_px in SIZES_PX
    ]

    # TFDS would look for this with a package that it does not require.
    code_path = epath.Path(__file__)
    workers: int | None = None
    described = _DESCRIPTION
    licences = _LICENSE

    def _info(self) -> tfds.core.DatasetInfo:
        size_px = int(self.builder_config.name)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.described,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(size_px, size_px, 3), encoding_format="png"
                    ),
                    "captions": tfds.features.Sequence(tfds.features.Text()),
                    "name": tfds.features.Text(),
                    "style": tfds.features.Text(),
                    "code": tfds.features.Text(),
                }
            ),
            homepage="https://openmoji.org",
            license=self.licences,
            citation=_CITATION,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict]]]:
        del dl_manager  # nothing is downloaded: the pictures are in the wheels
        drawings = self.drawings()
        return {split: self._generate_examples(drawings[split]) for split in splits.SPLITS}

    def drawings(self) -> dict[str, list[Drawing]]:
        """The drawings of each split."""
        return splits.assign_splits(drawings_lib.catalogue())

    def captions(self, drawing: Drawing) -> tuple[str, ...]:
        """The captions of a drawing."""
        return captions(drawing.name, drawing.style, is_flag=drawing.is_flag)

    def _generate_examples(self, drawings: Sequence[Drawing]) -> Iterator[tuple[str, dict]]:
        size_px = int(self.builder_config.name)
        workers = self.workers
        if workers is None:
            workers = 0 if size_px <= 64 else os.cpu_count() or 1
        for drawing, png in zip(drawings, _rasterised(drawings, size_px, workers), strict=True):
            yield (
                f"{drawing.style}/{drawing.name}",
                {
                    "image": png,
                    "captions": self.captions(drawing),
                    "name": drawing.name,
                    "style": drawing.style,
                    "code": drawing.code,
                },
            )


class EmojiStyles(Emoji, skip_registration=_IS_AGAIN):  # type: ignore[call-arg]
    """The drawings of `emoji`, Fluent's flat ones and Noto's, with other names as captions."""

    name = "emoji_styles"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Fluent Emoji Flat 1.2.6 and Noto 1.2.9."}  # noqa: RUF012
    described = _DESCRIPTION.replace("two hands", "four hands")
    licences = _LICENSE + _FURTHER_LICENSES

    def drawings(self) -> dict[str, list[Drawing]]:
        """The drawings of each split; ValueError without the packages."""
        return styles.assign_splits(styles.catalogue())

    def captions(self, drawing: Drawing) -> tuple[str, ...]:
        """The captions of a drawing, those with other names too."""
        return aliases.all_captions(drawing)


def _rasterised(drawings: Sequence[Drawing], size_px: int, workers: int) -> Iterator[bytes]:
    """The drawings as PNGs, in order; the number of processes makes no difference."""
    rasterise = functools.partial(drawings_lib.rasterise, size_px=size_px)
    if workers == 0 or not drawings:
        yield from map(rasterise, drawings)
        return
    # The rasteriser holds the interpreter's lock, so threads would not be faster.
    with pools.pool(workers) as processes:
        yield from processes.map(rasterise, drawings, chunksize=8)
