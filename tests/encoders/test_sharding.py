import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.core import trees
from diffjax.devices.mesh import make_mesh, spec_of
from diffjax.encoders import sharding, weights
from diffjax.encoders.t5 import load_encoder
from diffjax.models import t5
from diffjax.planning import encoding, hlo, jaxprs, memory
from tests.encoders import family
from tests.models.random_t5 import random_params

EVEN = t5.T5Config(384, 32, 8, 48, 2, 4)
ODD = t5.T5Config(384, 18, 5, 22, 1, 3, feed_forward="relu")
CAPTIONS = ["a red apple", "", "two blue birds"]


@pytest.fixture(scope="module", params=[EVEN, ODD], ids=["even", "odd"])
def folder(request, tmp_path_factory):
    made = tmp_path_factory.mktemp("sharding") / "tiny"
    weights.save(made, request.param, random_params(request.param))
    (made / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    return made


@pytest.mark.parametrize("name", family.FAMILY)
def test_every_parameter_of_the_t5_family_has_a_sharding_rule(name):
    sizes = {k: v for k, v in family.FAMILY[name].items() if k in t5.T5Config.__annotations__}
    config = t5.T5Config(**sizes, feed_forward=family.FAMILY[name]["feed_forward_proj"])
    for path, leaf in trees.named_leaves(t5.shapes(config)).items():
        spec = spec_of(path, leaf, sharding.RULES)
        assert (path.endswith("kernel") or path == "embedding") == (
            "fsdp" in spec and "tensor" in spec
        )


def test_a_mesh_splits_both_axes_of_each_matrix_if_it_divides_them():
    mesh = make_mesh(1, 4, 2)
    places = trees.named_leaves(sharding.params_sharding(mesh, EVEN))
    whole = trees.named_leaves(t5.shapes(EVEN))
    shards = {name: places[name].shard_shape(leaf.shape) for name, leaf in whole.items()}
    assert shards["embedding"] == (192, 8)
    assert shards["block_1/attention/q/kernel"] == (8, 16)
    assert shards["block_1/attention/o/kernel"] == (16, 8)
    assert shards["block_0/feed_forward/wi_1/kernel"] == (8, 24)
    assert shards["block_0/feed_forward/wo/kernel"] == (24, 8)
    assert shards["final_norm/scale"] == (32,)
    odd = trees.named_leaves(sharding.params_sharding(mesh, ODD))
    assert odd["block_0/attention/q/kernel"].shard_shape((18, 15)) == (18, 15)
    assert odd["block_0/feed_forward/wi/kernel"].shard_shape((18, 22)) == (18, 11)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "sides", [(2, 2, 2), pytest.param((8, 1, 1), marks=SLOW), pytest.param((1, 2, 4), marks=SLOW)]
)
def test_a_mesh_gives_the_embeddings_of_one_device(folder, sides):
    encoder = load_encoder(folder, mesh=make_mesh(*sides))
    embedded, mask = encoder.encode(CAPTIONS)  # 3 rows, which none of these meshes divides
    expected, expected_mask = load_encoder(folder).encode(CAPTIONS)
    np.testing.assert_allclose(embedded, expected, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(mask, expected_mask)
    kernel = encoder.params["block_0"]["feed_forward"]["wo"]["kernel"]
    want = sharding.params_sharding(encoder.mesh, weights.load_config(folder))
    assert kernel.sharding == want["block_0"]["feed_forward"]["wo"]["kernel"]


def test_a_block_needs_two_reductions_and_one_gather_per_matrix():
    work = encoding.abstract_encoding(EVEN, jax.devices(), 8, 16, fsdp=4, tensor=2)
    found = hlo.collectives(work.jitted.lower(*work.arguments).compile().as_text())
    table_and_blocks = 1 + 2 * EVEN.num_layers
    assert found["all-reduce"].count == table_and_blocks
    assert found["all-gather"].count == 1 + 7 * EVEN.num_layers  # the ids and the matrices
    assert found["all-to-all"].count == 1
    assert set(found) == {"all-reduce", "all-gather", "all-to-all"}


@pytest.mark.slow
def test_the_plan_of_v1_1_xxl_has_the_right_parameters_and_flops():
    xxl = t5.T5Config(32128, 4096, 64, 10240, 24, 64)
    work = encoding.abstract_encoding(xxl, jax.devices(), 16, 128, fsdp=4, tensor=2)
    assert trees.num_values(work.params) == 4_762_310_656
    size = lambda leaf: math.prod(leaf.sharding.shard_shape(leaf.shape))  # noqa: E731
    on_one = sum(size(leaf) for leaf in jax.tree.leaves(work.params))
    assert on_one == pytest.approx(
        trees.num_values(work.params) / 8, rel=1e-3
    )  # the norms are not split
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(work.params))
    tokens, matrices = 4 * 128, 4 * 4096 * 4096 + 3 * 4096 * 10240
    assert work.rows == 4
    assert jaxprs.flops(work.one_device) == 2 * tokens * 24 * (matrices + 2 * 128 * 4096)


def test_no_device_holds_all_of_v1_1_xxl_if_it_is_split_over_8():
    """Its parameters take 8.9 GiB in bfloat16, or 17.7 in float32, which CPUs multiply in."""
    xxl = t5.T5Config(32128, 4096, 64, 10240, 24, 64)
    work = encoding.abstract_encoding(xxl, jax.devices(), 8, 16, fsdp=8)
    peak = memory.bytes_by_kind(work.jitted.lower(*work.arguments).compile())["peak"]
    assert peak < 5 * 2**30  # its shards, the stacked copy of them, and one or two blocks


def test_a_batch_size_that_the_mesh_does_not_divide_is_refused():
    plan = functools.partial(encoding.abstract_encoding, EVEN, jax.devices(), length=16)
    with pytest.raises(ValueError, match="batch=6, want a multiple of the mesh's 4 row shards"):
        plan(batch=6, fsdp=2, tensor=2)
