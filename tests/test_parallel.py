import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from diffjax import parallel


def test_the_mesh_takes_all_devices_unless_told():
    assert dict(parallel.make_mesh().shape) == {"data": 8, "fsdp": 1}
    assert dict(parallel.make_mesh(fsdp=4).shape) == {"data": 2, "fsdp": 4}
    with pytest.raises(ValueError, match="needs 3 devices, there are 8"):
        parallel.make_mesh(3, 1)


def test_the_first_rule_that_matches_decides_and_an_unknown_leaf_is_an_error():
    mesh = parallel.make_mesh(fsdp=4)
    shape = lambda *s: jax.ShapeDtypeStruct(s, jnp.float32)  # noqa: E731
    state = {
        "params": {"head": {"conv": {"kernel": shape(3, 3, 8, 3)}}, "a": {"kernel": shape(5, 8)}},
        "step": shape(),
    }
    sharding = parallel.state_sharding(mesh, state)
    assert sharding["params"]["a"]["kernel"].spec == P(None, "fsdp")
    assert sharding["params"]["head"]["conv"]["kernel"].spec == P(None, None, None, None)
    assert sharding["step"].spec == P()
    with pytest.raises(ValueError, match="no sharding rule names params/a/gamma"):
        parallel.state_sharding(mesh, {"params": {"a": {"gamma": shape(3)}}})


def test_a_parameter_that_does_not_divide_is_named():
    mesh = parallel.make_mesh(fsdp=8)
    leaf = {"params": {"a": {"kernel": jax.ShapeDtypeStruct((4, 12), jnp.float32)}}}
    with pytest.raises(ValueError, match=r"params/a/kernel .*12 is no multiple"):
        parallel.state_sharding(mesh, leaf)
