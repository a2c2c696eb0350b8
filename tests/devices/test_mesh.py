import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from diffjax.build.options import config
from diffjax.build.tasks import task_of
from diffjax.devices import mesh as mesh_lib
from diffjax.models.layers.sharding import RULES


def test_the_mesh_takes_all_devices_unless_told():
    assert dict(mesh_lib.make_mesh().shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert mesh_lib.make_mesh(fsdp=2, tensor=2).devices.shape == (2, 2, 2)
    with pytest.raises(ValueError, match="data 3 x fsdp 1 x tensor 2 needs 6 devices, there are 8"):
        mesh_lib.make_mesh(3, 1, 2)


def shape(*axes):
    return jax.ShapeDtypeStruct(axes, jnp.float32)


def test_the_first_rule_that_matches_decides_and_an_unknown_leaf_is_an_error():
    mesh = mesh_lib.make_mesh(fsdp=2, tensor=2)
    state = {
        "params": {
            "head": {"conv": {"kernel": shape(3, 3, 8, 3), "bias": shape(3)}},
            "block": {"conv_0": {"kernel": shape(3, 3, 4, 8)}, "out": {"kernel": shape(4, 8)}},
        },
        "step": shape(),
    }
    sharding = mesh_lib.state_sharding(mesh, state, RULES)
    assert sharding["params"]["block"]["conv_0"]["kernel"].spec == P(None, None, "fsdp", "tensor")
    assert sharding["params"]["block"]["out"]["kernel"].spec == P("tensor", "fsdp")
    assert sharding["params"]["head"]["conv"]["kernel"].spec == P(None, None, "fsdp", None)
    assert sharding["step"].spec == P()
    with pytest.raises(ValueError, match="no sharding rule names params/a/gamma"):
        mesh_lib.state_sharding(mesh, {"params": {"a": {"gamma": shape(3)}}}, RULES)


def test_a_rule_names_a_leafs_last_axes_so_stacked_blocks_lie_as_single_ones_do():
    mesh = mesh_lib.make_mesh(fsdp=2, tensor=2)
    leaf = {"block_1_on": {"res": {"conv_1": {"kernel": shape(5, 3, 3, 4, 8)}}}}
    sharding = mesh_lib.state_sharding(mesh, leaf, RULES)
    (spec,) = [s.spec for s in jax.tree.leaves(sharding)]
    assert spec == P(None, None, None, "tensor", "fsdp")


def test_a_parameter_that_does_not_divide_is_named():
    mesh = mesh_lib.make_mesh(fsdp=8)
    leaf = {"params": {"out": {"kernel": shape(4, 12)}}}
    with pytest.raises(
        ValueError, match=r"params/out/kernel .*12 is not a multiple of mesh axis fsdp"
    ):
        mesh_lib.state_sharding(mesh, leaf, RULES)


PRESETS = [
    (file, preset)
    for file in ("base64", "sr256", "sr1024")
    for preset in importlib.import_module(f"configs.{file}").PRESETS
]
QUICK = [("base64", "demo"), ("base64", "300m"), ("sr256", "demo"), ("sr256", "paper")]


@pytest.mark.parametrize(
    ("file", "preset"),
    [one if one in QUICK else pytest.param(*one, marks=pytest.mark.slow) for one in PRESETS],
)
def test_a_rule_names_every_parameter(file, preset):
    mesh = mesh_lib.make_mesh(fsdp=4, tensor=2)
    task = task_of(config.load(f"configs/{file}.py:{preset}"), 256)
    params = jax.eval_shape(task.init, jax.random.key(0))
    mesh_lib.state_sharding(mesh, params, task.sharding)


def test_the_table_shows_the_bytes_on_each_device():
    mesh = mesh_lib.make_mesh(fsdp=2, tensor=2)
    leaves = {"a": {"conv_0": {"kernel": shape(4, 8), "bias": shape(8)}}}
    lines = mesh_lib.sharding_table(
        mesh_lib.state_sharding(mesh, leaves, RULES), leaves
    ).splitlines()
    assert [line.split() for line in lines] == [
        ["a/conv_0/bias", "(8,)", "(-)", "32"],
        ["a/conv_0/kernel", "(4,", "8)", "(fsdp,", "tensor)", "32"],
        ["bytes", "per", "device", "64"],
    ]


def test_the_table_of_a_state_has_a_line_for_each_parameter_and_one_for_the_rest():
    mesh = mesh_lib.make_mesh(fsdp=2, tensor=2)
    params = {"a": {"conv_0": {"kernel": shape(4, 8), "bias": shape(8)}}}
    state = {"params": params, "ema_params": {"one": params, "two": params}, "step": shape()}
    lines = mesh_lib.state_table(mesh_lib.state_sharding(mesh, state, RULES), state).splitlines()
    assert [line.split() for line in lines] == [
        ["params/a/conv_0/bias", "(8,)", "(-)", "32"],
        ["params/a/conv_0/kernel", "(4,", "8)", "(fsdp,", "tensor)", "32"],
        ["ema_params", "4", "arrays", "128"],
        ["step", "1", "arrays", "4"],
        ["bytes", "per", "device", "196"],
    ]


@pytest.mark.parametrize(
    ("sizes", "mine", "rows"),
    [
        ((8, 1, 1), [0, 1, 2, 3], range(8)),
        ((8, 1, 1), [4, 5, 6, 7], range(8, 16)),
        ((4, 2, 1), [6, 7], range(12, 16)),
        ((8, 1, 1), [7, 1, 3], [2, 3, 6, 7, 14, 15]),  # devices of a torus, as they come
        ((2, 1, 4), [0, 1], range(8)),  # a tensor group over two processes: both hold its rows
        ((2, 1, 4), [2, 3], range(8)),
        ((1, 1, 8), [5], range(16)),
    ],
)
def test_a_process_makes_the_rows_that_its_devices_hold(sizes, mine, rows):
    sharding = mesh_lib.batch_sharding(mesh_lib.make_mesh(*sizes))
    devices = [jax.devices()[i] for i in mine]
    assert mesh_lib.rows_here(sharding, 16, devices) == list(rows)
    held = {
        int(row)
        for shard in jax.device_put(jnp.arange(16), sharding).addressable_shards
        if shard.device in devices
        for row in shard.data
    }
    assert held == set(rows)


def test_with_one_process_arrays_are_used_and_read_as_they_are():
    mesh = mesh_lib.make_mesh(fsdp=8)
    tree = {"a": np.arange(16.0), "b": jnp.float32(3)}
    assert mesh_lib.replicate(tree, mesh) is tree
    split = jax.device_put(tree["a"], mesh_lib.batch_sharding(mesh))
    got = mesh_lib.to_host({"a": split, "b": tree["b"]})
    np.testing.assert_array_equal(got["a"], tree["a"])
    assert isinstance(got["a"], np.ndarray)
    assert got["b"] == 3


def test_statistics_of_an_optimiser_that_do_not_divide_are_whole_on_every_device():
    """Factored ones have shapes of their own; a parameter that does not divide is an error."""
    mesh = mesh_lib.make_mesh(fsdp=2, tensor=4)
    kernel = {"a": {"out": {"kernel": shape(4, 6)}}}
    sharding = mesh_lib.state_sharding(mesh, {"opt_state": kernel}, RULES)
    assert sharding["opt_state"]["a"]["out"]["kernel"].spec == P("tensor", "fsdp")
    odd = {"a": {"out": {"kernel": shape(3, 6)}}}
    sharding = mesh_lib.state_sharding(mesh, {"opt_state": odd}, RULES)
    assert sharding["opt_state"]["a"]["out"]["kernel"].spec == P()
    with pytest.raises(ValueError, match="3 is not a multiple of mesh axis tensor = 4"):
        mesh_lib.state_sharding(mesh, {"params": odd}, RULES)


def test_of_two_rules_that_match_the_first_decides():
    mesh = mesh_lib.make_mesh(fsdp=2, tensor=4)
    rules = ((r"a/.*", ("fsdp",)), (r".*/kernel", ("tensor",)), (r".*", ()))
    names = {"a": {"kernel": shape(8)}, "b": {"kernel": shape(8)}, "c": shape(8)}
    sharding = mesh_lib.state_sharding(mesh, names, rules)
    specs = [sharding["a"]["kernel"].spec, sharding["b"]["kernel"].spec, sharding["c"].spec]
    assert [tuple(axis for axis in spec if axis) for spec in specs] == [("fsdp",), ("tensor",), ()]


def test_compiled_programs_are_kept_in_the_users_cache_unless_it_is_said_where(
    tmp_path, monkeypatch
):
    name = "jax_compilation_cache_dir"
    before = jax.config.values[name]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        jax.config.update(name, None)
        mesh_lib.keep_compilations()
        assert jax.config.values[name] == str(tmp_path / "diffjax" / "jax")
        jax.config.update(name, "elsewhere")
        mesh_lib.keep_compilations()
        assert jax.config.values[name] == "elsewhere"
    finally:
        jax.config.update(name, before)
