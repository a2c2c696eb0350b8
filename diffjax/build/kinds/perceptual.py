"""The perceptual distances, by the names that configs give them."""

from pathlib import Path

from diffjax.core.errors import ConfigError, require
from diffjax.encoders import lpips
from diffjax.evaluation.extractors import lite0
from diffjax.models.perceptual import ByLite0, Lpips, Perceptual
from diffjax.tasks.task import Params

LITE0, LPIPS = "lite0", "lpips:"


def distance_of(name: str, key: str) -> tuple[Perceptual | None, Params]:
    """(the distance called `name`, its parameters); (None, {}) for "".

    key: of the config, for messages.

    Raises:
      ConfigError: a folder does not have the weights of LPIPS.
      InputError: the package with the weights of EfficientNet-lite0 is not installed.
    """
    if not name:
        return None, {}
    if name == LITE0:
        return ByLite0(), lite0.load().params
    try:
        return Lpips(), lpips.load(Path(name.removeprefix(LPIPS)).expanduser())
    except ValueError as error:
        raise ConfigError(key, name, str(error)) from None


def check(name: str, key: str) -> None:
    """Checks the name.

    Raises:
      ConfigError: it is none.
    """
    known = name in ("", LITE0) or name.startswith(LPIPS)
    require(known, key, name, f'want "{LITE0}", "{LPIPS}FOLDER" or ""')
