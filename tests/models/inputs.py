"""What the image networks are given."""

import jax.numpy as jnp

from diffjax.models.efficient_unet import EfficientUNet
from tests.diffusion.helpers import images


def inputs(net, size=16, b=2):
    mask = jnp.arange(6)[None, :] < jnp.array([[3], [6]])[:b]
    given = {
        "x_t": images(0, (b, size, size, 3)),
        "logsnr_t": jnp.linspace(-1.0, 1.0, b),
        "text": images(1, (b, 6, 4, 1))[..., 0],
        "text_mask": mask,
    }
    if isinstance(net, EfficientUNet):
        given |= {"low_res": images(2, (b, size, size, 3)), "aug_logsnr": jnp.linspace(0.0, 1.0, b)}
    return given
