"""A whole cascade against float64 NumPy: guidance, thresholds, samplers and their keys."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.generation.chain import generate, prompt_columns
from diffjax.tasks.settings import SampleSettings
from tests import naive

SEEDS = (3, 8)
# The first and the second stage; together all options are on.
SETTINGS = {
    "ddpm, then ddim": (
        SampleSettings(
            num_steps=4, sampler="ddpm", noise=0.3, guidance_weight=4.0, guidance_rescale=0.7,
            guidance_from=-5.0, guidance_to=3.0, threshold="dynamic", percentile=80.0,
        ),
        SampleSettings(
            num_steps=3, sampler="ddim", noise=0.5, guidance_weight=2.5, threshold="static",
            aug_level=0.3,
        ),
    ),
    "dpmpp_2m, then ddpm": (
        SampleSettings(num_steps=5, sampler="dpmpp_2m", guidance_weight=1.5, threshold="none"),
        SampleSettings(
            num_steps=3, sampler="ddpm", guidance_weight=1.0, threshold="dynamic", percentile=70.0,
            aug_level=0.6,
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "negative"), [*zip(SETTINGS, (True, False), strict=True)])
def test_a_cascade_is_that_of_plain_numpy(name, negative):
    text, away = naive.prompts(0), naive.prompts(1) if negative else None
    first, second = SETTINGS[name]
    small = naive.sampled("base", text, SEEDS, first, away)
    large = naive.sampled("sr", text, SEEDS, second, away, small)
    columns = prompt_columns(*map(jnp.asarray, text), away and tuple(map(jnp.asarray, away)))
    made = generate(naive.stages_of(first, second), columns, seeds=jnp.array(SEEDS))
    for mine, theirs in zip((small, large), made, strict=True):
        np.testing.assert_allclose(theirs, mine, atol=1e-3)
    assert np.abs(small).max() > 0.3
    assert np.abs(large[0] - large[1]).max() > 0.05
