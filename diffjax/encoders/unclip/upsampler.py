"""The upsampler of Karlo, as diffusers saves it: two networks, one of them for the last step."""

from pathlib import Path
from typing import NamedTuple

from diffjax.core.trees import Params
from diffjax.encoders import tensors
from diffjax.encoders.ancestors import diffusers
from diffjax.encoders.matching import Tensor
from diffjax.encoders.unclip.prior import CONFIG, WEIGHTS
from diffjax.encoders.unreadable import read_downloaded_json
from diffjax.models.unet import UNet

FIRST, LAST = "super_res_first", "super_res_last"
CHANNELS = 3  # of a picture; the network is given the small one beside it


class Loaded(NamedTuple):
    """The two networks, of one shape, and the side of their pictures."""

    model: UNet
    first: Params
    last: Params
    side: int


def load(where: Path) -> Loaded:
    """The upsampler in the folder of a whole Karlo.

    Raises:
      ValueError: it is another network, or a file is damaged; one line.
    """
    model, side, first = _network(where / FIRST)
    other, _, last = _network(where / LAST, side)
    ours = lambda one: (one.width, tuple(one.mults), one.num_blocks, one.scale_shift)  # noqa: E731
    if ours(model) != ours(other):
        raise ValueError(f"{where}: {FIRST} and {LAST} are networks of different sizes")
    return Loaded(model, first, last, side)


def _network(folder: Path, side: int | None = None) -> tuple[UNet, int, Params]:
    """A network. side: of its pictures, if its config does not say it."""
    file = folder / CONFIG
    config = read_downloaded_json(file)
    if side is not None:
        config = {**config, "sample_size": config.get("sample_size") or side}
    model, inputs, size = diffusers.model_of(config, file)
    if (inputs, model.out_channels) != (2 * CHANNELS, CHANNELS):
        raise ValueError(
            f"{file}: takes {inputs} channels and predicts {model.out_channels}, want "
            f"{2 * CHANNELS} and {CHANNELS}: no upsampler of Karlo"
        )
    stored: dict[str, Tensor] = dict(tensors.open_safetensors(folder, WEIGHTS))
    return model, size, diffusers.params_of(model, inputs, stored, "diffusers", folder)
