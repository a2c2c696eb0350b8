import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import rng

KEY = jax.random.key(0)


def test_a_stream_is_a_function_of_root_name_and_step():
    draw = lambda name, step: float(jax.random.normal(rng.stream(KEY, name, step)))  # noqa: E731
    assert draw("noise", 3) == draw("noise", 3)
    assert len({draw("noise", 3), draw("noise", 4), draw("drop", 3), draw("drop", 4)}) == 4


def test_streams_of_different_names_are_independent():
    draws = [
        np.asarray(jax.random.normal(rng.stream(KEY, name), (4096,)))
        for name in ("text_drop", "aug_level", "aug_noise", "diffusion")
    ]
    correlation = np.corrcoef(draws) - np.eye(4)
    assert np.abs(correlation).max() < 0.06


def test_with_a_key_per_example_each_example_draws_what_it_draws_alone():
    keys = rng.per_example(jnp.array([5, 6, 7]))
    several = rng.normal(rng.split(rng.stream(keys, "x"), 2)[1], (3, 4))
    alone = rng.normal(rng.split(rng.stream(keys[1:2], "x"), 2)[1], (1, 4))
    np.testing.assert_array_equal(several[1:2], alone)
    one = jax.random.normal(rng.split(rng.stream(keys[1], "x"), 2)[1], (4,))
    np.testing.assert_array_equal(several[1], one)


def test_fewer_keys_than_examples_are_refused():
    with pytest.raises(ValueError, match="3 keys for a batch of 4"):
        rng.normal(rng.per_example(jnp.arange(3)), (4, 2))


def test_a_stream_folds_in_the_names_checksum_and_then_the_step():
    """One after the other: their sum would give two names one key at two steps."""
    want = jax.random.fold_in(jax.random.fold_in(KEY, zlib.crc32(b"noise")), 5)
    assert rng.stream(KEY, "noise", 5) == want
