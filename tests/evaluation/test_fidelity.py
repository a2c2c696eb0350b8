"""PSNR and SSIM against their definitions, written out with loops."""

import numpy as np
import pytest

from diffjax.evaluation import fidelity


def pictures(seed, shape=(2, 14, 13, 3)):
    rng = np.random.default_rng(seed)
    real = rng.integers(0, 256, shape, dtype=np.uint8)
    noise = rng.integers(-40, 41, shape)
    return np.clip(real + noise, 0, 255).astype(np.uint8), real


def test_psnr_of_a_known_error():
    real = np.full((1, 4, 4, 3), 100, np.uint8)
    made = real.copy()
    made[0, :2] += 10  # half of the pixels are off by 10
    assert fidelity.psnr(made, real)[0] == pytest.approx(20 * np.log10(255) - 10 * np.log10(50))
    assert fidelity.psnr(real, real)[0] == np.inf


def by_the_book(x, y):
    """Eq. 13 of Wang et al. 2004 for one channel, place by place."""
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = (z[i : i + 11, j : j + 11].astype(float) for z in (x, y))
            mean_a, mean_b = np.sum(weights * a), np.sum(weights * b)
            var_a = np.sum(weights * (a - mean_a) ** 2)
            var_b = np.sum(weights * (b - mean_b) ** 2)
            cov = np.sum(weights * (a - mean_a) * (b - mean_b))
            c_1, c_2 = 2.55**2, 7.65**2
            values.append(
                (2 * mean_a * mean_b + c_1) * (2 * cov + c_2)
                / ((mean_a**2 + mean_b**2 + c_1) * (var_a + var_b + c_2))
            )  # fmt: skip
    return np.mean(values)


def test_ssim_is_the_papers():
    made, real = pictures(0)
    want = [np.mean([by_the_book(m[..., c], r[..., c]) for c in range(3)])
            for m, r in zip(made, real, strict=True)]  # fmt: skip
    np.testing.assert_allclose(fidelity.ssim(made, real), want, rtol=0, atol=1e-12)
    np.testing.assert_allclose(fidelity.ssim(real, real), 1.0, rtol=0, atol=1e-12)


def test_what_cannot_be_compared_is_refused():
    made, real = pictures(1)  # the tests' type checker would stop these before psnr does
    with pytest.raises(ValueError, match="shapes"):
        fidelity.check(made[:1], real)
    with pytest.raises(ValueError, match="uint8"):
        fidelity.check(made / 255, real)
    with pytest.raises(ValueError, match="window is 11"):
        fidelity.ssim(made[:, :8], real[:, :8])
