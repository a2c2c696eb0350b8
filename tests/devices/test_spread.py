"""How work goes over a mesh: sums, gradients and rows are those of one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.devices import mesh as mesh_lib
from diffjax.devices.spread import spread

RULES = ((r"split", ("fsdp", None)), (r"whole", ()))
PARAMS = {
    "split": jnp.arange(8.0).reshape(4, 2) / 7,
    "whole": jnp.array([0.5, -1.0, 2.0, 0.25]),
}
ROWS = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(16, 4)), jnp.float32)}


def work(params, rows, *, gather=None, all_rows=lambda x: x, my_rows=jnp.arange):
    """The gradient of a sum over these rows; each row's place, and the sum of all rows."""

    def total(params):
        used = params if gather is None else gather(params)
        return jnp.sum(jnp.tanh((rows["x"] * used["whole"]) @ used["split"]))

    everyone = all_rows(rows["x"])
    places = my_rows(len(rows["x"]))
    return jax.grad(total)(params), {"place": places, "same": everyone[places] - rows["x"]}


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 4, 1), (1, 4, 2), (4, 2, 1)])
def test_sums_are_those_of_all_rows_and_each_row_knows_its_place(sizes):
    mesh = mesh_lib.make_mesh(*sizes)
    place = mesh_lib.state_sharding(mesh, PARAMS, RULES)
    alone, _ = work(PARAMS, ROWS)
    spread_work = jax.jit(
        spread(mesh, place, RULES)(work), in_shardings=(place, mesh_lib.batch_sharding(mesh))
    )
    sums, out = spread_work(PARAMS, ROWS)
    for name, mine in sums.items():
        np.testing.assert_allclose(mine, alone[name], rtol=1e-5, atol=1e-6)
        assert mine.sharding.is_equivalent_to(place[name], mine.ndim)
    np.testing.assert_array_equal(out["place"], np.arange(16))
    np.testing.assert_array_equal(out["same"], np.zeros((16, 4)))
