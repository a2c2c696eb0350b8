"""Pictures as pairs of a vector and a noise, through a decoder whose every answer is known."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.editing import unclip
from diffjax.editing.unclip import Pair
from diffjax.generation.chain import TrainedStage
from diffjax.tasks.conditions import Embedding, LowRes, Text
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.settings import SampleSettings
from tests.diffusion.helpers import gaussian_denoiser, images
from tests.tiny_cascade import Told

VARIANCE = 0.04
WIDTH, SIZE = 3, 4
SETTINGS = SampleSettings(
    num_steps=64, sampler="ddpm", guidance_weight=1.0, threshold="none", aug_level=0.0
)


def shown(x_t, logsnr_t, *, vector, **told):
    """The best guess for pixels N(vector / 2, VARIANCE): each colour's mean is a number of it."""
    return gaussian_denoiser(0.5 * vector[:, None, None, :], VARIANCE)(x_t, logsnr_t)


def enlarged(x_t, logsnr_t, *, low_res, **told):
    return low_res


TEXT, VECTOR = Text(2, 3), Embedding("image_vector", WIDTH)
STAGES = [
    TrainedStage(Denoising("decoder", Told(shown), (SIZE, SIZE, 3), (TEXT, VECTOR), predict="x_0"),
                 {}, SETTINGS),
    TrainedStage(Denoising("sr", Told(enlarged), (8, 8, 3), (TEXT, LowRes(SIZE, 2)), predict="x_0"),
                 {}, SETTINGS),
]  # fmt: skip
SEEDS = jnp.arange(200)


def unit(rows, seed=0):
    """Unit vectors [rows WIDTH]."""
    x = images(seed, (rows, WIDTH, 1, 1))[..., 0, 0]
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


def drawn(vector, seed=5):
    """A picture of the distribution that a vector stands for, at the decoder's size."""
    noise = images(seed, (len(vector), SIZE, SIZE, 3))
    return 0.5 * vector[:, None, None, :] + VARIANCE**0.5 * noise


def repeated(pair, count):
    return Pair(*(jnp.repeat(x, count, axis=0) for x in pair))


def test_a_picture_is_inverted_to_the_noise_of_the_closed_form_and_comes_back():
    """Of N(m, v) DDIM keeps (x_t - alpha m) / sd(x_t): at noise alone it is (x - m) / sqrt(v)."""
    vector = unit(2)
    picture = drawn(vector)
    pair = unclip.pair_of(STAGES[:1], vector, picture, seed=0, level=0.0)
    exact = (picture - 0.5 * vector[:, None, None, :]) / VARIANCE**0.5
    np.testing.assert_allclose(pair.noise, exact, rtol=0.15, atol=0.05)  # of 64 steps
    (made,) = unclip.pictures_of(STAGES[:1], pair, seeds=jnp.arange(2))
    assert float(jnp.sqrt(jnp.mean((made - jnp.clip(picture, -1, 1)) ** 2))) < 0.05


def test_without_eta_the_seed_changes_nothing_and_with_it_the_vector_alone_is_kept():
    vector = unit(1)
    pair = unclip.pair_of(STAGES[:1], vector, drawn(vector), seed=0, level=0.0)
    rows = repeated(pair, len(SEEDS))
    (same,) = unclip.pictures_of(STAGES[:1], rows, seeds=SEEDS)
    np.testing.assert_allclose(same, jnp.repeat(same[:1], len(SEEDS), axis=0), atol=1e-5)
    (varied,) = unclip.pictures_of(STAGES[:1], rows, seeds=SEEDS, eta=1.0)
    np.testing.assert_allclose(varied.mean(axis=(0, 1, 2)), 0.5 * vector[0], atol=0.02)
    assert float(varied.std(axis=0).mean()) == pytest.approx(VARIANCE**0.5, rel=0.15)


def test_an_interpolation_begins_and_ends_with_the_reconstructions():
    vectors = unit(2)
    pictures = jnp.repeat(jnp.repeat(drawn(vectors), 2, axis=1), 2, axis=2)  # 8 px
    start, end = (
        unclip.pair_of(STAGES, vectors[i : i + 1], pictures[i : i + 1], seed=0) for i in (0, 1)
    )
    way = unclip.between(start, end, jnp.linspace(0.0, 1.0, 5))
    frames = unclip.pictures_of(STAGES, way, seeds=jnp.zeros(5, jnp.int32))
    assert [frame.shape[1] for frame in frames] == [4, 8]
    for i, one in ((0, start), (4, end)):
        alone = unclip.pictures_of(STAGES, one, seeds=jnp.zeros(1, jnp.int32))
        for frame, wanted in zip(frames, alone, strict=True):
            np.testing.assert_allclose(frame[i], wanted[0], atol=1e-5)
    halfway = jnp.linalg.norm(way.vector[2])
    assert float(halfway) == pytest.approx(1.0, abs=1e-5)
    ends = [np.asarray(one.noise, np.float64).ravel() for one in (start, end)]
    lengths = [np.linalg.norm(one) for one in ends]
    angle = np.arccos(ends[0] @ ends[1] / (lengths[0] * lengths[1]))
    middle = (ends[0] + ends[1]) * np.sin(angle / 2) / np.sin(angle)  # Shoemake 1985
    np.testing.assert_allclose(np.ravel(way.noise[2]), middle, atol=1e-4)


def test_a_text_diff_turns_the_vector_by_a_share_of_the_angle_to_the_difference():
    pair = Pair(2.0 * unit(1), images(3, (1, SIZE, SIZE, 3)))
    text, to = unit(2, seed=4)[:1], unit(2, seed=4)[1:]
    thetas = jnp.array([0.0, 0.25, 0.5, 1.0])
    turned = unclip.turned(pair, text, to, thetas)
    aim = (to - text) / jnp.linalg.norm(to - text)
    angle = lambda x: np.arccos(np.clip(np.sum(x * aim, -1) / np.linalg.norm(x, axis=-1), -1, 1))  # noqa: E731
    whole = angle(np.asarray(pair.vector))
    np.testing.assert_allclose(angle(np.asarray(turned.vector)), whole * (1 - thetas), atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(turned.vector, axis=1), 2.0, rtol=1e-5)
    np.testing.assert_array_equal(turned.noise, jnp.repeat(pair.noise, 4, axis=0))


def test_equal_texts_give_no_direction():
    pair = Pair(unit(1), images(3, (1, SIZE, SIZE, 3)))
    with pytest.raises(ValueError, match="the same vector"):
        unclip.turned(pair, unit(1), unit(1), jnp.array([0.5]))
