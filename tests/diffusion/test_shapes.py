"""Everything in diffjax.diffusion takes data of any shape [b *shape].

How the numbers of an example are arranged changes nothing: the answer for pictures, arranged as
vectors, points or sequences, is the answer for those.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core.types import Guess
from diffjax.diffusion import predict, process, schedule
from diffjax.diffusion.likelihood import bound, chain, flow, gaussian
from diffjax.diffusion.sampling import guidance, inpaint, sampler, threshold
from diffjax.diffusion.training import loss, times, variational
from tests.diffusion.helpers import SHAPES, images

KEY = jax.random.key(0)
LOGSNR = jnp.array([-6.0, -1.0, 0.5, 5.0])
LADDER = jnp.append(jnp.linspace(-6.0, 6.0, 4), jnp.inf)
PICTURE = (4, *SHAPES["picture"])
OTHERS = ("vector", "points")  # a sequence has as many axes as points


def denoise(x_t, logsnr_t):
    """Number by number, with a level of its own for each example."""
    return 0.4 * jnp.tanh(x_t) + process.per_example(0.1 * jax.nn.sigmoid(logsnr_t), x_t)


def other(x_t, logsnr_t):
    return 0.2 - 0.5 * denoise(x_t, logsnr_t)


def learned(x_t, logsnr_t):
    return Guess(denoise(x_t, logsnr_t), jax.nn.sigmoid(x_t))


def log_prob(x, logsnr_t):
    return -process.sum_of_each(jnp.square(x - 0.3))


def of_kind(kind):
    return lambda x, eps: (
        predict.convert(x, eps, LOGSNR, "v", kind),
        predict.to_x_0(x, eps, LOGSNR, kind),
        predict.to_eps(x, eps, LOGSNR, kind),
        predict.target(x, eps, LOGSNR, kind),
    )


def sampled(name, noise):
    step = sampler.by_name(name, noise)
    return lambda x, _: sampler.guesses(denoise, x, logsnrs=LADDER, step=step, key=KEY)


def guided(combine):
    return lambda x, _: combine(x, LOGSNR)


def halved(x):
    """A condition of half the size: the first half of each example's numbers."""
    return x.reshape(len(x), -1)[:, :6]


def in_a_chain(x, low_res, key):
    return process.sum_of_each(x) + (0.0 if low_res is None else process.sum_of_each(low_res))


FACTS = {
    "diffuse": lambda x, eps: process.diffuse(x, eps, LOGSNR),
    "renoise": lambda x, eps: process.renoise(x, eps, LOGSNR + 1.0, LOGSNR),
    "posterior mean": lambda x, eps: process.posterior(x, eps, LOGSNR + 1.0, LOGSNR)[0],
    "augment": lambda x, _: process.augment(
        x, jnp.linspace(0.1, 0.9, 4), key=KEY, schedule=schedule.cosine()
    ),
    "precondition": lambda x, _: predict.precondition(denoise)(x, LOGSNR),
    **{f"predict {kind}": of_kind(kind) for kind in predict.KINDS},
    **{
        f"sample {name} {noise}": sampled(name, noise)
        for name, noise in [
            ("ddpm", 0.3), ("ddim", 0.5), ("euler", 0.2), ("heun", 0.0),
            ("dpmpp_2s", 0.0), ("dpmpp_2m", 0.0), ("dpmpp_2m_sde", 1.0), ("unipc", 0.0),
            ("pndm", 0.0),
        ]
    },
    "sample with a learned variance": lambda x, _: sampler.sample(
        learned, x, logsnrs=LADDER, step=sampler.ddpm_learned(), key=KEY
    ),
    "trajectory": lambda x, _: sampler.trajectory(
        denoise, x, logsnrs=LADDER, step=sampler.ddim(), key=None
    ).x[2],
    "invert": lambda x, _: sampler.invert(denoise, x, logsnrs=LADDER),
    "guidance, rescaled": guided(guidance.classifier_free(denoise, other, 3.0, rescale=0.7)),
    "guidance, doubled": guided(
        guidance.classifier_free_doubled(denoise, jnp.array([0.0, 1.0, 2.0, 5.0]))
    ),
    "guidance, composed": guided(guidance.composed(other, (denoise, 2.0), (other, -1.0))),
    "guidance by a classifier": guided(guidance.classifier_guidance(denoise, log_prob, 2.0)),
    "guidance by reconstruction": guided(
        guidance.reconstruction_guidance(denoise, log_prob, 2.0)
    ),
    "dynamic threshold": lambda x, _: threshold.dynamic_threshold(lambda x, _: 3 * x, 90.0)(
        x, LOGSNR
    ),
    "slerp": lambda x, eps: inpaint.slerp(x, eps, jnp.linspace(0.0, 1.0, 4)),
    "sdedit": lambda x, _: inpaint.sdedit(
        denoise, x, logsnrs=LADDER, step=sampler.ddpm(), key=KEY
    ),
    "prior": lambda x, _: gaussian.prior_kl(x, LOGSNR),
    "bound": lambda x, _: bound.vlb(learned, x, logsnrs=LADDER, key=KEY, eight_bit=False),
    "continuous bound": lambda x, _: bound.vlb_continuous(
        denoise, x, key=KEY, num_times=3, eight_bit=False
    ),
    "likelihood": lambda x, _: flow.log_likelihood(
        denoise, x, key=KEY, num_steps=2, logsnr_min=-6.0, logsnr_max=6.0
    ),
    "likelihood, exact": lambda x, _: flow.log_likelihood(
        denoise, x, key=None, num_steps=2, probe="exact", logsnr_min=-6.0, logsnr_max=6.0
    ),
    "chain": lambda x, _: chain.cascade_bits_per_dim(
        [in_a_chain, in_a_chain], [chain.noised(halved, 0.1)], x, key=KEY
    ).total,
    "loss": lambda x, _: loss.diffusion_loss(
        denoise, x, key=jax.random.key(1), schedule=schedule.cosine(-8, 8), over="logsnr",
        predict="v", weighting="min_snr", times=times.stratified,
    ),
    "bound's loss": lambda x, _: variational.vlb_loss(
        denoise, x, key=jax.random.key(1), logsnrs=LADDER, gamma=0.3, eight_bit=False
    ),
}  # fmt: skip


def arranged(answer, shape):
    """Each answer [b *PICTURE] as [b *shape]; numbers per example stay as they are."""
    return jax.tree.map(lambda x: x.reshape(4, *shape) if x.shape == PICTURE else x, answer)


@pytest.mark.parametrize("name", FACTS)
def test_how_an_examples_numbers_are_arranged_changes_nothing(name):
    """Also where the batch is as long as an axis of the example: points are [4 4 3]."""
    x, eps = images(0, PICTURE), images(1, PICTURE)
    run = jax.jit(FACTS[name])
    answer = run(x, eps)
    for shape in (SHAPES[other] for other in OTHERS):
        got = run(*(part.reshape(4, *shape) for part in (x, eps)))
        wanted = arranged(answer, shape)
        for one, two in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            two = two.reshape(one.shape)
            np.testing.assert_allclose(one, two, rtol=2e-5, atol=2e-5, err_msg=str(shape))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_mask_over_any_axis_keeps_what_is_known(shape):
    known = images(0, (4, *shape))
    mask = jnp.arange(shape[-1]) > 0  # the first of the last axis is known, in every example
    mask = mask.reshape((1,) * len(shape) + (-1,))
    run = jax.jit(
        lambda x: inpaint.inpaint(
            denoise, x, known=known, mask=mask, logsnrs=LADDER, step=sampler.ddpm(), key=KEY,
            resample=2, jump=2,
        )
    )  # fmt: skip
    got = run(images(1, known.shape))
    np.testing.assert_array_equal(got[..., 0], known[..., 0])
    assert np.abs(got[..., 1:] - known[..., 1:]).min() > 1e-4


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_learned_variance_is_the_second_half_of_the_last_axis(shape):
    def network(x_t, logsnr_t):
        return jnp.concatenate([0.5 * x_t, jnp.full_like(x_t, 0.4)], axis=-1)

    x_t = images(0, (4, *shape))
    guess = predict.as_denoiser_with_variance(network, "x_0")(x_t, LOGSNR)
    np.testing.assert_array_equal(guess.x_0, 0.5 * x_t)
    np.testing.assert_allclose(guess.fraction, jnp.full_like(x_t, 0.7), rtol=1e-6)
    value, _ = variational.hybrid_loss(network, x_t, key=KEY, logsnrs=LADDER, eight_bit=False)
    assert np.isfinite(value)


def test_a_number_per_example_meets_the_first_axis_and_no_other():
    level = jnp.array([1.0, 2.0, 3.0])
    for shape in ((), (3,), (3, 3), (3, 3, 3)):
        like = jnp.ones((3, *shape))
        got = process.per_example(level, like) * like
        assert got.shape == like.shape
        np.testing.assert_array_equal(got.reshape(3, -1).mean(1), level)
    assert process.per_image(level).shape == (3, 1, 1, 1)
