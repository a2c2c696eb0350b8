"""UNet2DModel of diffusers, as google/ddpm-cifar10-32 and its like are saved: a folder."""

import dataclasses
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from diffjax.core.json_types import Json, JsonObject
from diffjax.core.trees import Params
from diffjax.encoders import tensors, torch_archive, torch_legacy
from diffjax.encoders.ancestors.names import Layout, Shape, source_of
from diffjax.encoders.autoencoder.weights import WEIGHTS
from diffjax.encoders.matching import Tensor, matched
from diffjax.encoders.stable_diffusion import scheduler
from diffjax.encoders.stable_diffusion.scheduler import Scheduler
from diffjax.encoders.unreadable import first_line, read_downloaded_json
from diffjax.models.unet import UNet

CLASS = "UNet2DModel"
PICKLE = "diffusion_pytorch_model.bin"
INDEX, CONFIG, SCHEDULER_CONFIG = "model_index.json", "config.json", "scheduler_config.json"
LARGEST = 2**20  # of what a config says
ATTENTIVE = ("AttnDownBlock2D", "AttnUpBlock2D")
PLAIN = ("DownBlock2D", "UpBlock2D")
# Blocks that change the resolution in a residual block; all of a network's are such, or none.
RESIDUAL = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
# What a config may say only so; a key that it lacks has this value too.
FIXED: JsonObject = {
    "act_fn": "silu", "center_input_sample": False, "time_embedding_type": "positional",
    "mid_block_scale_factor": 1, "class_embed_type": None,
    "downsample_type": "conv", "upsample_type": "conv", "attn_norm_num_groups": None,
    "num_train_timesteps": None,
}  # fmt: skip
# (flip_sin_to_cos, freq_shift) -> whether the sines come first.
WAVES = {(True, 0): False, (False, 1): True}
# variance_type -> the sampler and its noise.
VARIANCES = {
    "fixed_small": ("ddpm", 0.0), "fixed_small_log": ("ddpm", 0.0), "fixed_large": ("ddpm", 1.0),
    "fixed_large_log": ("ddpm", 1.0), "learned_range": ("ddpm_learned", 0.0),
}  # fmt: skip


class Loaded(NamedTuple):
    """A U-Net of others with its noise.

    side: of its pictures. inputs: channels. clips: whether x_0 is held in [-1, 1] when sampling.
    """

    model: UNet
    params: Params
    side: int
    inputs: int
    scheduler: Scheduler
    clips: bool


def is_one(place: Path) -> bool:
    """Whether a folder holds such a network."""
    for file in (place / "unet" / CONFIG, place / CONFIG):
        if file.is_file():
            try:
                return read_downloaded_json(file).get("_class_name") == CLASS
            except ValueError:
                return False
    return False


def load(where: Path) -> Loaded:
    """The network of a folder, with its parts in folders of their own or side by side.

    Raises:
      ValueError: it is another network, its parts do not fit each other, or it is damaged; one
        line.
    """
    folder = where / "unet" if (where / "unet" / CONFIG).is_file() else where
    file = folder / CONFIG
    config = read_downloaded_json(file)
    stored: dict[str, Tensor]
    if (folder / PICKLE).is_file() and not (folder / WEIGHTS).is_file():
        archive = torch_archive.is_archive(folder / PICKLE)
        stored = dict((torch_archive if archive else torch_legacy).read(folder / PICKLE))
    else:
        stored = dict(tensors.open_safetensors(folder, WEIGHTS))
    model, inputs, side = model_of(config, file)
    old = "mid_block.attentions.0.query.weight" in stored
    params = params_of(model, inputs, stored, "old" if old else "diffusers", folder)
    noise, clips = scheduler_of(where)
    learned, channels = noise.sampler == "ddpm_learned", model.out_channels // inputs
    if channels != 1 + learned:
        raise ValueError(
            f"{where}: predicts {model.out_channels} channels of {inputs}, and its scheduler says "
            f"that the variance is {'learned' if learned else 'not learned'}"
        )
    return Loaded(model, params, side, inputs, noise, clips)


def scheduler_of(where: Path) -> tuple[Scheduler, bool]:
    """The noise and the sampler of a folder, and whether x_0 is clipped; DDPM's if it says none.

    Raises:
      ValueError: a value is not allowed; one line that names it.
    """
    files = [where / "scheduler" / SCHEDULER_CONFIG, where / SCHEDULER_CONFIG]
    file = next((file for file in files if file.is_file()), files[1])
    said: JsonObject = {"_class_name": "DDPMScheduler"}
    said = read_downloaded_json(file) if file.is_file() else said
    noise = scheduler.of_config(said, file)
    if noise.sampler == "ddpm":
        kind = str(said.get("variance_type", "fixed_small"))
        if kind not in VARIANCES:
            raise ValueError(
                f"{file}: variance_type is {kind[:40]!r}, want one of {', '.join(VARIANCES)}"
            )
        sampler, gamma = VARIANCES[kind]
        noise = dataclasses.replace(noise, sampler=sampler, noise=gamma)
    return noise, said.get("clip_sample", True) is True


def model_of(config: JsonObject, file: Path) -> tuple[UNet, int, int]:
    """(the network of a config.json, its input channels, the side of its pictures).

    Raises:
      ValueError: it is another network; one line.
    """
    if config.get("_class_name") != CLASS:
        raise ValueError(f"{file}: _class_name is {config.get('_class_name')!r}, want {CLASS!r}")
    for name, wanted in FIXED.items():
        if config.get(name, wanted) != wanted:
            raise ValueError(f"{file}: {name} is {config[name]!r}, want {wanted!r}")
    widths, down = config.get("block_out_channels"), config.get("down_block_types")
    if not isinstance(widths, list) or not 0 < len(widths) <= 16:
        raise ValueError(f"{file}: block_out_channels is {str(widths)[:80]}, want 1 to 16 numbers")
    sizes = [_whole(one, "block_out_channels", file) for one in widths]
    if any(size % sizes[0] for size in sizes):
        raise ValueError(f"{file}: block_out_channels {sizes}: want multiples of the first")
    residual = down == [RESIDUAL[0]] * len(sizes)
    known = (RESIDUAL[0],) if residual else (ATTENTIVE[0], PLAIN[0])
    if not isinstance(down, list) or any(kind not in known for kind in down):
        raise ValueError(
            f"{file}: down_block_types is {str(down)[:80]}, want {ATTENTIVE[0]} and {PLAIN[0]}"
        )
    attentive = [kind == ATTENTIVE[0] for kind in down]
    plain = RESIDUAL[1] if residual else PLAIN[1]
    mirrored: list[Json] = [ATTENTIVE[1] if one else plain for one in reversed(attentive)]
    if len(down) != len(sizes) or config.get("up_block_types") != mirrored:
        raise ValueError(f"{file}: up_block_types do not mirror down_block_types, one for each of "
                         f"{len(sizes)} block_out_channels")  # fmt: skip
    waves = (config.get("flip_sin_to_cos", True), config.get("freq_shift", 0))
    if waves not in WAVES:
        raise ValueError(f"{file}: flip_sin_to_cos, freq_shift are {waves}, want {list(WAVES)}")
    around, scaled = config.get("downsample_padding", 1), config.get("resnet_time_scale_shift")
    if around not in (0, 1) or scaled not in (None, "default", "scale_shift"):
        raise ValueError(f"{file}: downsample_padding {around!r}, resnet_time_scale_shift "
                         f"{scaled!r}: want 0 or 1, and default or scale_shift")  # fmt: skip
    head, classes, eps = (config.get(name, default) for name, default in (
        ("attention_head_dim", 8), ("num_class_embeds", None), ("norm_eps", 1e-5)))  # fmt: skip
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise ValueError(f"{file}: norm_eps is {eps!r}, want a number between 0 and 1")
    resample: Literal["block", "conv", "conv_after"] = "conv" if around == 1 else "conv_after"
    if residual:
        resample = "block"
    middle = config.get("add_attention", True)
    if not isinstance(middle, bool):
        raise ValueError(f"{file}: add_attention is {middle!r}, want true or false")
    model = UNet(
        width=sizes[0],
        mults=tuple(size // sizes[0] for size in sizes),
        num_blocks=_whole(config.get("layers_per_block", 2), "layers_per_block", file),
        attention_levels=tuple(i for i, one in enumerate(attentive) if one),
        middle_attention=middle,
        num_heads=1 if head is None else 0,
        head_width=0 if head is None else _whole(head, "attention_head_dim", file),
        num_classes=0 if classes is None else _whole(classes, "num_class_embeds", file),
        null_class=False,
        out_channels=_whole(config.get("out_channels", 3), "out_channels", file),
        sine_first=WAVES[waves],
        norm_groups=_whole(config.get("norm_num_groups", 32), "norm_num_groups", file),
        norm_eps=eps,
        scale_shift=scaled == "scale_shift",
        attention_bias=True,
        resample=resample,
        steps=lambda logsnr: logsnr,
    )
    inputs = _whole(config.get("in_channels", 3), "in_channels", file)
    side = _whole(config.get("sample_size"), "sample_size", file)
    if side % model.stride:
        raise ValueError(f"{file}: sample_size {side}: want a multiple of {model.stride}")
    return model, inputs, side


def params_of(
    model: UNet, inputs: int, stored: dict[str, Tensor], layout: Layout, where: Path
) -> Params:
    """The parameters, after a check that the tensors are just those of the network."""
    if len(model.mults) * model.num_blocks > len(stored):
        raise ValueError(f"{where}: {len(stored)} tensors are fewer than such a U-Net has blocks")
    x = jnp.zeros((1, model.stride, model.stride, inputs))
    label = jnp.zeros(1, jnp.int32) if model.num_classes else None
    try:
        made = jax.eval_shape(model.init, jax.random.key(0), x, jnp.zeros(1), label=label)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: sizes that make no network: {first_line(error)}") from None
    shape = Shape(len(model.mults), model.num_blocks, tuple(model.attention_levels))
    sources = lambda ours: source_of(layout, ours, shape)  # noqa: E731
    params, left = matched(made["params"], sources, stored, where, "this U-Net")
    if left:
        raise ValueError(f"{where}: {min(left)} is not of this U-Net, and {len(left)} in all")
    return params


def _whole(value: Json, name: str, file: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= LARGEST:
        raise ValueError(f"{file}: {name} is {value!r}, want a whole number from 1 to {LARGEST}")
    return value
