"""Checks that the sections of a config fit each other, and the devices."""

from ml_collections import ConfigDict

from diffjax.build import noise
from diffjax.build.inputs import vectors
from diffjax.build.models import model_of
from diffjax.core.errors import require
from diffjax.diffusion.sampling.spacing import TRACEABLE
from diffjax.models.efficient_unet import is_convolutional
from diffjax.tasks.distilling import NESTED


def check_told(config: ConfigDict) -> None:
    """Checks that the network takes the conditions, and that their columns have allowed names."""
    if "tokens" in config:
        kind = config.model.kind
        require(kind == "unet", "model.kind", kind,
                'tokens needs "unet": no other network has a text transformer')  # fmt: skip
        require("text" not in config, "text", "a section", "a network reads text or tokens")
        model_of(config)
    if "mask" in config:
        kind = config.model.kind
        allowed = 'mask needs "unet" or "dit": no other network takes a hole'
        require(kind in ("unet", "dit"), "model.kind", kind, allowed)
    if "classes" in config:
        names, num = config.classes.names, config.classes.num
        distinct = len({name.casefold() for name in names} - {"none"})
        allowed = f"none, or {num} different ones, of which none is called none"
        require(len(names) in (0, num) and distinct == len(names), "classes.names", names, allowed)
        if not config.model.get("null_class", True):
            knows = "model.null_class is false: the network always knows the class"
            drop, weight = config.classes.drop, config.sample.guidance_weight
            require(drop == 0, "classes.drop", drop, f"must be 0, as {knows}")
            require(weight == 1, "sample.guidance_weight", weight, f"must be 1, as {knows}")
    if vectors.SECTION in config:
        vectors.check(config)
    if "embedding" in config:
        known = {"image", "caption", "text", "text_length", "text_mask", "label", "low_res", "name",
                 "tokens"}  # fmt: skip
        of = config.embedding.of
        require(of.isidentifier() and of not in known, "embedding.of", of,
                "want the name of a field of the records that holds a vector")  # fmt: skip


def check_learning(config: ConfigDict) -> None:
    """Checks that the choices of what is learned fit together."""
    diffusion = config.diffusion
    learned = diffusion.objective != "simple"
    require(
        not diffusion.self_condition or config.model.kind != "efficient_unet",
        "diffusion.self_condition",
        diffusion.self_condition,
        'wants model.kind="unet" or "dit": super-resolution goes over tiles, which see no guess',
    )
    require(
        config.sample.sampler != "ddpm_learned" or learned,
        "sample.sampler",
        config.sample.sampler,
        'wants a learned variance: diffusion.objective="hybrid" or "vlb"',
    )
    require(
        not diffusion.learned_schedule or config.sample.spacing in TRACEABLE,
        "sample.spacing",
        config.sample.spacing,
        f"a learned schedule is known only when it is sampled; allowed: {', '.join(TRACEABLE)}",
    )
    require(
        diffusion.times != noise.LOGIT_NORMAL or (not learned and diffusion.over == "u"),
        "diffusion.times",
        diffusion.times,
        'weights the levels itself: wants objective="simple" and over="u"',
    )
    check_zero_snr(config)
    require(
        not diffusion.discrete or (not diffusion.learned_schedule and diffusion.over == "u"),
        "diffusion.discrete",
        True,
        'the steps of a chain are fixed: wants learned_schedule=0 and over="u"',
    )
    told = config.model.get("steps", 0)
    require(
        not told or diffusion.schedule in noise.ON_TABLES,
        "model.steps",
        told,
        f"a network that is told steps needs diffusion.schedule {', '.join(noise.ON_TABLES)}",
    )
    require(
        not learned or diffusion.over == "u",
        "diffusion.over",
        diffusion.over,
        "the bound has weights of its own; only objective simple has a choice",
    )


def check_zero_snr(config: ConfigDict) -> None:
    """Checks that a stage whose last level holds no signal can be trained and sampled there."""
    diffusion = config.diffusion
    if not diffusion.zero_snr:
        return
    said = diffusion.predict
    require(
        said not in ("eps", "score"),
        "diffusion.predict",
        said,
        'diffusion.zero_snr wants "v", "x_0", "flow" or "edm": noise says nothing of x_0 there',
    )
    require(
        not diffusion.learned_schedule,
        "diffusion.zero_snr",
        True,
        "a learned schedule learns its ends; set one of the two",
    )
    sampler, spacing = config.sample.sampler, config.sample.spacing
    require(
        sampler != "pndm",
        "sample.sampler",
        sampler,
        "diffusion.zero_snr wants another: pndm takes means of noise, and there is nothing else",
    )
    require(
        not spacing.startswith("leading"),
        "sample.spacing",
        spacing,
        f"diffusion.zero_snr wants sampling to start at the last level, which {spacing} leaves out",
    )


def check_mesh(config: ConfigDict, devices: int) -> None:
    """Checks that the mesh has this number of devices, and that it divides the batch evenly."""
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


def check_sizes(config: ConfigDict) -> None:
    """Checks that the sides of pictures, crops and low-resolution pictures fit the network."""
    size, crop = config.data.size_px, config.data.crop_px
    low_res = config.low_res.size_px if "low_res" in config else 0
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
            is_convolutional(model),
            "data.crop_px",
            crop,
            'crops need model.kind "efficient_unet" with model.attention "cross", or "unet" '
            "without attention",
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
    elif config.model.kind == "unet" and low_res:
        fits = low_res < size and size % low_res == 0
        require(fits, "low_res.size_px", low_res, f"must divide data.size_px, {size}")
        allowed = (
            'must be 0 with model.kind "unet", or low_res.max_aug_level must: this network is not '
            "told how noised the small picture is"
        )
        require(config.low_res.max_aug_level == 0, "low_res.size_px", low_res, allowed)
    else:
        require(low_res == 0, "low_res.size_px", low_res,
                f'must be 0 with model.kind "{config.model.kind}"')  # fmt: skip


def check_student(config: ConfigDict) -> None:
    """Checks what only the config of a student has.

    Raises:
      ConfigError: a value is not allowed.
    """
    if "distil" not in config:
        return
    require("lora" not in config, "distil", "a section", "a student is no LoRA; leave out one")
    sample, options = config.sample, config.distil
    require(sample.sampler == "ddim", "sample.sampler", sample.sampler, "a student takes ddim")
    require(sample.noise == 0, "sample.noise", sample.noise, "a student's steps draw none: 0")
    nested = sample.spacing in NESTED
    require(nested, "sample.spacing", sample.spacing, f"of a student: {', '.join(NESTED)}")
    count, steps = sample.num_steps, options.teacher_steps
    what = f"a multiple of sample.num_steps, {count}, and above it"
    require(steps > count and steps % count == 0, "distil.teacher_steps", steps, what)
    weight = sample.guidance_weight
    what = "1 for a student, which has its teacher's guidance; that is distil.guidance_weight"
    require(weight == 1, "sample.guidance_weight", weight, what)
    guess = config.diffusion.self_condition
    require(not guess, "diffusion.self_condition", guess, "must be 0: a student sees no guess")
    learned = config.diffusion.learned_schedule
    require(not learned, "diffusion.learned_schedule", learned, "must be 0 for a student")
