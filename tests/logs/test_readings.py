import jax.numpy as jnp
import numpy as np

from diffjax.logs import readings


def test_readings_keep_the_last_rows_with_columns_by_name():
    metrics = {"b": jnp.float32(2), "a": jnp.float32(1)}
    kept = readings.no_readings(3, metrics)
    for i in range(4):
        kept = readings.record(kept, {"b": jnp.float32(i), "a": jnp.float32(10 * i)})
    np.testing.assert_array_equal(kept.rows, [[30, 3], [10, 1], [20, 2]])
    assert int(kept.written) == 1
