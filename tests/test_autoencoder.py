"""A tiny autoencoder, from its config to its report: it trains, resumes, plans and is refused."""

import pytest

from diffjax import main, sample
from diffjax.build import check
from diffjax.build.options import config
from diffjax.core.errors import ConfigError
from tests import runs

TINY = "configs/autoencoder.py:tiny"
# One level: its programs compile in half the time.
FLAGS = (
    "train.sample_every=4", "train.log_every=2", "mesh.data=8", "optim.decay=constant",
    "model.mults=(1,)",
)  # fmt: skip


def train(workdir, *flags):
    options = [f"--config.{flag}" for flag in (*FLAGS, *flags)]
    return main.main(["--config", TINY, "--workdir", str(workdir), *options])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of four steps with an adversary from step 2 on, evaluated at the end."""
    workdir = tmp_path_factory.mktemp("whole")
    assert train(workdir, "train.evaluate_every=4") == 0
    return workdir


def trained(workdir):
    return [line for line in runs.lines(workdir) if "grad_norm" in line]


@pytest.mark.slow
def test_a_run_in_two_parts_ends_as_one_without_a_stop(whole, tmp_path):
    assert train(tmp_path, "train.num_steps=2") == 0
    assert train(tmp_path) == 0
    assert trained(tmp_path)[-1] == trained(whole)[-1]


@pytest.mark.slow
def test_a_run_logs_how_near_pictures_are_and_how_latents_are_spread(whole):
    lines = runs.lines(whole)
    last = [line for line in lines if "loss" in line][-1]
    assert {"psnr", "error", "kl_0", "latent_mean_1", "latent_std_1", "log_variance"} <= last.keys()
    assert last["adversary_weight"] > 0
    (held_out,) = [line for line in lines if "evaluate/loss" in line]
    assert 0 < held_out["evaluate/psnr"] < 30
    assert (whole / "samples" / "0000004.png").exists()


@pytest.mark.slow
def test_an_autoencoder_makes_no_pictures_from_noise(whole, tmp_path, capsys):
    given = ["--workdir", str(whole), "--prompt", "a frog", "--out", str(tmp_path / "x")]
    assert sample.main(given) == 2
    assert "makes none from noise" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dry_run_counts_the_discriminator_on_a_line_of_its_own(capsys):
    given = ["--config", "configs/autoencoder.py:kl_f8", "--dry_run"]
    small = ["--config.data.name=fake/128", "--config.autoencoding.perceptual="]
    assert main.main([*given, *small]) == 0
    said = capsys.readouterr().out
    assert "83,653,863 in the autoencoder" in said
    assert "2,765,633 in the discriminator" in said


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model.kind", "unet", "allowed: autoencoder"),
        ("model.attention_levels", (2,), "levels are 0 to 1"),
        ("data.size_px", 17, "must be a multiple of 2"),
        ("data.crop_px", 32, "must be at most data.size_px, 16"),
        ("autoencoding.code_average", 0.9, "needs a codebook"),
        ("autoencoding.adversary_layers", 3, "want pictures of 32 px, not 16"),
        ("autoencoding.perceptual", "vgg", 'want "lite0"'),
        ("train.accumulate", 2, "must be 1"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_with_its_key(key, value, said):
    options = config.load(TINY)
    section, _, last = key.partition(".")
    options[section][last] = value
    with pytest.raises(ConfigError, match=said):
        check.check(options, devices=1)


@pytest.mark.parametrize(
    "preset", ["emoji", "fine", "tiny", "kl_f4", "kl_f8", "kl_f16", "kl_f32", "vq_f4", "vq_f8"]
)
def test_every_preset_is_valid(preset):
    check.check(config.load(f"configs/autoencoder.py:{preset}"), devices=8)
