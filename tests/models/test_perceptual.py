"""The perceptual distance of EfficientNet-lite0; LPIPS's is compared in tests/encoders."""

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.core.trees import map_named
from diffjax.models.efficientnet_lite import Lite0
from diffjax.models.perceptual import ByLite0
from tests.models.parameters import anywhere

SIDE = 32


def test_the_distance_is_the_sum_over_layers_of_the_mean_square_between_directions():
    drawn = anywhere(Lite0(), x=jnp.zeros((1, SIDE, SIDE, 3)))
    params = map_named(lambda name, p: 1 + p if name.endswith("var") else p, drawn)
    a, b = np.random.default_rng(0).uniform(-1, 1, (2, 2, SIDE, SIDE, 3)).astype(np.float32)
    perceptual = ByLite0()
    both = jax.jit(
        lambda p, a, b: (
            perceptual.activations(p, jnp.concatenate([a, b])),
            perceptual.distance(p, a, b),
        )
    )
    layers, distance = both(params, a, b)
    assert [h.shape[1] for h in layers] == [SIDE // 2 ** (i + 1) for i in range(5)]
    wanted = np.zeros(2)
    for layer in layers:
        h = np.asarray(layer, np.float64)
        length = np.sqrt((h**2).sum(-1, keepdims=True))
        assert (length > 0).any()
        h = h / np.where(length > 0, length, 1.0)
        wanted += ((h[:2] - h[2:]) ** 2).sum(-1).mean((1, 2))
    np.testing.assert_allclose(distance, wanted, rtol=1e-4)
    np.testing.assert_array_equal(both(params, a, a)[1], 0.0)
