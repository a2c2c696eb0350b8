"""Scale and shift are measured on the data, and written into the config of a run."""

import numpy as np
import pytest

from diffjax.build.inputs import moments, reading
from diffjax.build.options import config
from diffjax.core.errors import ConfigError
from diffjax.devices import processes


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "cache"))


def tiny(**changes):
    options = config.load("configs/latent.py:tiny")
    for key, value in changes.items():
        options.latent[key] = value
    return options


def scaled(options):
    """The latents of all pictures as diffusion sees them, each drawn 50 times."""
    records = reading.source_of(options)
    found = moments.cached(tiny(), records)
    raw = np.stack([found.of(records[i], None) for i in range(len(records))]).astype(np.float64)
    noise = np.random.default_rng(0).standard_normal((50, *raw[..., :2].shape))
    drawn = raw[..., :2] + np.exp(0.5 * raw[..., 2:]) * noise
    return (drawn - np.array(options.latent.shift)) * np.array(options.latent.scale)


@pytest.mark.parametrize("cached", [False, True])
def test_each_channel_has_mean_0_and_variance_1_once_it_is_measured(cached):
    options = tiny(cached=cached)
    new = moments.measured(options, lambda: reading.source_of(options))
    assert (len(new.latent.scale), len(new.latent.shift), len(new.latent.mark)) == (2, 2, 64)
    z = scaled(new)
    np.testing.assert_allclose(z.mean(axis=(0, 1, 2, 3)), 0, atol=0.03)
    np.testing.assert_allclose(z.std(axis=(0, 1, 2, 3)), 1, atol=0.03)
    assert options.latent.scale == ()


def test_all_channels_together_have_one_scale_if_the_config_says_so():
    new = moments.measured(tiny(by_channel=False), lambda: reading.source_of(tiny()))
    assert (len(new.latent.scale), len(new.latent.shift)) == (1, 1)
    z = scaled(new)
    np.testing.assert_allclose((z.mean(), z.std()), (0, 1), atol=0.03)
    assert np.ptp(z.mean(axis=(0, 1, 2, 3))) > 0.1


def test_what_the_config_says_is_not_measured():
    new = moments.measured(tiny(scale=(0.18215,)), lambda: reading.source_of(tiny()))
    assert new.latent.scale == (0.18215,)
    assert len(new.latent.shift) == 2
    said = moments.measured(tiny(scale=(0.18215,), shift=(0.0,)), pytest.fail)
    assert (said.latent.scale, said.latent.shift) == ((0.18215,), (0.0,))


def test_all_processes_take_what_the_first_one_measured(monkeypatch):
    monkeypatch.setattr(processes, "told_by_all", lambda name, mine: ["[[4.0], [5.0]]", mine])
    new = moments.measured(tiny(), lambda: reading.source_of(tiny()))
    assert (new.latent.scale, new.latent.shift) == ((4.0,), (5.0,))


def test_a_cache_of_another_autoencoder_is_refused_in_one_line(tmp_path):
    records, place = reading.source_of(tiny()), str(tmp_path / "latents")
    moments.cached(tiny(cache=place), records)
    with pytest.raises(ConfigError, match=r"latent.cache = .* name another folder") as failed:
        moments.cached(tiny(cache=place, channels=3), records)
    assert "\n" not in str(failed.value)


def test_a_run_without_an_autoencoder_is_refused():
    with pytest.raises(ConfigError, match=r"latent.autoencoder = '': name an autoencoder"):
        moments.measured(tiny(autoencoder=""), pytest.fail)
