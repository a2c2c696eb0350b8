"""Opens the CLIP that a flag names: one trained here, one of others, or the one that ships."""

from pathlib import Path

from diffjax.build import matching, places
from diffjax.core.errors import ConfigError
from diffjax.encoders.clip import encoder
from diffjax.encoders.clip.encoder import Clip


def open_clip(where: str, flag: str = "--clip") -> Clip:
    """The CLIP of a workdir or an export of diffjax, or one that `encoders.clip` reads.

    flag: its name, for messages.

    Raises:
      ConfigError: there is none, or it is not a CLIP with a ViT.
      StorageError: a checkpoint is damaged.
    """
    path = Path(where).expanduser()
    if (path / "checkpoints").is_dir() or (path.is_file() and places.is_file(path)):
        if not matching.only_clip([path]):
            raise ConfigError(flag, where, "holds a stage that makes pictures: want a CLIP")
        return matching.load(path).clip
    try:
        return encoder.load(where)
    except ValueError as error:
        raise ConfigError(flag, where, str(error)) from None
