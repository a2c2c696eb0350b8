"""Our side of `benchmarks.t5`: python -m benchmarks.t5_worker FOLDER WAY ANSWER."""

import dataclasses
import sys
from typing import Any

import jax
import numpy as np

from benchmarks import t5
from benchmarks.protocol import serve
from diffjax.encoders import sharding, weights
from diffjax.encoders.t5 import TextEncoder


@dataclasses.dataclass(frozen=True)
class Ids:
    """A tokenizer for captions that are written as ids, such as "17 5 1"."""

    def ids(self, text: str, max_length: int) -> list[int]:
        """The ids; they are never too many."""
        return [int(word) for word in text.split()][:max_length]


def main() -> None:
    folder, way, answer = sys.argv[1:]
    config, params = weights.load(folder, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    apply = sharding.compile_encoder(config, "float32")
    ours = TextEncoder(
        "race", config.d_model, t5.PADDED, "", np.dtype("float32"), Ids(), lambda: params, apply
    )
    given: list[Any] = t5.batches(way)
    if way == "padded":
        given = [t5.filled(rows, t5.PADDED) for rows in given]
        encode = lambda part: apply(params, *part)  # noqa: E731
    else:
        given = [[" ".join(map(str, row)) for row in rows] for rows in given]
        encode = lambda part: ours.encode(part)[0]  # noqa: E731
    np.save(answer, np.asarray(encode(given[0]))[:, : min(map(len, t5.batches(way)[0]))])
    serve(
        lambda _: [jax.block_until_ready(encode(part)) for part in given], warmup=2,
        name="diffjax", way=way, framework=f"jax {jax.__version__}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
