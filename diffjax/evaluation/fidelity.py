"""PSNR and SSIM: how near a picture is to the true one."""

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import correlate1d

WINDOW, SIGMA_PX = 11, 1.5  # of ssim's Gaussian window: Wang et al. 2004, sec. III-B
K_1, K_2 = 0.01, 0.03
PEAK = 255.0


def psnr(
    made: UInt8[np.ndarray, "b h w c"], real: UInt8[np.ndarray, "b h w c"]
) -> Float[np.ndarray, " b"]:
    """10 log10(255^2 / mean squared error) of each picture, in dB; infinite for equal pictures.

    Raises:
      ValueError: the pictures differ in shape or are not bytes.
    """
    check(made, real)
    error = np.mean(np.square(made.astype(np.float64) - real), axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(PEAK**2 / error)


def ssim(
    made: UInt8[np.ndarray, "b h w c"], real: UInt8[np.ndarray, "b h w c"]
) -> Float[np.ndarray, " b"]:
    """Structural similarity of each picture, at most 1 (Wang et al. 2004, eq. 13).

    The statistics are computed under a Gaussian window of 11 x 11 px with sigma 1.5 px, at all
    places where it lies within the picture, and averaged over places and channels.

    Raises:
      ValueError: the pictures differ in shape, are not bytes, or are smaller than the window.
    """
    check(made, real)
    if min(made.shape[1:3]) < WINDOW:
        raise ValueError(f"pictures of {made.shape[1:3]} px, ssim's window is {WINDOW} px")
    x, y = made.astype(np.float64), real.astype(np.float64)
    mean_x, mean_y = _blurred(x), _blurred(y)
    var_x = _blurred(x * x) - mean_x**2
    var_y = _blurred(y * y) - mean_y**2
    cov = _blurred(x * y) - mean_x * mean_y
    c_1, c_2 = (K_1 * PEAK) ** 2, (K_2 * PEAK) ** 2
    luminance = (2 * mean_x * mean_y + c_1) / (mean_x**2 + mean_y**2 + c_1)
    structure = (2 * cov + c_2) / (var_x + var_y + c_2)
    return np.mean(luminance * structure, axis=(1, 2, 3))


def _blurred(x: Float[np.ndarray, "b h w c"]) -> Float[np.ndarray, "b i j c"]:
    """Means under the window, where it lies within the picture."""
    half = WINDOW // 2
    weights = np.exp(-0.5 * (np.arange(-half, half + 1) / SIGMA_PX) ** 2)
    weights /= weights.sum()
    for axis in (1, 2):
        x = correlate1d(x, weights, axis)
    return x[:, half:-half, half:-half]


def check(made: np.ndarray, real: np.ndarray) -> None:
    """Checks two batches of pictures.

    Raises:
      ValueError: they are not bytes of the same shape [b h w c].
    """
    if made.shape != real.shape or made.ndim != 4:
        raise ValueError(f"pictures of shapes {made.shape} and {real.shape}, want equal [b h w c]")
    if made.dtype != np.uint8 or real.dtype != np.uint8:
        raise ValueError(f"pictures of {made.dtype} and {real.dtype}, want uint8")
