import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffjax.diffusion import predict
from diffjax.diffusion.process import diffuse
from tests.diffusion.helpers import images

TO = {"x_0": predict.to_x_0, "eps": predict.to_eps, "v": predict.to_v}


@pytest.mark.parametrize(("have", "want"), list(itertools.product(predict.KINDS, repeat=2)))
@settings(max_examples=25, deadline=None)
@given(logsnr=st.floats(-20, 20, width=32))
def test_every_prediction_gives_every_other(have, want, logsnr):
    x_0, eps = images(0, (2, 4, 4, 3)), images(1, (2, 4, 4, 3))
    logsnr_t = jnp.full((2,), logsnr)
    x_t = diffuse(x_0, eps, logsnr_t)
    got = TO[want](predict.target(x_0, eps, logsnr_t, have), x_t, logsnr_t, have)
    truth = predict.target(x_0, eps, logsnr_t, want)
    # float32 rounding of x_t, divided by the smallest of alpha and sigma that the way there meets
    ratio = {("eps", "x_0"): -logsnr, ("x_0", "eps"): logsnr}.get((have, want), 0.0)
    ratio = max(ratio, {("eps", "v"): -logsnr, ("x_0", "v"): logsnr}.get((have, want), 0.0))
    np.testing.assert_allclose(got, truth, atol=3e-6 * max(1.0, float(np.exp(ratio / 2))))


def test_v_at_equal_signal_and_noise_is_their_difference_over_root_two():
    x_0, eps = images(0), images(1)
    v = predict.target(x_0, eps, jnp.zeros(4), "v")
    np.testing.assert_allclose(v, (eps - x_0) / np.sqrt(2), atol=1e-6)


def test_an_unknown_kind_is_named_with_those_allowed():
    with pytest.raises(ValueError, match=r"'epsilon'.*eps, v, x_0"):
        predict.as_denoiser(lambda x, _: x, "epsilon")
