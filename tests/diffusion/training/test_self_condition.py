import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import predict
from diffjax.diffusion.process import diffuse
from diffjax.diffusion.sampling import sampler
from diffjax.diffusion.schedule import cosine
from diffjax.diffusion.training import loss, self_condition
from tests.diffusion.helpers import images

KEY = jax.random.key(13)
LOGSNR = jnp.array([-4.0, -1.0, 0.5, 4.0])


def halves(w, u):
    """w x_t + u x_0_hat, of two parameters."""

    def network(x, logsnr_t):
        x_t, guess = jnp.split(x, 2, axis=-1)
        return w * x_t + u * guess

    return network


def test_without_a_guess_the_network_sees_zeros_and_with_one_its_own_answer_to_them():
    x_t = images(0)
    network = halves(0.5, 0.25)
    bound = {
        p: self_condition.for_training(network, "x_0", key=KEY, probability=p)(x_t, LOGSNR)
        for p in (0.0, 1.0)
    }
    np.testing.assert_allclose(bound[0.0], 0.5 * x_t, rtol=1e-6)
    np.testing.assert_allclose(bound[1.0], (0.5 + 0.25 * 0.5) * x_t, rtol=1e-6)


@pytest.mark.parametrize("probability", [0.5, 0.2])
def test_a_share_of_the_batches_sees_a_guess(probability):
    x_t = images(0, (1, 1, 1, 1))

    def saw_one(key):
        network = self_condition.for_training(
            halves(0.5, 0.25), "x_0", key=key, probability=probability
        )
        return (network(x_t, LOGSNR[:1]) / x_t > 0.6).all()

    seen = jax.jit(jax.vmap(saw_one))(jax.random.split(KEY, 4000))
    assert float(seen.mean()) == pytest.approx(probability, abs=0.03)


@pytest.mark.parametrize("kind", predict.KINDS)
def test_the_guess_is_of_x_0_whatever_the_network_predicts(kind):
    """A network that knows x_0 finds x_0 in its second half, in its own words' stead."""
    x_0, eps = images(0), images(1)
    x_t = diffuse(x_0, eps, LOGSNR)

    def network(x, logsnr_t):
        x_t, guess = jnp.split(x, 2, axis=-1)
        said = predict.convert(x_0, x_t, logsnr_t, "x_0", kind)
        return jnp.where(jnp.any(guess != 0), guess, said)

    second = self_condition.for_training(network, kind, key=KEY, probability=1.0)(x_t, LOGSNR)
    np.testing.assert_allclose(second, x_0, atol=2e-5)


@pytest.mark.parametrize("kind", predict.KINDS)
def test_neither_the_target_nor_the_guess_passes_a_gradient(kind):
    """d loss / d(w, u) = 2 E[error * d output], target and guess held: so the two are constants."""
    x_0, at = images(0), (0.7, -0.4)
    held = {}

    def value(params):
        network = halves(*params)
        bound = self_condition.for_training(network, kind, key=KEY, probability=1.0)
        return loss.diffusion_loss(
            bound, x_0, key=KEY, schedule=cosine(-4, 4), predict=kind, weighting=kind
        )[0]

    def watching(x, logsnr_t):
        held["x"], held["logsnr_t"] = x, logsnr_t  # the last call is the one that counts
        return halves(*at)(x, logsnr_t)

    with jax.disable_jit():
        bound = self_condition.for_training(watching, kind, key=KEY, probability=1.0)
        loss.diffusion_loss(bound, x_0, key=KEY, schedule=cosine(-4, 4), predict=kind)
    x_t, guess = jnp.split(held["x"], 2, axis=-1)
    eps = predict.to_eps(x_0, x_t, held["logsnr_t"], "x_0")
    target = predict.target(x_0, eps, held["logsnr_t"], kind)
    assert float(jnp.abs(guess).max()) > 0.1

    error = at[0] * x_t + at[1] * guess - target
    wanted = [2 * float(jnp.mean(error * x_t)), 2 * float(jnp.mean(error * guess))]
    np.testing.assert_allclose(jax.grad(value)(at), wanted, rtol=1e-3)


def test_a_network_with_a_variance_guesses_from_its_first_channels_alone():
    x_t = images(0)

    def network(x, logsnr_t):
        x_t, guess = jnp.split(x, 2, axis=-1)
        return jnp.concatenate([0.5 * x_t + 0.25 * guess, 9.0 + 0 * x_t], axis=-1)

    said = self_condition.for_training(network, "x_0", key=KEY, probability=1.0)(x_t, LOGSNR)
    np.testing.assert_allclose(said[..., :3], 0.625 * x_t, rtol=1e-6)
    np.testing.assert_array_equal(said[..., 3:], 9.0)


def test_the_denoiser_of_a_guess_hands_it_to_the_network():
    x_t, guess = images(0), images(1)
    denoise = self_condition.as_denoiser(halves(0.5, 0.25), "v", guess)
    wanted = predict.to_x_0(0.5 * x_t + 0.25 * guess, x_t, LOGSNR, "v")
    np.testing.assert_allclose(denoise(x_t, LOGSNR), wanted, rtol=1e-5, atol=1e-6)


def test_arguments_outside_their_range_are_named():
    with pytest.raises(ValueError, match=r"probability=1.5: between 0 and 1"):
        self_condition.for_training(halves(1, 1), "v", key=KEY, probability=1.5)
    with pytest.raises(ValueError, match=r"'epsilon'.*eps, v"):
        self_condition.for_training(halves(1, 1), "epsilon", key=KEY)


@pytest.mark.parametrize("name", ["ddim", "heun", "dpmpp_2m", "ddpm"])
def test_a_sampler_hands_each_rung_the_guess_of_the_rung_before(name):
    """A network that says the guess plus one: at rung i its answer is i + 1, zeros at the first."""
    network = lambda x, logsnr_t: jnp.split(x, 2, axis=-1)[1] + 1.0  # noqa: E731
    bind = lambda x_0_hat: self_condition.as_denoiser(network, "x_0", x_0_hat)  # noqa: E731
    rungs = jnp.array([-6.0, -2.0, 1.0, 4.0, jnp.inf])
    x_0 = sampler.sample(
        bind(jnp.zeros_like(images(0))),
        images(0),
        logsnrs=rungs,
        step=self_condition.for_sampling(sampler.by_name(name), bind),
        key=KEY,
    )
    # four evaluations come first at a rung; what 2M makes of the last is the last itself
    np.testing.assert_allclose(x_0, 4.0, rtol=1e-5)
