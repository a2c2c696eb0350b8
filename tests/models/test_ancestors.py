"""The networks of DDPM, improved DDPM and ADM: their counts, and what is theirs alone."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.build import tasks
from diffjax.build.options import config
from diffjax.core.trees import named_leaves, num_values
from diffjax.devices.mesh import spec_of
from diffjax.models.layers import blocks, level, stacking
from diffjax.models.layers.attention import Attention
from diffjax.models.layers.embedding import step_sinusoids
from diffjax.models.unet import UNet
from tests.diffusion.helpers import images
from tests.models.parameters import anywhere

SLOW = pytest.mark.slow
# Of the constants of the papers' codes; see docs/ancestors.md for the figures that papers print.
COUNTS = {
    "ddpm:cifar10": 35_746_307,
    "adm:64": 295_904_454,
    "ddpm:lsun": 113_673_219,
    "iddpm:cifar10": 52_546_438,
    "iddpm:imagenet64": 273_049_350,
    "iddpm:imagenet64_uncond": 121_063_942,
    "iddpm:lsun": 113_676_678,
    "iddpm:upsampler": 279_792_390,
    "adm:128": 421_529_606,
    "adm:256": 553_838_086,
    "adm:256_uncond": 552_814_086,
    "adm:512": 558_997_638,
    "adm:upsampler_256": 311_795_910,
    "adm:upsampler_512": 308_835_270,
}
FAST = ("ddpm:cifar10", "adm:64")
TINY = dict(width=16, mults=(1, 2), num_blocks=2, attention_levels=(1,), head_width=16)


@pytest.mark.parametrize(
    "spec", [spec if spec in FAST else pytest.param(spec, marks=SLOW) for spec in COUNTS]
)
def test_each_published_network_has_its_number_of_parameters_and_a_rule_for_each(spec):
    task = tasks.task_of(config.load(spec), 0)
    made = jax.eval_shape(task.init, jax.random.key(0))
    assert num_values(made) == COUNTS[spec]
    for name, leaf in named_leaves(made).items():
        spec_of(name, leaf, task.sharding)


@pytest.mark.parametrize("spec", ["ddpm:cifar10", "iddpm:cifar10", "adm:64", "adm:512"])
def test_a_network_is_told_the_step_of_its_chain_in_the_units_of_its_code(spec):
    """0 to 999 of 1,000 steps; improved DDPM's 4,000 are told as thousandths of them."""
    task = tasks.task_of(config.load(spec), 0)
    count = task.learning.num_levels
    levels = task.learning.objective_of(task.schedule, task.predict, task.weighting).logsnr(
        jnp.array([0.0, 0.5, 1.0 - 1e-7])
    )
    told = task.model.steps(levels)
    wanted = np.array([0, count // 2, count - 1]) * 1000 / count
    np.testing.assert_allclose(told, wanted, rtol=1e-6)


def test_sinusoids_are_those_of_both_codes():
    step, half = jnp.array([0.0, 7.0]), 4
    for sine_first, gaps in ((False, half), (True, half - 1)):
        angles = np.array([0.0, 7.0])[:, None] * 10_000.0 ** (-np.arange(half) / gaps)
        parts = [np.cos(angles), np.sin(angles)]
        wanted = np.concatenate(parts[::-1] if sine_first else parts, axis=1)
        np.testing.assert_allclose(step_sinusoids(step, 2 * half, sine_first), wanted, atol=1e-6)


def test_the_order_of_heads_changes_the_place_of_numbers_and_not_the_function():
    h, heads, d = images(0, (1, 3, 3, 8)), 2, 4
    plain = Attention(d, bias=True)
    params = anywhere(plain, h=h, tokens=None, mask=None)
    moved = lambda x: jnp.moveaxis(x.reshape(-1, 3, heads, d), 1, 2).reshape(x.shape)  # noqa: E731
    other = {**params, "qkv": jax.tree.map(moved, params["qkv"])}
    first = Attention(d, bias=True, heads_first=True)
    with jax.disable_jit():
        one, two = (
            net.apply({"params": p}, h, None, None) for net, p in ((plain, params), (first, other))
        )
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_dropped_numbers_are_a_share_the_others_grow_and_each_row_has_its_own():
    h, keys = jnp.ones((2, 64, 64, 8)), jax.random.split(jax.random.key(0), 2)
    found = blocks.drop_out(h, 0.3, keys)
    assert set(np.unique(found).round(4)) == {0.0, np.float32(1 / 0.7).round(4)}
    share = float(jnp.mean(found == 0))
    assert share == pytest.approx(0.3, abs=3 * np.sqrt(0.3 * 0.7 / h.size))
    np.testing.assert_array_equal(blocks.drop_out(h[1:], 0.3, keys[1:]), found[1:])
    assert not np.array_equal(found[0], found[1])


@SLOW
def test_dropout_is_drawn_by_its_key_and_is_off_without_one():
    net = UNet(**TINY, dropout=0.5)
    given = dict(x_t=images(0, (2, 8, 8, 3)), logsnr_t=jnp.zeros(2))
    keys = jax.random.split(jax.random.key(1), 2)
    params = anywhere(net, **given)

    @functools.partial(jax.jit, static_argnums=0)
    def run(net, params, **given):
        return net.apply({"params": params}, **given)

    plain, dropped = run(net, params, **given), run(net, params, **given, dropout_key=keys)
    off = run(net.clone(dropout=0.0), params, **given, dropout_key=keys)
    np.testing.assert_array_equal(plain, off)
    assert float(jnp.abs(dropped - plain).max()) > 1e-2
    other = run(net, params, **given, dropout_key=keys[::-1])
    assert float(jnp.abs(dropped - other).max()) > 1e-2
    again = run(net.clone(remat="products"), params, **given, dropout_key=keys)
    np.testing.assert_allclose(again, dropped, atol=1e-4)


class Three(nn.Module):
    """Three blocks with dropout, one after the other or as a scan."""

    scan: bool

    @nn.compact
    def __call__(self, h, emb, keys):
        """The last output."""
        return level.run_blocks(
            h, (emb, None, None), name="up", first=1, num=3, keys=keys, scan=self.scan, width=8,
            residual=functools.partial(blocks.ResBlock, dropout=0.5),
        )[0]  # fmt: skip


def test_equal_blocks_of_a_scan_draw_their_dropout_as_single_ones_do():
    h, emb = images(0, (1, 4, 4, 8)), images(1, (1, 6, 1, 1))[..., 0, 0]
    keys = jax.random.split(jax.random.key(0), 1)
    params = anywhere(Three(scan=True), h=h, emb=emb, keys=keys)
    found = Three(scan=True).apply({"params": params}, h, emb, keys)
    wanted = Three(scan=False).apply({"params": stacking.unstack(params)}, h, emb, keys)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
