"""The layers of single pixels after a network on patches."""

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.models.efficient_unet import EfficientUNet
from diffjax.models.layers.finish import Finish
from diffjax.models.unet import UNet
from tests.diffusion.helpers import images
from tests.models.parameters import anywhere

EMB = jnp.asarray(np.random.default_rng(3).normal(size=(2, 8)), jnp.float32)
TINY = dict(width=8, mults=(1,), head_width=8, patch=2, attention_levels=())


def difference(params, answer, noisy):
    return np.asarray(Finish(4).apply({"params": params}, answer, [noisy], EMB) - answer)


def test_all_pixels_are_treated_alike():
    """The difference moves with the pictures by single pixels, though patches do not."""
    answer, noisy = images(0, (2, 12, 12, 3)), images(1, (2, 12, 12, 3))
    params = anywhere(Finish(4), answer=answer, inputs=[noisy], emb=EMB)
    here = difference(params, answer, noisy)
    there = difference(params, *(jnp.roll(x, (1, 2), (1, 2)) for x in (answer, noisy)))
    inner = slice(5, -5)
    assert np.abs(here).max() > 1e-3
    np.testing.assert_allclose(
        np.roll(here, (1, 2), (1, 2))[:, inner, inner], there[:, inner, inner], atol=1e-5
    )


def test_it_depends_on_the_noisy_picture_and_on_the_conditions():
    answer, noisy = images(0, (2, 8, 8, 3)), images(1, (2, 8, 8, 3))
    params = anywhere(Finish(4), answer=answer, inputs=[noisy], emb=EMB)
    here = difference(params, answer, noisy)
    assert np.abs(here - difference(params, answer, noisy + 1)).max() > 1e-3
    assert np.abs(here[0] - np.asarray(
        Finish(4).apply({"params": params}, answer, [noisy], EMB[::-1]) - answer
    )[0]).max() > 1e-3  # fmt: skip


def test_new_layers_leave_the_answer_of_both_u_nets_as_it_was():
    x, t = images(0, (2, 8, 8, 3)), jnp.zeros(2)
    small = dict(low_res=images(1, (2, 8, 8, 3)), aug_logsnr=jnp.ones(2))
    for plain, told in (
        (UNet(**TINY, num_blocks=1), {}),
        (EfficientUNet(**TINY, num_blocks=(1,), from_low_res=True), small),
    ):
        params = anywhere(plain, x_t=x, logsnr_t=t, **told)
        finished = plain.clone(finish=4)
        new = finished.init(jax.random.key(0), x_t=x, logsnr_t=t, **told)["params"]
        assert new.keys() - params.keys() == {"finish"}
        both = {**params, "finish": new["finish"]}
        np.testing.assert_array_equal(
            finished.apply({"params": both}, x_t=x, logsnr_t=t, **told),
            plain.apply({"params": params}, x_t=x, logsnr_t=t, **told),
        )
