"""The basis of an autoregressive prior: measured once, kept, and refused if it is another."""

import numpy as np
import pytest

from diffjax.build.check import check
from diffjax.build.kinds import autoregressive
from diffjax.build.options import config
from diffjax.checkpoint.portable import FROZEN
from diffjax.core import tensorfile
from diffjax.core.errors import ConfigError
from diffjax.data.sources.fake import Shapes
from diffjax.encoders.clip.vectors import WithVectors

WIDTH = 8
TEXT = np.eye(WIDTH, dtype=np.float32)[0]


@pytest.fixture
def options():
    made = config.load("configs/prior.py:tiny_ar").copy_and_resolve_references().unlock()
    made.vectors.width, made.text.width = WIDTH, 4
    return made


@pytest.fixture
def records(tmp_path):
    """Pictures with vectors along 4 axes, each shorter than the last, and one that is broken."""
    random = np.random.default_rng(0)
    source = Shapes(200, 16)
    lengths = np.array([1.0, 0.5, 0.25, 0.125, 0, 0, 0, 0])
    rows = (random.integers(0, 2, (200, WIDTH)) - 0.5) * lengths
    rows[7] = 0.0
    np.save(tmp_path / "vectors.npy", rows.astype(np.float32))
    return WithVectors(source, "image_vector", tmp_path / "vectors.npy"), rows


def measured(options, records):
    return autoregressive.measured(options, records[0], lambda caption: TEXT[None])


def test_a_basis_is_the_axes_of_the_vectors_and_the_spread_along_them(options, records):
    basis, rows = measured(options, records), np.delete(records[1], 7, axis=0)
    # the axes are almost independent
    np.testing.assert_allclose(np.abs(basis["components"]), np.eye(4, 8), atol=0.15)
    np.testing.assert_allclose(basis["deviation"], [0.5, 0.25, 0.125, 0.0625], rtol=0.05)
    np.testing.assert_allclose(basis["mean"], rows.mean(0), atol=1e-6)
    np.testing.assert_allclose(basis["dot_mean"], rows[:, 0].mean(), atol=1e-6)
    np.testing.assert_allclose(basis["dot_shares"].sum(), 1.0)


def test_a_run_keeps_the_basis_that_it_began_with(options, records, tmp_path):
    kept = autoregressive.keep(options, tmp_path, lambda: measured(options, records))
    again = autoregressive.keep(kept, tmp_path, None)
    assert again.autoregressive.mark == kept.autoregressive.mark
    basis = autoregressive.task_of(kept).frozen["basis"]
    np.testing.assert_array_equal(basis["components"], measured(options, records)["components"])
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    with kept.unlocked():
        kept.autoregressive.basis = ""
    there = autoregressive.placed(kept, moved)
    assert there.autoregressive.basis == str(moved / FROZEN)


def test_another_basis_is_refused_in_one_line(options, records, tmp_path):
    kept = autoregressive.keep(options, tmp_path, lambda: measured(options, records))
    with kept.unlocked():
        kept.autoregressive.mark = "d" * 64
    with pytest.raises(ConfigError, match=r"is another basis, .* than the run began with, d+"):
        autoregressive.task_of(kept)
    with kept.unlocked():
        kept.autoregressive.components = 3
    with pytest.raises(ConfigError, match=r"components is \(4, 8\), want \(3, 8\)"):
        autoregressive.task_of(kept)


def test_a_file_without_a_basis_is_refused_in_one_line(options, tmp_path):
    tensorfile.write(tmp_path / "other.safetensors", {"a": np.zeros(3)}, {})
    options.autoregressive.basis = str(tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="holds no basis") as error:
        autoregressive.task_of(options)
    assert "\n" not in error.value.line()


@pytest.mark.parametrize(
    ("preset", "key", "value", "said"),
    [
        ("tiny_ar", "autoregressive.components", 129, "at most 128, the vectors.width"),
        ("tiny_ar", "autoregressive.buckets", 1, "between 2 and"),
        ("tiny_ar", "model.num_heads", 3, "must divide model.width, 16"),
        ("tiny_ar", "model.kind", "prior", "allowed: prior_ar"),
        ("tiny_ar", "sample.guidance_weight", -1.0, "from 0 to 1000|between 0 and"),
        ("tiny", "sample.threshold", "static", "vectors are not bounded"),
        ("tiny", "sample.best_of", 0, "between 1 and 64"),
        ("tiny", "model.num_heads", 3, "must divide model.width, 16"),
        ("tiny", "diffusion.objective", "hybrid", 'a prior wants "simple"'),
        ("tiny", "diffusion.self_condition", 0.5, "a prior wants 0"),
        ("tiny", "vectors.clip", "emoji", 'want "clip:PLACE"'),
        ("tiny", "vectors.scale", -1.0, "between 0 and"),
    ],
)
def test_what_a_prior_cannot_be_is_refused_in_one_line(preset, key, value, said):
    options = config.load(f"configs/prior.py:{preset}").copy_and_resolve_references().unlock()
    section, _, name = key.partition(".")
    options[section][name] = value
    with pytest.raises(ConfigError, match=said) as error:
        check(options, 1)
    assert error.value.line().startswith(f"config error: {key}")
    assert "\n" not in error.value.line()


@pytest.mark.parametrize("preset", ["tiny", "tiny_ar"])
@pytest.mark.parametrize("section", ["text", "vectors"])
def test_a_prior_without_text_or_vectors_is_refused(preset, section):
    options = config.load(f"configs/prior.py:{preset}").copy_and_resolve_references().unlock()
    del options[section]
    with pytest.raises(ConfigError, match=f"needs a section {section}"):
        check(options, 1)
