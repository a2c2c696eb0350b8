"""Opens the CLIP that a flag or a config names: one that was trained here, or one of others."""

from pathlib import Path

from ml_collections import ConfigDict

from diffjax.build import contrastive, matching, places
from diffjax.core import tensorfile
from diffjax.core.command import path
from diffjax.core.errors import ConfigError, InputError, require
from diffjax.encoders.clip import encoder, vocabulary
from diffjax.encoders.clip.encoder import Clip

SHIPPED = "shipped"


def load(where: str, flag: str = "--clip", verify: str = "full") -> Clip:
    """The CLIP of a workdir or an export, or of a folder, a file or a name of `encoder.load`.

    where: "shipped" is the one that comes with diffjax. flag: the name of the flag, for messages.

    Raises:
      ConfigError: there is none, it is none, or its vocabulary is not its own.
      StorageError: its checkpoint is damaged.
    """
    require(bool(where.strip()), flag, where, "name a CLIP: a workdir, a folder, or shipped")
    place = path(where)
    if where == SHIPPED and not place.exists():
        where = vocabulary.EMOJI
        what = "no CLIP came along; train one with configs/clip.py and name its workdir"
        require(encoder.SHIPPED[where].is_dir(), flag, SHIPPED, what)
    elif (options := _trained(place, flag)) is not None:
        makes = "makes pictures; want a CLIP, which compares them with texts"
        require(contrastive.is_contrastive(options), flag, where, makes)
        return matching.load(place, verify=verify).clip
    try:
        return encoder.load(where)
    except (ValueError, OSError) as error:
        raise ConfigError(flag, where, str(error)) from None


def _trained(place: Path, flag: str) -> ConfigDict | None:
    """The config of a workdir or of an export; None if the place is neither."""
    if not places.is_file(place):
        ours = (place / "checkpoints").is_dir()
        return places.options_of(place) if ours else None
    try:
        text = tensorfile.read_metadata(place).get("config")
    except FileNotFoundError:
        raise ConfigError(flag, str(place), "there is no such file") from None
    except (InputError, ValueError, OSError):
        return None  # `encoder.load` says what is wrong with it
    return places.options_of(place) if text else None
