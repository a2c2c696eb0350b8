import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import trees
from diffjax.models.efficient_unet import EfficientUNet
from diffjax.models.unet import UNet
from tests.diffusion.helpers import images
from tests.models.inputs import inputs
from tests.models.parameters import anywhere

TINY = {"width": 16, "mults": (1, 2), "head_width": 16, "token_width": 8}
NETS = {
    "unet": UNet(**TINY, num_blocks=1, attention_levels=(1,)),
    "efficient": EfficientUNet(**TINY, num_blocks=(1, 1), patch=2),
    "efficient_cross": EfficientUNet(**TINY, num_blocks=(1, 1), attention="cross"),
}


SOME = [
    pytest.param(name, marks=[pytest.mark.slow] if name == "efficient" else []) for name in NETS
]


@pytest.fixture(scope="module", params=SOME)
def trained(request):
    net = NETS[request.param]
    apply = jax.jit(lambda p, **given: net.apply({"params": p}, **given))
    return net, apply, anywhere(net, **inputs(net))


def test_a_new_network_returns_zero(trained):
    net, apply, _ = trained
    params = jax.jit(net.init)(jax.random.key(0), **inputs(net))["params"]
    np.testing.assert_array_equal(apply(params, **inputs(net)), 0.0)


def test_the_output_depends_on_every_input(trained):
    net, apply, params = trained
    given = inputs(net)
    before = apply(params, **given)
    assert before.shape == given["x_t"].shape
    assert before.dtype == jnp.float32
    for name, value in given.items():
        changed = {**given, name: value[::-1] if value.ndim < 4 else value + images(9, value.shape)}
        after = apply(params, **changed)
        assert float(jnp.abs(after - before).max()) > 1e-4, name


def test_masked_text_is_ignored(trained):
    net, apply, params = trained
    given = inputs(net)
    other = {**given, "text": jnp.where(given["text_mask"][..., None], given["text"], 50.0)}
    np.testing.assert_allclose(apply(params, **given), apply(params, **other), atol=1e-4)


def test_an_image_does_not_depend_on_its_batch(trained):
    net, apply, params = trained
    given = inputs(net)
    alone = {name: value[1:] for name, value in given.items()}
    np.testing.assert_allclose(apply(params, **given)[1:], apply(params, **alone), atol=1e-4)


def test_only_a_network_with_cross_attention_is_independent_of_the_picture_size():
    net = NETS["efficient_cross"]
    params = anywhere(net, **inputs(net))
    out = jax.eval_shape(lambda: net.apply({"params": params}, **inputs(net, size=24)))
    assert out.shape == (2, 24, 24, 3)


def test_a_picture_size_that_is_not_a_multiple_of_the_stride_is_refused():
    assert NETS["unet"].stride == 2
    assert NETS["efficient"].stride == 8
    assert UNet(patch=4).stride == 32


@pytest.mark.slow
def test_every_parameter_has_a_gradient(trained):
    net, apply, params = trained
    given = inputs(net)
    loss = lambda p: jnp.sum(apply(p, **given) * images(5, (2, 16, 16, 3)))  # noqa: E731
    gradients = trees.named_leaves(jax.jit(jax.grad(loss))(params))
    # softmax ignores a constant in its scores, so only that bias may have no gradient
    dead = [n for n, g in gradients.items() if not float(jnp.abs(g).max()) > 0]
    assert [n for n in dead if "score/bias" not in n] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "efficient"])
def test_bfloat16_stays_near_float32(name):
    net = NETS[name]
    given = inputs(net)
    params = anywhere(net, **given)
    run = lambda net: jax.jit(lambda p, **g: net.apply({"params": p}, **g))(params, **given)  # noqa: E731
    exact, rough = run(net), run(net.clone(dtype=jnp.bfloat16))
    assert rough.dtype == jnp.float32
    scale = float(jnp.sqrt(jnp.mean(exact**2)))
    assert 0 < float(jnp.sqrt(jnp.mean((rough - exact) ** 2))) < 0.03 * scale


def test_a_canvas_lets_the_text_change_single_pixels():
    """Without attention, in a blank picture, only the canvas makes inner pixels differ."""
    spread = {}
    for canvas in (0, 8):
        net = UNet(**TINY | {"mults": (1,), "attention_levels": ()}, num_blocks=1, canvas=canvas)
        given = inputs(net, size=48, b=1) | {"x_t": jnp.zeros((1, 48, 48, 3))}
        params = anywhere(net, **given)
        middle = jax.jit(net.apply)({"params": params}, **given)[0, 20:28, 20:28]
        spread[canvas] = float(jnp.std(middle, axis=(0, 1)).max())
    assert spread[0] < 1e-4
    assert spread[8] > 1e-2


def test_a_new_network_with_from_low_res_returns_alpha_times_the_low_resolution_picture():
    net = EfficientUNet(**TINY, num_blocks=(1, 1), from_low_res=True)
    draw = np.random.default_rng(0)
    clean, noise = draw.normal(size=(2, 2, 32, 32, 3))
    level = np.array([3.7, -2.0])  # log SNR
    alpha, sigma = (np.sqrt(1 / (1 + np.exp(s * level)))[:, None, None, None] for s in (-1, 1))
    low_res = alpha * clean + sigma * noise
    given = inputs(net, size=32) | {
        "low_res": jnp.float32(low_res),
        "aug_logsnr": jnp.float32(level),
    }
    params = jax.jit(net.init)(jax.random.key(0), **given)
    said = np.asarray(jax.jit(net.apply)(params, **given), np.float64)
    nearest = [np.vdot(c, z) / np.vdot(z, z) for c, z in zip(clean, low_res, strict=True)]
    np.testing.assert_allclose(nearest, alpha.ravel(), atol=0.03)
    np.testing.assert_allclose(said, alpha * low_res, atol=1e-5)
