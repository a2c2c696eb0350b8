"""Config -> objects. The config stops here: what lies below takes named arguments."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from diffjax.build.config import one_of
from diffjax.build.models import DTYPES, MODELS, model_of
from diffjax.checkpoint.portable import LIVE
from diffjax.core.errors import ConfigError, require
from diffjax.core.types import Schedule
from diffjax.data import pipeline, readers
from diffjax.data.record import RecordSource
from diffjax.data.sources import fake, tfds
from diffjax.devices import mesh as mesh_lib
from diffjax.diffusion import schedule
from diffjax.diffusion.predict import KINDS
from diffjax.diffusion.sampling.sampler import SAMPLERS, by_name
from diffjax.diffusion.sampling.spacing import SPACINGS
from diffjax.diffusion.training import weighting
from diffjax.diffusion.training.times import TIMES
from diffjax.encoders.cache import cache
from diffjax.encoders.t5 import TextEncoder, load_encoder
from diffjax.tasks import denoising
from diffjax.tasks.sampling import THRESHOLDS, SampleSettings
from diffjax.training import averages, optim, state, step

# These have two ends to choose, logsnr_min and logsnr_max.
WITH_ENDS = ("cosine", "sigmoid", "flow", "uniform", "edm")


def check(config: ConfigDict) -> None:
    """Refuse what cannot be, before anything is loaded or compiled.

    Raises:
      ConfigError: names the key, its value and what is allowed.
    """
    one_of(config, "model.kind", MODELS)
    one_of(config, "model.dtype", DTYPES)
    one_of(config, "diffusion.schedule", schedule.SCHEDULES)
    one_of(config, "diffusion.predict", KINDS)
    one_of(config, "diffusion.weighting", weighting.NAMES)
    one_of(config, "diffusion.times", TIMES)
    schedule_of(config)
    one_of(config, "optim.name", optim.OPTIMISERS)
    one_of(config, "optim.decay", optim.DECAYS)
    # no network here says its own variance
    one_of(config, "sample.sampler", [name for name in SAMPLERS if name != "ddpm_learned"])
    one_of(config, "sample.spacing", SPACINGS)
    try:
        by_name(config.sample.sampler, config.sample.noise)
    except ValueError as error:
        raise ConfigError("sample.noise", config.sample.noise, str(error)) from None
    one_of(config, "sample.threshold", THRESHOLDS)
    for key in ("data.batch_size", "data.size_px", "train.num_steps", "train.log_every",
                "train.accumulate", "sample.num_steps", "sample.num_images", "text.max_tokens",
                "train.max_bad_steps", "mesh.fsdp", "mesh.tensor",
                "model.width", "model.patch", "model.head_width"):  # fmt: skip
        _range(config, key, 1, float("inf"))
    for key in ("text.drop", "low_res.max_aug_level", "sample.aug_level", "sample.noise"):
        _range(config, key, 0, 1)
    for key in ("train.sample_every", "train.save_every", "train.snapshot_every",
                "train.keep_every", "train.max_seconds",
                "data.crop_px", "low_res.size_px"):  # fmt: skip
        _range(config, key, 0, float("inf"))
    try:
        averages_of(config)
    except ValueError as error:
        raise ConfigError("train.ema", config.train.ema, str(error)) from None
    _range(config, "sample.percentile", 1, 100)
    require(0 <= max_broken_of(config) <= 1, "data.max_broken", max_broken_of(config),
            "must be between 0 and 1")  # fmt: skip
    _check_sizes(config)
    check_mesh(config, jax.device_count())


def check_mesh(config: ConfigDict, devices: int) -> None:
    """Refuse a mesh that is not of so many devices, or a batch that it cannot share out."""
    data, fsdp, tensor = config.mesh.data, config.mesh.fsdp, config.mesh.tensor
    others = fsdp * tensor
    require(
        data >= 1 or data == -1,
        "mesh.data",
        data,
        "at least 1, or -1 for all that fsdp and tensor leave",
    )
    data_size = devices // others if data == -1 else data
    require(
        data_size * others == devices,
        "mesh",
        f"data {data} x fsdp {fsdp} x tensor {tensor}",
        f"must be as many as there are devices, {devices}",
    )
    batch_size, parts = config.data.batch_size, config.train.accumulate
    shares = data_size * fsdp
    require(
        batch_size % (shares * parts) == 0,
        "data.batch_size",
        batch_size,
        f"must be a multiple of mesh data x fsdp x train.accumulate, {shares} x {parts}",
    )


def _range(config: ConfigDict, key: str, low: float, high: float) -> None:
    value = functools.reduce(getattr, key.split("."), config)
    limits = f"at least {low}" if high == float("inf") else f"between {low} and {high}"
    require(low <= value <= high, key, value, f"must be {limits}")


def _check_sizes(config: ConfigDict) -> None:
    size, crop, low_res = config.data.size_px, config.data.crop_px, config.low_res.size_px
    model = model_of(config)
    for key, side in (("data.size_px", size), ("data.crop_px", crop)):
        require(
            side % model.stride == 0,
            key,
            side,
            f"must be a multiple of {model.stride} (model.patch and one halving per level)",
        )
    require(crop <= size, "data.crop_px", crop, f"must be at most data.size_px, {size}")
    if crop and crop < size:
        require(
            denoising.is_convolutional(model),
            "data.crop_px",
            crop,
            'crops need model.kind "efficient_unet" with model.attention "cross"',
        )
    super_resolution = config.model.kind == "efficient_unet"
    if super_resolution:
        require(
            0 < low_res < size and size % low_res == 0,
            "low_res.size_px",
            low_res,
            f"must divide data.size_px, {size}, and be smaller",
        )
        factor = size // low_res
        require(crop % factor == 0, "data.crop_px", crop, f"must be a multiple of {factor}")
    else:
        require(low_res == 0, "low_res.size_px", low_res, 'must be 0 with model.kind "unet"')


def schedule_of(config: ConfigDict) -> Schedule:
    """The noise schedule of the picture itself."""
    name, shift = config.diffusion.schedule, config.diffusion.shift
    low, high = config.diffusion.logsnr_min, config.diffusion.logsnr_max
    require(low < high, "diffusion.logsnr_min", low, f"must be below logsnr_max, {high}")
    require(shift > 0, "diffusion.shift", shift, "must be above 0; 1 is none")
    ends = dict(logsnr_min=low, logsnr_max=high) if name in WITH_ENDS else {}
    made = schedule.SCHEDULES[name](**ends)
    return made if shift == 1 else schedule.shifted(made, shift)


def stage_of(config: ConfigDict, text_width: int) -> denoising.Stage:
    """The stage, for embeddings of `text_width`."""
    return denoising.Stage(
        name=config.stage,
        model=model_of(config),
        size_px=config.data.size_px,
        text_width=text_width,
        max_tokens=config.text.max_tokens,
        low_res_px=config.low_res.size_px or None,
        schedule=schedule_of(config),
        predict=config.diffusion.predict,
    )


def settings_of(config: ConfigDict) -> SampleSettings:
    """How the stage is sampled."""
    fields = SampleSettings.__dataclass_fields__
    return SampleSettings(**{name: config.sample[name] for name in fields})


def optimiser_of(config: ConfigDict) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimiser and its learning rate by step."""
    options = config.optim
    rate = optim.learning_rate(
        options.learning_rate,
        warmup_steps=options.warmup_steps,
        num_steps=config.train.num_steps,
        decay=options.decay,
    )
    names = ("b1", "b2", "eps", "weight_decay", "clip_norm")
    return optim.optimiser(options.name, rate, **{k: options[k] for k in names}), rate


def averages_of(config: ConfigDict) -> dict[str, averages.WeightAt]:
    """The moving averages of the parameters that training keeps, by name."""
    return averages.parse(config.train.ema)


def sampled_average(config: ConfigDict) -> str:
    """The average that pictures are made with unless another is asked for: the first, if any."""
    return next(iter(config.train.ema), LIVE)


def encoder_of(config: ConfigDict) -> TextEncoder:
    """The frozen text encoder, of the width that the config says, if it says one."""
    try:
        encoder = load_encoder(config.text.encoder, max_length=config.text.max_tokens)
    except (ValueError, OSError) as error:
        raise ConfigError("text.encoder", config.text.encoder, str(error)) from None
    width = config.text.width
    require(
        width in (0, encoder.width),
        "text.width",
        width,
        f"{config.text.encoder} says {encoder.width}; 0 asks the encoder",
    )
    return encoder


def source_of(config: ConfigDict) -> RecordSource:
    """The records of the data set; emoji are drawn at first use."""
    data = config.data
    require(bool(data.name), "data.name", "", "name a captioned data set or a prepared folder")
    kind, _, count = data.name.partition("/")
    if kind == "fake":
        require(count.isdigit() and int(count) > 0, "data.name", data.name, "fake/COUNT, COUNT > 0")
        return fake.Shapes(int(count), data.size_px)
    try:
        return tfds.open_source(
            data.name,
            data.split,
            names=data.names,
            image_key=data.image_key,
            caption_key=data.caption_key,
        )
    except ValueError as error:
        raise ConfigError("data", f"{data.name} {data.split}", str(error)) from None


def train_iterator_of(
    config: ConfigDict, records: RecordSource, embeddings: cache.Embeddings
) -> pipeline.Batches:
    """This process's rows of the batches, with a position that can be saved and restored."""
    batch_sharding = mesh_lib.batch_sharding(mesh_lib.make_mesh(**config.mesh))
    return pipeline.train_iterator(
        records,
        readers.captioned_pictures(
            size_px=config.data.size_px,
            crop_px=config.data.crop_px or None,
            embed=embeddings.embed,
            max_length=config.text.max_tokens,
        ),
        batch_size=config.data.batch_size,
        seed=config.seed,
        rows=mesh_lib.rows_here(batch_sharding, config.data.batch_size),
        max_broken=max_broken_of(config),
    )


def max_broken_of(config: ConfigDict) -> float:
    """The share of all records whose pictures may be broken; none in configs of older runs."""
    return config.data.get("max_broken", 0.0)


@dataclass(frozen=True)
class Placement:
    """The mesh, and where the train state lies on it."""

    mesh: jax.sharding.Mesh
    state_shape: Any
    state_sharding: Any
    init: Any


def placement_of(
    config: ConfigDict, the_stage: denoising.Stage, tx: Any, devices: list | None = None
) -> Placement:
    """The mesh of the config, over all devices unless some are named.

    `init(key)` is jitted and makes the state in its shards.
    """
    try:
        mesh = mesh_lib.make_mesh(**config.mesh, devices=devices)
        create = functools.partial(
            state.create, functools.partial(denoising.init_params, the_stage), tx, config.train.ema
        )
        shape = jax.eval_shape(create, jax.random.key(0))
        sharding = mesh_lib.state_sharding(mesh, shape)
    except ValueError as error:
        raise ConfigError("mesh", dict(config.mesh), str(error)) from None
    shape = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shape, sharding
    )
    return Placement(mesh, shape, sharding, jax.jit(create, out_shardings=sharding))


def train_step_of(
    config: ConfigDict,
    the_stage: denoising.Stage,
    tx: optax.GradientTransformation,
    place: Placement,
    rate: optax.Schedule | None = None,
) -> Any:
    """The training step (state, batch) -> (state, metrics), spread over the mesh; to be jitted."""
    return functools.partial(
        step.train_step,
        stage=the_stage,
        tx=tx,
        root_key=jax.random.key(config.seed),
        averages=averages_of(config),
        accumulate=config.train.accumulate,
        spread=mesh_lib.spread(place.mesh, place.state_sharding.params),
        rate=rate,
        weighting=config.diffusion.weighting,
        times=TIMES[config.diffusion.times],
        text_drop=config.text.drop,
        max_aug_level=config.low_res.max_aug_level,
    )
