import importlib

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from diffjax import build, config, parallel
from diffjax.stage import init_params


def test_the_mesh_takes_all_devices_unless_told():
    assert dict(parallel.make_mesh().shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert parallel.make_mesh(fsdp=2, tensor=2).devices.shape == (2, 2, 2)
    with pytest.raises(ValueError, match="data 3 x fsdp 1 x tensor 2 needs 6 devices, there are 8"):
        parallel.make_mesh(3, 1, 2)


def shape(*axes):
    return jax.ShapeDtypeStruct(axes, jnp.float32)


def test_the_first_rule_that_matches_decides_and_an_unknown_leaf_is_an_error():
    mesh = parallel.make_mesh(fsdp=2, tensor=2)
    state = {
        "params": {
            "head": {"conv": {"kernel": shape(3, 3, 8, 3), "bias": shape(3)}},
            "block": {"conv_0": {"kernel": shape(3, 3, 4, 8)}, "out": {"kernel": shape(4, 8)}},
        },
        "step": shape(),
    }
    sharding = parallel.state_sharding(mesh, state)
    assert sharding["params"]["block"]["conv_0"]["kernel"].spec == P(None, None, "fsdp", "tensor")
    assert sharding["params"]["block"]["out"]["kernel"].spec == P("tensor", "fsdp")
    assert sharding["params"]["head"]["conv"]["kernel"].spec == P(None, None, "fsdp", None)
    assert sharding["step"].spec == P()
    with pytest.raises(ValueError, match="no sharding rule names params/a/gamma"):
        parallel.state_sharding(mesh, {"params": {"a": {"gamma": shape(3)}}})


def test_a_rule_names_a_leafs_last_axes_so_stacked_blocks_lie_as_single_ones_do():
    mesh = parallel.make_mesh(fsdp=2, tensor=2)
    leaf = {"block_1_on": {"res": {"conv_1": {"kernel": shape(5, 3, 3, 4, 8)}}}}
    sharding = parallel.state_sharding(mesh, leaf)
    (spec,) = [s.spec for s in jax.tree.leaves(sharding)]
    assert spec == P(None, None, None, "tensor", "fsdp")


def test_a_parameter_that_does_not_divide_is_named():
    mesh = parallel.make_mesh(fsdp=8)
    leaf = {"params": {"out": {"kernel": shape(4, 12)}}}
    with pytest.raises(
        ValueError, match=r"params/out/kernel .*12 is no multiple of mesh axis fsdp"
    ):
        parallel.state_sharding(mesh, leaf)


@pytest.mark.parametrize("file", ["base64", "sr256", "sr1024"])
def test_a_rule_names_every_parameter_of_every_preset(file):
    mesh = parallel.make_mesh(fsdp=4, tensor=2)
    for preset in importlib.import_module(f"configs.{file}").PRESETS:
        options = config.load(f"configs/{file}.py:{preset}")
        the_stage = build.stage_of(options, 256)
        params = jax.eval_shape(lambda key, s=the_stage: init_params(s, key), jax.random.key(0))
        parallel.state_sharding(mesh, params)


def test_the_table_says_the_bytes_that_lie_on_each_device():
    mesh = parallel.make_mesh(fsdp=2, tensor=2)
    leaves = {"a": {"conv_0": {"kernel": shape(4, 8), "bias": shape(8)}}}
    lines = parallel.table(parallel.state_sharding(mesh, leaves), leaves).splitlines()
    assert [line.split() for line in lines] == [
        ["a/conv_0/bias", "(8,)", "(-)", "32"],
        ["a/conv_0/kernel", "(4,", "8)", "(fsdp,", "tensor)", "32"],
        ["bytes", "per", "device", "64"],
    ]
