"""Our side of `benchmarks.latent`: python -m benchmarks.latent_worker WORK FOLDER."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from benchmarks.latent import CLASSES, LENGTH, TEXT, Program, Work, config_of, inputs
from benchmarks.protocol import serve
from diffjax.diffusion import schedule, table
from diffjax.encoders import tensors
from diffjax.encoders.autoencoder import weights
from diffjax.encoders.stable_diffusion import unet
from diffjax.models.autoencoder.network import Autoencoder
from diffjax.models.dit import DiT
from diffjax.models.layers.convolve import fastest_convolution
from diffjax.tasks.conditions import Class, Condition, Text
from diffjax.tasks.denoising import Denoising
from diffjax.training import averages, optim, state, step
from tools.inputs import dit_inputs

STORED = "diffusion_pytorch_model.safetensors"
LOGSNRS = table.logsnr_table(table.quadratic_betas())


def program(work: Work, folder: Path) -> Program:
    """The step that is timed, and what the network answers."""
    given = inputs(work)
    x = jnp.asarray(given["x"])
    if work.network == "vae":
        loaded = weights.load(folder)
        net = Autoencoder(loaded.sizes, convolution=fastest_convolution())
        params = jax.device_put(loaded.params)
        decode = jax.jit(lambda p, z: net.apply({"params": p}, z, method="decode"))
        return lambda: jax.block_until_ready(decode(params, x)), np.asarray(decode(params, x))
    model, params = (of_unet if work.network == "unet" else of_dit)(work, folder)
    name = "text" if work.network == "unet" else "label"
    told = {name: jnp.asarray(given[name])}
    logsnr = jnp.asarray(LOGSNRS[given["step"]], jnp.float32)
    apply = jax.jit(lambda p, *given: model.apply({"params": p}, *given[:2], **given[2]))
    forward = lambda: jax.block_until_ready(apply(params, x, logsnr, told))  # noqa: E731
    answer = np.asarray(forward())
    return (training(work, model, params) if work.trains else forward), answer


def of_unet(work: Work, folder: Path) -> tuple[Any, Any]:
    """The U-Net, which is told the step of a chain, and its parameters."""
    stored = tensors.open_safetensors(folder, STORED)
    file = folder / "config.json"
    loaded = unet.of_config(json.loads(file.read_text()), stored, file, folder)
    model = loaded.model.clone(steps=table.steps_of(LOGSNRS), convolution=fastest_convolution())
    return model, jax.device_put(loaded.params)


def of_dit(work: Work, folder: Path) -> tuple[Any, Any]:
    """The transformer and its parameters."""
    sizes = config_of(work)
    model = DiT(
        work.width, sizes["num_layers"], head_width=sizes["attention_head_dim"],
        num_classes=CLASSES,
    )  # fmt: skip
    params = dit_inputs.params_of(load_file(folder / STORED), sizes["num_layers"])
    return model, jax.device_put(params)


def training(work: Work, model: Any, params: Any) -> Callable[[], object]:
    """A step of training without averages."""
    text = work.network == "unet"
    told: Condition = Text(TEXT, LENGTH) if text else Class(CLASSES, 0.1)
    side = work.side
    task = Denoising(
        "latent", model, (side, side, 4), (told,), schedule.quadratic(), "eps", "eps", of="z"
    )
    rate = optim.learning_rate(1e-4, warmup_steps=0, num_steps=1000)
    tx, none = optim.optimiser("adamw", rate, weight_decay=0.01), averages.parse(())
    given = inputs(work)
    batch = {"z": jnp.asarray(given["x"])}
    if text:
        batch["text"] = jnp.asarray(given["text"], jnp.bfloat16)
        batch["text_length"] = jnp.full(work.rows, LENGTH, jnp.int32)
    else:
        batch["label"] = jnp.asarray(given["label"], jnp.int32)
    key = jax.random.key(0)
    held = [jax.jit(lambda key, own: state.create(lambda _: own, tx, (), key))(key, params)]
    run = jax.jit(
        lambda now, batch: step.train_step(
            now, batch, task=task, tx=tx, root_key=key, averages=none
        ),
        donate_argnums=0,
    )

    def one() -> float:
        held[0], metrics = run(held[0], batch)
        return float(metrics["loss"])

    return one


def main() -> None:
    work, folder = Work(*json.loads(sys.argv[1])), Path(sys.argv[2])
    run, answer = program(work, folder)
    np.save(folder / "ours.npy", answer)
    serve(lambda _: run(), warmup=2, framework=f"jax {jax.__version__}")


if __name__ == "__main__":
    main()
