"""The bound of a chain of T steps: in the betas of the papers, by time, and as a table."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from diffjax.build import evaluation, tasks
from diffjax.build.options import config
from diffjax.build.reports import bounds
from diffjax.build.reports.loaded import Asked, Loaded
from diffjax.core import rng
from diffjax.devices import mesh
from diffjax.diffusion import table
from diffjax.diffusion.likelihood.bound import vlb, vlb_by_time
from diffjax.diffusion.sampling.spacing import at_steps
from diffjax.evaluation.chain_bound import ChainBound
from diffjax.evaluation.examples import Examples
from diffjax.generation.chain import TrainedStage
from diffjax.generation.recipe import Origin
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.learning import Learning
from diffjax.tasks.settings import SampleSettings
from tests.tiny_cascade import Told

STEPS, BETAS = 5, table.linear_betas(0.05, 0.5, 5)
LADDER = at_steps(table.logsnr_table(BETAS), np.arange(STEPS)[::-1])
X_0 = np.random.default_rng(0).integers(0, 256, (2, 2, 2, 3)) / 127.5 - 1


def guess(x_t, logsnr_t):
    return 0.8 * jnp.tanh(x_t)


def in_betas(gamma):
    """Prior, L_{T-1} ... L_1 and L_0 [T+1 b] in bits per dimension (Ho et al. 2020, eq. 5)."""
    alpha_bar = np.cumprod(1 - BETAS)
    before = np.append(1.0, alpha_bar[:-1])
    small = BETAS * (1 - before) / (1 - alpha_bar)
    key_steps, key_decoder = rng.split(jax.random.key(3), 2)
    keys = [*rng.split(key_steps, STEPS - 1), key_decoder]
    rows, errors = [], []
    for t, key in zip(range(STEPS - 1, -1, -1), keys, strict=True):
        eps = np.asarray(rng.normal(key, X_0.shape), np.float64)
        x_t = np.sqrt(alpha_bar[t]) * X_0 + np.sqrt(1 - alpha_bar[t]) * eps
        x_0_hat = np.asarray(guess(jnp.asarray(x_t), 0), np.float64)
        eps_hat = (x_t - np.sqrt(alpha_bar[t]) * x_0_hat) / np.sqrt(1 - alpha_bar[t])
        errors.append(np.mean((eps - eps_hat) ** 2, axis=(1, 2, 3)))
        if t == 0:  # the code of Ho et al. 2020 takes the small variance of the step before
            deviation = np.sqrt(small[1])
            upper = np.where(X_0 > 0.999, np.inf, X_0 + 1 / 255)
            lower = np.where(X_0 < -0.999, -np.inf, X_0 - 1 / 255)
            mass = norm.cdf(upper, x_0_hat, deviation) - norm.cdf(lower, x_0_hat, deviation)
            nats = -np.log(np.maximum(mass, 1e-300))
        else:
            mean = np.sqrt(before[t]) * BETAS[t] / (1 - alpha_bar[t]) * (X_0 - x_0_hat)
            variance = small[t] ** (1 - gamma) * BETAS[t] ** gamma
            ratio = small[t] / variance
            nats = 0.5 * (ratio - 1 - np.log(ratio) + mean**2 / variance)
        rows.append(np.mean(nats, axis=(1, 2, 3)) / np.log(2))
    last = alpha_bar[-1]
    prior = 0.5 * (last * X_0**2 + (1 - last) - 1 - np.log(1 - last))
    return np.mean(prior, axis=(1, 2, 3)) / np.log(2), np.stack(rows), np.stack(errors)


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_the_terms_by_time_are_those_of_the_paper_in_its_betas(gamma):
    found = vlb_by_time(
        guess, jnp.asarray(X_0, jnp.float32), logsnrs=LADDER, key=jax.random.key(3), gamma=gamma,
        decoder_gamma=0.0,
    )  # fmt: skip
    prior, terms, errors = in_betas(gamma)
    np.testing.assert_allclose(found.bound.prior, prior, rtol=1e-4)
    np.testing.assert_allclose(found.terms, terms, rtol=1e-3)
    np.testing.assert_allclose(found.error, errors, rtol=1e-3)
    np.testing.assert_allclose(found.bound.total, prior + terms.sum(axis=0), rtol=1e-3)
    whole = vlb(
        guess, jnp.asarray(X_0, jnp.float32), logsnrs=LADDER, key=jax.random.key(3), gamma=gamma,
        decoder_gamma=0.0,
    )  # fmt: skip
    np.testing.assert_array_equal(whole.total, found.bound.total)


def task_of(learned=False):
    """A task that was trained as the chain of STEPS steps."""

    def said(x_t, logsnr_t):
        told = guess(x_t, logsnr_t)
        return jnp.concatenate([told, jnp.sin(x_t)], axis=-1) if learned else told

    objective = "hybrid" if learned else "simple"
    return Denoising(
        "toy", Told(said), (2, 2, 3), predict="x_0",
        schedule=table.discrete(table.logsnr_table(BETAS)),
        learning=Learning(objective=objective, discrete=True, num_levels=STEPS),
    )  # fmt: skip


def batch():
    return {"image": jnp.asarray(np.rint((X_0 + 1) * 127.5), jnp.uint8)}


@pytest.mark.parametrize("learned", [False, True])
def test_the_parts_by_time_add_up_to_the_bound(learned):
    keys = rng.per_example(jnp.arange(2))
    found = ChainBound(groups=3)(task_of(learned), {}, batch(), keys)
    terms = [found[f"term_{i}"] for i in range(3)]
    np.testing.assert_allclose(sum(terms), found["diffusion"] + found["decoder"], rtol=1e-5)
    np.testing.assert_allclose(found["bits_per_dim"], found["prior"] + sum(terms), rtol=1e-5)
    assert {"mse_0", "mse_2"} < found.keys()
    assert "term_3" not in found
    other = ChainBound(gamma=1.0, groups=3)(task_of(learned), {}, batch(), keys)
    same = np.allclose(found["diffusion"], other["diffusion"])
    assert same == learned  # a learned variance has no choice


def test_a_chain_that_is_sampled_with_a_static_threshold_is_clipped_in_its_bound_too():
    def task(scale, threshold, bound=jnp.inf):
        said = lambda x_t, logsnr_t: jnp.clip(scale * x_t, -bound, bound)  # noqa: E731
        settings = SampleSettings(threshold=threshold)
        return dataclasses.replace(task_of(), model=Told(said), settings=settings)

    def bits(task):
        return ChainBound(groups=1)(task, {}, batch(), rng.per_example(jnp.arange(2)))[
            "bits_per_dim"
        ]

    np.testing.assert_array_equal(bits(task(9, "static")), bits(task(9, "none", 1.0)))
    assert (bits(task(9, "none")) > 2 * bits(task(9, "static"))).all()


def loaded(learned=False):
    options = config.load("configs/digits.py:tiny_unconditional")
    task = task_of(learned)
    origin = Origin("toy", 2, 7, "live", "0" * 64)
    return Loaded(options, TrainedStage(task, {}, task.settings), origin, None)


def test_stages_are_compared_in_a_table(monkeypatch, capsys, tmp_path):
    found = Examples({"image": np.asarray(batch()["image"])}, ("", ""), ("", ""))
    monkeypatch.setattr(evaluation, "examples_of", lambda *_: found)
    here = mesh.make_mesh(devices=jax.devices()[:1])
    asked = Asked(2, 0, "train", tmp_path / "x")
    rows = bounds.bounds([loaded(), loaded(learned=True)], asked, here)
    assert [row["variance"] for row in rows] == ["small", "large", "learned"]
    assert [len(row["terms"]) for row in rows] == [STEPS] * 3
    for row in rows:
        parts = sum(row[part] for part in ("prior", "diffusion", "decoder"))
        assert row["bits_per_dim"] == pytest.approx(parts, rel=1e-5)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[-4:] == ["prior", "diffusion", "decoder", "bits/dim"]
    assert lines[2].split()[:7] == ["toy", "7", "live", "hybrid", "cosine", "5", "learned"]
    assert float(lines[0].split()[-1]) == pytest.approx(rows[0]["bits_per_dim"], abs=1e-4)


def test_stages_that_are_no_chain_of_fixed_steps_are_told_why():
    one = loaded()
    task = dataclasses.replace(one.stage.task, learning=Learning(learned_schedule=8))
    learned = dataclasses.replace(one, stage=dataclasses.replace(one.stage, task=task))
    assert bounds.fault([one]) == ""
    assert "learns its schedule" in bounds.fault([one, learned])


@pytest.mark.parametrize("preset", ["ddpm:tiny", "iddpm:tiny"])
def test_the_ladder_of_a_chain_has_the_steps_of_its_table(preset):
    options = config.load(f"configs/{preset}")
    task = tasks.task_of(options, 0)
    ladder = np.asarray(task.learning.ladder(task.schedule))
    steps = options.diffusion.num_levels
    betas = table.linear_betas if options.diffusion.schedule == "linear" else table.cosine_betas
    assert len(ladder) == steps + 1
    assert np.isposinf(ladder[-1])
    made = {
        table.linear_betas: lambda: betas(0.1 / steps, 20 / steps, steps),
        table.cosine_betas: lambda: betas(steps),
    }[betas]()
    np.testing.assert_allclose(ladder[:-1], table.logsnr_table(made)[::-1], rtol=1e-3, atol=1e-3)
