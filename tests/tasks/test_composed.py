"""What guidance leads away from, and the sum of several prompts: against the formulas in NumPy."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import rng
from diffjax.tasks import sampling
from diffjax.tasks.conditions import Class, Text, also, unprefixed
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.settings import SampleSettings
from tests.tasks.network import Network

X_T, LOGSNR = jnp.linspace(-1.0, 1.0, 8).reshape(2, 4), jnp.array([-4.0, 3.0])


class Weighted(Network):
    """x_0 is its weight times what the class says, and its offset."""

    def __init__(self):
        super().__init__(None)

        def apply(variables, x_t, logsnr_t, label):
            params = variables["params"]
            told = (label[:, None] + 1.0) * jnp.arange(1.0, 5.0)
            return params["weight"] * told / 40 + params["offset"] * x_t

        self.apply = apply


GOOD = {"weight": jnp.float32(1.0), "offset": jnp.float32(0.1)}
BAD = {"weight": jnp.float32(0.7), "offset": jnp.float32(-0.2)}
OWN = Denoising("own", Weighted(), (4,), (Class(3),), predict="x_0", of="x")
LABELS = {"label": jnp.array([0, 2])}


def naive(params, label):
    told = (np.asarray(label)[:, None] + 1.0) * np.arange(1.0, 5.0)
    return float(params["weight"]) * told / 40 + float(params["offset"]) * np.asarray(X_T)


def guess_of(task, params, columns, **settings):
    how = SampleSettings(threshold="none", **settings)
    given = sampling.given_by(task.conditions, columns, rng.per_example(jnp.arange(2)), how)
    denoise = sampling.denoiser(params, given, columns, task=task, settings=how)
    return np.asarray(denoise(X_T, LOGSNR))


GUIDED = dataclasses.replace(OWN, guide=OWN, frozen={"guide": BAD})


@pytest.mark.parametrize("weight", [1.0, 2.5])
def test_a_guide_takes_the_place_of_the_null_condition(weight):
    """w good + (1 - w) bad, both under the condition: no row sees the label of no class."""
    want = weight * naive(GOOD, [0, 2]) + (1 - weight) * naive(BAD, [0, 2])
    found = guess_of(GUIDED, GOOD, LABELS, guidance_weight=weight)
    np.testing.assert_allclose(found, want, atol=1e-5)
    plain = guess_of(OWN, GOOD, LABELS, guidance_weight=weight)
    null = weight * naive(GOOD, [0, 2]) + (1 - weight) * naive(GOOD, [3, 3])
    np.testing.assert_allclose(plain, null, atol=1e-5)


def test_a_guide_obeys_the_interval_of_guidance_and_its_rescale():
    """Row 0 is at -4, outside; rescaled by 1 a row has the deviation of the unguided guess."""
    found = guess_of(GUIDED, GOOD, LABELS, guidance_weight=2.5, guidance_from=0.0)
    good, bad = naive(GOOD, [0, 2]), naive(BAD, [0, 2])
    np.testing.assert_allclose(found[0], good[0], atol=1e-5)
    np.testing.assert_allclose(found[1], 2.5 * good[1] - 1.5 * bad[1], atol=1e-5)
    kept = guess_of(GUIDED, GOOD, LABELS, guidance_weight=2.5, guidance_rescale=1.0)
    np.testing.assert_allclose(kept.std(axis=1), good.std(axis=1), rtol=1e-4)


def test_tasks_of_other_guides_are_other_programs_and_their_weights_are_arguments():
    assert OWN != GUIDED
    assert dataclasses.replace(OWN, guide=OWN, frozen={"guide": GOOD}) == GUIDED
    assert hash(GUIDED) == hash(dataclasses.replace(GUIDED))


def says(x_t, logsnr_t, *, text, text_mask):
    seen = jnp.sum(text * text_mask[..., None], axis=1)
    return 0.3 * jnp.tanh(seen) + 0.1 * x_t


TEXT_TASK = Denoising("text", Network(says), (4,), (Text(4, 3),), predict="x_0", of="x")


def prompt(seed):
    random = np.random.default_rng(seed)
    text = jnp.asarray(random.normal(size=(2, 3, 4)), jnp.float32)
    return {"text": text, "text_mask": jnp.array([[True, True, False], [True, False, False]])}


def naive_text(told):
    text, mask = np.asarray(told["text"], np.float64), np.asarray(told["text_mask"])
    return 0.3 * np.tanh((text * mask[..., None]).sum(1)) + 0.1 * np.asarray(X_T)


def further(index, seed, shares):
    own = {**prompt(seed), "share": jnp.array(shares)}
    return {f"{also(index)}{name}": column for name, column in own.items()}


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_further_prompts_are_added_by_their_shares(weight, negative):
    """null + w (c_0 - null) + w s_1 (c_1 - null) + w s_2 (c_2 - null), a share for each row."""
    shares = ([0.5, 1.0], [-1.0, 0.25])
    columns = {**prompt(0), **further(0, 1, shares[0]), **further(1, 2, shares[1])}
    null = 0.1 * np.asarray(X_T)
    if negative:
        columns |= {f"negative_{name}": column for name, column in prompt(3).items()}
        null = naive_text(prompt(3))
    want = null + weight * (naive_text(prompt(0)) - null)
    for seed, share in zip((1, 2), shares, strict=True):
        want = want + weight * np.array(share)[:, None] * (naive_text(prompt(seed)) - null)
    found = guess_of(TEXT_TASK, {}, columns, guidance_weight=weight)
    np.testing.assert_allclose(found, want, atol=1e-5)


def test_outside_the_interval_further_prompts_count_by_their_shares_alone():
    columns = {**prompt(0), **further(0, 1, [0.5, 0.5])}
    found = guess_of(TEXT_TASK, {}, columns, guidance_weight=3.0, guidance_from=0.0)
    null, one, two = 0.1 * np.asarray(X_T), naive_text(prompt(0)), naive_text(prompt(1))
    weight = np.array([[1.0], [3.0]])
    want = null + weight * (one - null) + 0.5 * weight * (two - null)
    np.testing.assert_allclose(found, want, atol=1e-5)


@pytest.mark.parametrize(
    ("column", "plain"),
    [("text", "text"), ("negative_text", "text"), ("also_12_text_mask", "text_mask"),
     ("also_x_text", "also_x_text"), ("low_res", "low_res")],
)  # fmt: skip
def test_a_column_stands_for_the_one_without_its_prefix(column, plain):
    assert unprefixed(column) == plain
