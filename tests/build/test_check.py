import math
import re

import jax
import numpy as np
import pytest

from diffjax.build import tasks
from diffjax.build.check import LIMITS, check
from diffjax.build.inputs import data, texts
from diffjax.build.options import config
from diffjax.core.errors import ConfigError
from diffjax.diffusion import schedule
from diffjax.diffusion.sampling.spacing import SPACINGS

FILES = ("configs/base64.py", "configs/sr256.py", "configs/sr1024.py")


def changed(file, **values):
    options = config.load(f"{file}:tiny")
    config.override(options, [f"--config.{k.replace('__', '.')}={v}" for k, v in values.items()])
    return options


@pytest.mark.parametrize("file", FILES)
def test_every_preset_is_sound(file):
    scale = ("2b", "500m", "300m") if "base" in file else ("paper", "600m")
    small = ("emoji", "tiny") if "1024" in file else ("emoji", "demo", "tiny")
    for preset in (*small, *scale):
        options = config.load(f"{file}:{preset}")
        check(options)
        assert tasks.task_of(options, 256).size_px == options.data.size_px


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        (FILES[0], {"data__size_px": 20}, ["data.size_px = 20", "multiple of 8"]),
        (FILES[0], {"data__batch_size": 12}, ["data.batch_size = 12", "multiple of", "8"]),
        (FILES[0], {"train__accumulate": 2}, ["data.batch_size = 8", "8 x 2"]),
        (FILES[0], {"data__crop_px": 8}, ["data.crop_px = 8", "efficient_unet"]),
        (FILES[0], {"mesh__fsdp": 3}, ["mesh = 'data -1 x fsdp 3", "devices, 8"]),
        (FILES[0], {"mesh__data": 0}, ["mesh.data = 0", "at least 1"]),
        (FILES[0], {"diffusion__predict": "epsilon"}, ["diffusion.predict = 'epsilon'", "eps, v"]),
        (FILES[0], {"diffusion__schedule": "cosin"}, ["'cosin'", "cosine, linear"]),
        (FILES[0], {"diffusion__logsnr_min": 20.0}, ["diffusion.logsnr_min = 20.0", "below"]),
        (FILES[0], {"diffusion__shift": 0.0}, ["diffusion.shift = 0.0", "between 1e-06"]),
        (FILES[0], {"diffusion__weighting": "snr"}, ["diffusion.weighting = 'snr'", "min_snr"]),
        (FILES[0], {"diffusion__times": "even"}, ["diffusion.times = 'even'", "stratified"]),
        (
            FILES[0],
            {"diffusion__times": "logit_normal", "diffusion__over": "logsnr"},
            ["diffusion.times = 'logit_normal'", 'over="u"'],
        ),
        (FILES[0], {"diffusion__times_std": 0.0}, ["diffusion.times_std = 0.0", "between 0.01"]),
        (
            FILES[0],
            {"diffusion__zero_snr": True, "diffusion__predict": "eps"},
            ["diffusion.predict = 'eps'", 'zero_snr wants "v"'],
        ),
        (
            FILES[0],
            {"diffusion__zero_snr": True, "diffusion__schedule": "edm"},
            ["diffusion.zero_snr = True", "edm ends where logsnr_min says", "linear, quadratic"],
        ),
        (
            FILES[0],
            {"diffusion__zero_snr": True, "sample__sampler": "pndm"},
            ["sample.sampler = 'pndm'", "zero_snr", "means of noise"],
        ),
        (
            FILES[0],
            {"diffusion__zero_snr": True, "sample__spacing": "leading"},
            ["sample.spacing = 'leading'", "zero_snr", "last level"],
        ),
        (
            FILES[0],
            {"diffusion__zero_snr": True, "diffusion__learned_schedule": 8},
            ["diffusion.zero_snr = True", "learned schedule"],
        ),
        (FILES[0], {"sample__sampler": "plms"}, ["sample.sampler = 'plms'", "unipc"]),
        (FILES[0], {"sample__spacing": "even"}, ["sample.spacing = 'even'", "karras"]),
        (
            FILES[0],
            {"sample__sampler": "unipc", "sample__noise": 0.5},
            ["sample.noise = 0.5", "unipc adds none"],
        ),
        (FILES[0], {"optim__name": "sgd"}, ["optim.name = 'sgd'", "adam, adamw, adafactor"]),
        (FILES[0], {"text__drop": 1.5}, ["text.drop = 1.5", "between 0 and 1"]),
        (
            FILES[0],
            {"sample__percentile": 0.995},
            ["sample.percentile = 0.995", "between 1 and 100"],
        ),
        (FILES[0], {"model__head_width": 24}, ["model.head_width = 24", "= 16"]),
        (FILES[0], {"model__mults": "()"}, ["model.mults = ()", "at least one"]),
        (FILES[0], {"low_res__size_px": 8}, ["low_res.size_px = 8", "unet"]),
        (FILES[0], {"model__remat": "some"}, ["model.remat = 'some'", "products"]),
        (
            FILES[0],
            {"model__attention_levels": "(2,)"},
            ["model.attention_levels = (2,)", "0 to 1"],
        ),
        (FILES[1], {"low_res__size_px": 48}, ["low_res.size_px = 48", "divide data.size_px, 64"]),
        (FILES[1], {"data__crop_px": 40}, ["data.crop_px = 40", "multiple of 16"]),
        (FILES[1], {"data__crop_px": 128}, ["data.crop_px = 128", "at most data.size_px, 64"]),
        (FILES[1], {"model__num_blocks": "(1,)"}, ["model.num_blocks = (1,)", "model.mults, 2"]),
        (
            FILES[1],
            {"model__from_low_res": True, "diffusion__predict": "v"},
            ["model.from_low_res = True", 'diffusion.predict="x_0"'],
        ),
        (FILES[1], {"model__attention": "self"}, ["data.crop_px = 32", "cross"]),
        (FILES[1], {"train__ema": "('decay_1.0',)"}, ["train.ema = ('decay_1.0',)", "D < 1"]),
    ],
)
def test_what_cannot_be_is_refused_with_key_value_and_remedy(file, values, words):
    with pytest.raises(ConfigError) as caught:
        check(changed(file, **values))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_the_shift_of_simple_diffusion_reaches_the_schedule():
    """Its factor base_px / size_px moves the log SNR by twice its logarithm."""
    plain, moved = (
        tasks.schedule_of(changed(FILES[0], diffusion__shift=shift))(0.5) for shift in (1.0, 0.25)
    )
    assert float(moved - plain) == pytest.approx(2 * np.log(0.25), rel=1e-5)


@pytest.mark.parametrize("name", schedule.SCHEDULES)
def test_every_schedule_of_the_library_can_be_chosen(name):
    options = changed(FILES[0], diffusion__schedule=name, mesh__data=8)
    check(options)
    assert tasks.schedule_of(options)(1.0) < tasks.schedule_of(options)(0.0)


@pytest.mark.parametrize("name", tasks.WITH_ZERO_SNR)
def test_with_zero_terminal_snr_sampling_starts_at_noise_alone(name):
    """Less than 1e-6 of the amplitude is signal; the clean end stays where it was."""
    given = {"diffusion__schedule": name, "diffusion__predict": "v"}
    plain, zero = (
        tasks.schedule_of(changed(FILES[0], diffusion__zero_snr=on, **given))
        for on in (False, True)
    )
    assert math.exp(float(zero(1.0)) / 2) < 1e-6 < math.exp(float(plain(1.0)) / 2)
    assert float(zero(0.0)) == pytest.approx(float(plain(0.0)), abs=1e-4)
    options = changed(FILES[0], diffusion__zero_snr=True, mesh__data=8, **given)
    check(options)
    task = tasks.task_of(options, 16)
    for spacing in ("uniform", "logsnr", "karras", "trailing", "linspace"):
        rungs = SPACINGS[spacing](task.schedule, 4)
        assert float(rungs[0]) == pytest.approx(float(zero(1.0)), abs=1e-3)


AT_SCALE = {
    "configs/base64.py:2b": 2_257_932_807,
    "configs/base64.py:500m": 503_298_311,
    "configs/base64.py:300m": 293_538_247,
    "configs/sr256.py:paper": 459_326_855,
    "configs/sr256.py:600m": 617_074_567,
    "configs/sr1024.py:paper": 457_229_703,
    "configs/sr1024.py:600m": 613_928_839,
}


# One of each size of picture; the others are slow ones.
FEW = ("configs/base64.py:2b", "configs/sr256.py:paper", "configs/sr1024.py:600m")
SCALES = [
    pytest.param(*one, marks=[] if one[0] in FEW else [pytest.mark.slow])
    for one in AT_SCALE.items()
]


@pytest.mark.parametrize(("spec", "parameters"), SCALES)
def test_every_network_at_scale_has_its_parameters(spec, parameters):
    options = config.load(spec)
    made = tasks.task_of(options, options.text.width)
    shapes = jax.eval_shape(made.init, jax.random.key(0))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == parameters


def test_the_constants_that_the_paper_gives():
    """Saharia et al. 2022, sec. 4.1, app. F.1 to F.3."""
    base, sr256, sr1024 = (
        config.load(spec)
        for spec in ("configs/base64.py:2b", "configs/sr256.py:paper", "configs/sr1024.py:paper")
    )
    for options in (base, sr256, sr1024):
        assert options.data.batch_size == 2048
        assert options.train.num_steps == 2_500_000
        assert options.optim.learning_rate == 1e-4
        assert options.optim.warmup_steps == 10_000
        assert options.text.drop == 0.1
        assert options.diffusion.predict == options.diffusion.weighting == "eps"
    model = base.model
    assert (model.width, model.mults, model.num_blocks) == (512, (1, 2, 3, 4), 3)
    assert model.head_width == 64
    sides = [base.data.size_px // 2**level for level in model.attention_levels]
    assert sides == [32, 16, 8]
    assert base.optim.name == "adafactor"
    assert base.diffusion.schedule == sr256.diffusion.schedule == "cosine"
    assert sr1024.diffusion.schedule == "linear"
    for options in (sr256, sr1024):
        model = options.model
        assert tuple(model.width * mult for mult in model.mults) == (128, 256, 512, 1024)
        assert model.num_blocks == (2, 4, 8, 8)
        assert (model.attention_levels, model.num_heads) == ((-1,), 8)
        assert model.skip_conv
        optimiser = options.optim
        assert optimiser.name == "adam"
        assert (optimiser.b1, optimiser.b2, optimiser.eps) == (0.9, 0.999, 1e-8)
    assert (sr256.model.attention, sr1024.model.attention) == ("self", "cross")
    assert (sr256.low_res.size_px, sr256.data.size_px, sr256.data.crop_px) == (64, 256, 0)
    assert (sr1024.low_res.size_px, sr1024.data.size_px, sr1024.data.crop_px) == (256, 1024, 256)
    made = tasks.task_of(sr1024, 4096)
    assert float(made.schedule(0.0)) == pytest.approx(np.log((1 - 1e-4) / 1e-4), rel=1e-4)


def test_a_config_without_data_says_so():
    with pytest.raises(ConfigError, match=r"data\.name.*name a data set, such as folder:DIR"):
        data.source_of(config.load("configs/base64.py:2b"))


def test_data_that_are_not_there_are_named():
    options = changed(FILES[0], data__name="fake/none")
    with pytest.raises(ConfigError, match="fake:COUNT"):
        data.source_of(options)
    options = changed(FILES[0], data__name="no_such_set")
    with pytest.raises(ConfigError, match="no_such_set"):
        data.source_of(options)


def test_an_encoder_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"text\.encoder.*\./no_such_t5"):
        texts.encoder_of(changed(FILES[0], text__encoder="./no_such_t5"))  # not asked of the hub


@pytest.mark.parametrize("name", ["clip:", "sd:"])
def test_an_encoder_without_a_place_is_refused_and_a_place_asked_for(name):
    """So it is in presets whose encoder is not part of the package."""
    with pytest.raises(ConfigError, match=f'text.encoder = .*say where it lies: "{name}PLACE"'):
        texts.encoder_of(changed(FILES[0], text__encoder=name))


@pytest.mark.parametrize("file", FILES[:2])
def test_every_number_is_refused_beyond_its_limits_and_none_is_left_without(file):
    """Each number of a config but those that are checked beside others."""
    plain = config.load(f"{file}:tiny")
    free = {"mesh.data"}  # or -1; see check_mesh
    for key, value in config.leaves(plain):
        several = isinstance(value, tuple) and value and isinstance(value[0], int)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if key in free or key == "model.attention_levels" or not (several or number):
            continue
        assert key in LIMITS, f"{key}: say in build.check.LIMITS where it may lie"
        low, high = LIMITS[key]
        for wrong in (low - 1, high * 2 + 1, float("nan")):
            options = plain.copy_and_resolve_references().unlock()
            node = options
            *parents, last = key.split(".")
            for parent in parents:
                node = node[parent]
            with options.ignore_type():
                node[last] = (*value[:-1], wrong) if several else wrong
            with pytest.raises(ConfigError, match=re.escape(f"config error: {key} = ")):
                check(options)
