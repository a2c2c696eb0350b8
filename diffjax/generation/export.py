"""Exports a whole cascade as one program that runs without this code.

The folder holds graph.bin (StableHLO with its signature), params.safetensors (the program's first
argument: all parameters by names such as "base64/stem/kernel") and card.json (shapes, text encoder,
settings of every stage, versions).
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, UInt8

from diffjax.core import rng, tensorfile, trees
from diffjax.core.files import storing, write_whole
from diffjax.generation.chain import TrainedStage, prompt_columns, read_by
from diffjax.images import pixels
from diffjax.models.layers import convolve
from diffjax.models.layers.convolve import Convolution
from diffjax.tasks import sampling
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.task import Params, with_model

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
GRAPH, PARAMS, CARD = "graph.bin", "params.safetensors", "card.json"


def flat_params(stages: Sequence[TrainedStage]) -> dict[str, Array]:
    """The parameters of all stages by names such as "base64/stem/kernel"."""
    return trees.named_leaves(_by_stage(stages))


def _by_stage(stages: Sequence[TrainedStage]) -> dict[str, Params]:
    """The parameters of each stage, and beside them its frozen weights, if it has some."""
    trained = {one.task.name: one.params for one in stages}
    return trained | {
        f"{one.task.name}/frozen": one.task.frozen for one in stages if one.task.frozen
    }


def exported(
    stages: Sequence[TrainedStage], batch: int = 1, platforms: Sequence[str] = ("cpu",)
) -> export.Exported:
    """(params, text, mask, seeds) -> the last stage's pictures, uint8 [b s s 3], as one program.

    A program for CPUs alone uses the convolutions that are fastest there; one for several platforms
    uses plain ones. The pictures are those of `chain.generate` up to one level of 255.
    """
    text = stages[0].task.prompts()["text"]
    cpu_only = tuple(platforms) == ("cpu",)
    convolution = convolve.cpu_convolution if cpu_only else jax.lax.conv_general_dilated
    portable = dict(convolution=convolution, attention_implementation="xla")
    fitted = [_with_space(with_model(one.task, **portable), convolution) for one in stages]
    structure = jax.tree.structure(_by_stage(stages))
    names = list(flat_params(stages))

    def run(params, text, mask, seeds) -> UInt8[jax.Array, "b h w c"]:
        trained = jax.tree.unflatten(structure, [params[name] for name in names])
        keys, columns = rng.per_example(seeds), prompt_columns(text, mask)
        for task, one in zip(fitted, stages, strict=True):
            told = read_by(task, columns)
            task = dataclasses.replace(task, frozen=trained.get(f"{task.name}/frozen", {}))
            picture = sampling.sample(
                trained[task.name], told, keys, task=task, settings=one.settings
            )
            columns["low_res"] = picture
        return pixels.to_uint8(picture)

    shape = jax.ShapeDtypeStruct
    shapes = {name: shape(x.shape, x.dtype) for name, x in flat_params(stages).items()}
    return export.export(jax.jit(run), platforms=tuple(platforms))(
        shapes,
        shape((batch, *text.shape), jnp.float32),
        shape((batch, text.shape[0]), jnp.bool_),
        shape((batch,), jnp.int32),
    )


def save(
    folder: Path,
    stages: Sequence[TrainedStage],
    encoder: Mapping[str, object],
    batch: int = 1,
    platforms: Sequence[str] = ("cpu",),
) -> None:
    """Writes the folder. The card is written last, so a folder with a card is complete.

    encoder: what the card says of the text encoder.

    Raises:
      StorageError: the disk is full or fails.
    """
    graph = exported(stages, batch, platforms)
    last = stages[-1].task
    card = {
        "pictures": [batch, last.size_px, last.size_px, 3],
        "text": list(graph.in_avals[-3].shape),
        "encoder": encoder,
        "platforms": list(graph.platforms),
        "stages": {one.task.name: dataclasses.asdict(one.settings) for one in stages},
        "versions": {
            "jax": jax.__version__,
            "calling_convention": graph.calling_convention_version,
        },
    }
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CARD).unlink(missing_ok=True)
        params = {name: np.asarray(x) for name, x in flat_params(stages).items()}
        tensorfile.write(folder / PARAMS, params, {"format": "diffjax serving"})
        write_whole(folder / GRAPH, bytes(graph.serialize()))
        write_whole(folder / CARD, (json.dumps(card, indent=1) + "\n").encode())


def _with_space(task: Denoising, convolution: Convolution) -> Denoising:
    """The task with these convolutions in its autoencoder; unchanged if it learns no latents."""
    if not task.space:
        return task
    model = task.space.model.clone(convolution=convolution)
    return dataclasses.replace(task, space=dataclasses.replace(task.space, model=model))
