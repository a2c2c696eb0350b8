"""Times the training step of configs: the same program that training compiles.

    python -m benchmarks.train_step --config configs/base64.py:300m --config.mesh.fsdp=1 \
        --batch 16 --dtype bfloat16 --config.text.width=4096

Without --config it takes the laptop presets of base64 and sr256. FLOP/s count the matrix products
and convolutions of the traced program, including those that rematerialisation repeats. MFU, on
chips that `diffjax.devices.chips` knows, counts only what the model needs.
"""

import sys

import jax
import numpy as np

from benchmarks import timing
from diffjax.build.inputs.texts import text_width_of
from diffjax.build.training import training_of
from diffjax.core import trees
from diffjax.core.errors import ConfigError
from diffjax.planning import jaxprs, shapes
from diffjax.training.program import program_of


def measure(spec: str, flags, overrides: list[str]) -> None:
    """Times one config and prints the result."""
    options = timing.options_of(spec, flags, overrides)
    training = training_of(options, text_width_of(options))
    work = shapes.training(training)
    state = program_of(training).place.init(jax.random.key(0))
    num_params = trees.num_values(state.params)
    random = np.random.default_rng(0)
    batch = {
        name: jax.device_put(drawn(random, name, like), like.sharding)
        for name, like in work.arguments[1].items()
    }
    task = training.task

    def call(compiled, arguments):
        state, _ = compiled(*arguments)
        return state, batch, task

    timed = timing.timed(work.jitted, (state, batch, task), flags.steps, call)
    side = batch["image"].shape[1]
    print(
        f"{spec}: {num_params / 1e6:.2f} M parameters, batch {work.batch}, {side} px, "
        f"{options.model.dtype}"
    )
    # what the network needs, without repeated computation
    needed = sum(product.flops for product in jaxprs.products(work.one_device)) / work.rows
    share = timing.mfu(needed * work.batch, timed.call_s, jax.device_count())
    print(timed.line("training step", work.batch) + share)
    print(f"  {timing.held()}", flush=True)


def drawn(random: np.random.Generator, name: str, like: jax.ShapeDtypeStruct) -> np.ndarray:
    """A random array for a column of the batch; captions have full length."""
    if name == "text_length":
        return np.full(like.shape, 2**31 - 1, like.dtype)
    if name == "image":
        return random.integers(0, 256, like.shape).astype(like.dtype)
    return random.normal(size=like.shape).astype(like.dtype)


def main() -> int:
    """Times each config; returns the exit code."""
    flags, overrides = timing.parser(__doc__ or "").parse_known_args()
    timing.start()
    try:
        for spec in flags.config or ("configs/base64.py", "configs/sr256.py"):
            measure(spec, flags, overrides)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
