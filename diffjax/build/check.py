"""Refuses configs that are not valid, before anything is loaded or compiled."""

import functools
import math
import re
from collections.abc import Iterable, Mapping

import jax
from ml_collections import ConfigDict
from PIL import ImageColor

from diffjax.build import fitting, noise, tasks
from diffjax.build.inputs import vectors
from diffjax.build.kinds import latents, rehearsing
from diffjax.build.models import DTYPES, MODELS, model_of
from diffjax.build.options.config import one_of
from diffjax.core.errors import ConfigError, require
from diffjax.core.limits import MAX_BLOCKS, MAX_SEED, MAX_TOKENS
from diffjax.data import transforms
from diffjax.data.sources import folder
from diffjax.diffusion import schedule
from diffjax.diffusion.predict import KINDS
from diffjax.diffusion.training import weighting
from diffjax.diffusion.training.times import TIMES
from diffjax.images.degrade import DEGRADATIONS
from diffjax.tasks import settings
from diffjax.tasks.lora import PRIOR_TARGETS
from diffjax.training import averages, optim

INFINITY = float("inf")
MAX_LEVELS = 16  # of a U-Net, each of which halves the picture
# The limits of each number of a config; both ends are allowed. None: any finite number.
LIMITS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(
        ("data.size_px", "sample.num_images", "model.width", "model.patch",
         "model.token_width", "model.mults",
         "model.image_width", "model.image_heads", "model.text_width",
         "model.text_heads", "model.embed",
         "contrastive.chunk", "train.evaluate_examples", "model.channels", "model.latent",
         "autoencoding.adversary_layers", "autoencoding.adversary_width",
         "latent.channels", "latent.crops"),
        (1, 2**20),
    ),
    **dict.fromkeys(("text.max_tokens", "tokens.length"), (1, MAX_TOKENS)),
    **dict.fromkeys(
        ("model.num_blocks", "model.image_layers", "model.text_layers", "model.depth"),
        (1, MAX_BLOCKS),
    ),
    **dict.fromkeys(
        ("data.batch_size", "train.accumulate", "mesh.fsdp", "mesh.tensor"), (1, 2**24)
    ),
    **dict.fromkeys(("train.num_steps", "train.log_every", "train.max_bad_steps"), (1, 2**31 - 1)),
    **dict.fromkeys(
        ("train.sample_every", "train.evaluate_every", "train.save_every", "train.snapshot_every",
         "train.keep", "train.keep_every", "data.crop_px", "low_res.size_px",
         "optim.warmup_steps", "text.width", "model.num_heads", "model.canvas", "model.finish",
         "model.head_width",
         "model.steps", "model.embedding_width", "model.norm_groups",
         "contrastive.shift_px", "model.codes", "model.groups", "autoencoding.adversary_start"),
        (0, 2**31 - 1),
    ),
    **dict.fromkeys(("text.drop", "low_res.max_aug_level"), (0, 1)),
    **{f"sample.{name}": limits for name, limits in settings.LIMITS.items()},
    "sample.best_of": (1, 64),
    "data.max_bad_fraction": (0, 1),
    "data.validation": (0, 0.9),
    "data.workers": (0, 512),
    "seed": (0, MAX_SEED),
    "train.max_seconds": (0, 1e9),
    "optim.learning_rate": (0, 1e300),
    "optim.b1": (0, math.nextafter(1, 0)),
    "optim.b2": (0, math.nextafter(1, 0)),
    "optim.eps": (0, 1),
    "optim.weight_decay": (0, 1e3),
    "optim.clip_norm": (0, 1e9),
    "diffusion.logsnr_min": (-100, 100),
    "diffusion.logsnr_max": (-100, 100),
    "diffusion.shift": (1e-6, 1e6),
    "diffusion.num_levels": (2, 100_000),
    "diffusion.times_mean": (-10, 10),
    "diffusion.times_std": (0.01, 10),
    "diffusion.offset_noise": (0, 10),
    "diffusion.vlb_weight": (0, 1e6),
    "diffusion.self_condition": (0, 1),
    "diffusion.uncertainty": (0, 2**16),
    "diffusion.learned_schedule": (0, 2**16),
    "model.dropout": (0, 0.99),
    "model.norm_eps": (1e-12, 1),
    "classes.num": (1, 2**24),
    "classes.drop": (0, 1),
    "embedding.width": (1, 2**20),
    "embedding.drop": (0, 1),
    "mask.drop": (0, 1),
    "tokens.drop": (0, 1),
    "mask.strokes": (0, 1),
    "contrastive.drop": (0, 0.99),
    **dict.fromkeys(
        ("autoencoding.perceptual_weight", "autoencoding.kl_weight", "autoencoding.code_weight",
         "autoencoding.commitment", "autoencoding.code_restart", "autoencoding.adversary_weight"),
        (0, 1e6),
    ),
    "autoencoding.code_average": (0, math.nextafter(1, 0)),
    "vectors.width": (1, 2**20),
    "vectors.scale": (0, 1e6),
    "autoregressive.components": (1, 2**14),
    **dict.fromkeys(("autoregressive.buckets", "autoregressive.dots"), (2, 2**16)),
    "latent.factor": (1, 2**10),
    "latent.scale": (1e-6, 1e6),
    "latent.shift": (-1e6, 1e6),
    "latent.tile_px": (0, 2**20),
    "classifying.min_crop": (0.1, 1),
    "lora.rank": (1, 2**12),
    "lora.alpha": (0, 1e6),
    "lora.prior_weight": (0, 1e6),
    "lora.prior_share": (0.01, 0.99),
    "distil.teacher_steps": (2, 10_000),
    "distil.guidance_weight": (0, 1_000),
    "rehearsal.perceptual_weight": (0, 1e6),
}  # fmt: skip
# What a stage that makes pictures may choose from, beside CHOICES.
MAKING: Mapping[str, Iterable[str]] = {
    "model.kind": MODELS,
    "diffusion.schedule": schedule.SCHEDULES,
    "diffusion.predict": KINDS,
    "diffusion.weighting": weighting.NAMES,
    "diffusion.times": (*TIMES, noise.IMPORTANCE, noise.LOGIT_NORMAL),
    "diffusion.objective": ("simple", "hybrid", "vlb"),
    "diffusion.over": ("u", "logsnr"),
}
CHOICES = {
    "model.dtype": DTYPES,
    "data.captions": folder.CAPTIONS,
    "data.aspect": transforms.ASPECTS,
    "optim.name": optim.OPTIMISERS,
    "optim.decay": optim.DECAYS,
}


def check(config: ConfigDict, devices: int | None = None) -> None:
    """Checks the config of a stage.

    devices: the number of devices of the mesh; None for all devices of this machine.

    Raises:
      ConfigError: a value is not allowed; names the key, its value and what is allowed.
    """
    kind = tasks.other_kind(config)
    own = MAKING if kind is None else kind.choices
    for key, allowed in (*CHOICES.items(), *own.items()):
        one_of(config, key, allowed)
    check_numbers(config)
    try:
        averages.parse(config.train.ema)
    except ValueError as error:
        raise ConfigError("train.ema", config.train.ema, str(error)) from None
    try:
        for group in config.optim.groups:
            optim.parse_group(group)
    except ValueError as error:
        raise ConfigError("optim.groups", config.optim.groups, str(error)) from None
    check_ground(config.data.ground)
    if kind is None:
        check_making(config)
    else:
        kind.check(config)
    check_lora(config)
    fitting.check_student(config)
    rehearsing.check(config)
    fitting.check_mesh(config, devices or jax.device_count())


def check_numbers(config: ConfigDict, ending: str = "") -> None:
    """Checks all numbers, also of a config that came with a stranger's file.

    ending: of the messages. Raises as `check` does.
    """
    for key, (low, high) in LIMITS.items():
        check_limits(config, key, low, high, ending)
    levels = len(config.model.get("mults", ()))
    require(levels <= MAX_LEVELS, "model.mults", levels, f"at most {MAX_LEVELS} levels{ending}")


def check_making(config: ConfigDict) -> None:
    """Checks what only the config of a stage that makes pictures has."""
    if "low_res" in config:
        one_of(config, "low_res.degrade", ("", *DEGRADATIONS))
    noise.schedule_of(config)
    most = noise.num_steps_of(config)
    for name, wrong in settings.faults(tasks.settings_of(config), most).items():
        raise ConfigError(f"sample.{name}", config.sample[name], wrong)
    fitting.check_told(config)
    fitting.check_learning(config)
    if latents.SECTION in config:
        latents.check(config, model_of(config).stride)
    elif config.model.kind == tasks.PRIOR:
        vectors.check_prior(config)
        model_of(config)
    else:
        fitting.check_sizes(config)


def check_lora(config: ConfigDict) -> None:
    """Checks that a LoRA changes something, by patterns that can be read."""
    if "lora" not in config:
        return
    targets = config.lora.targets
    require(bool(targets), "lora.targets", targets, 'name some, such as "attention"')
    one_of(config, "lora.prior_target", PRIOR_TARGETS)
    for target in targets:
        try:
            re.compile(target)
        except re.error as error:
            raise ConfigError("lora.targets", target, f"is no pattern: {error}") from None


def check_ground(colour: str) -> None:
    """Refuse what is no colour."""
    try:
        ImageColor.getrgb(colour)
    except ValueError:
        allowed = 'want a colour such as "white" or "#ffcc00"'
        raise ConfigError("data.ground", colour, allowed) from None


def check_limits(config: ConfigDict, key: str, low: float, high: float, ending: str = "") -> None:
    """Checks that a number, or each of a tuple, is finite and in [low, high].

    The key may be absent. ending: of the message.
    """
    *parents, last = key.split(".")
    section = functools.reduce(lambda part, name: part.get(name, {}), parents, config)
    if last not in section:
        return
    value = section[last]
    first, last = (f"{end}" if isinstance(end, int) else f"{end:g}" for end in (low, high))
    allowed = f"must be between {first} and {last}" if high < 1e9 else f"must be at least {first}"
    numbers = value if isinstance(value, tuple) else (value,)
    fits = all(
        isinstance(number, int | float) and math.isfinite(number) and low <= number <= high
        for number in numbers
    )
    require(fits, key, value, f"{allowed}{ending}")
