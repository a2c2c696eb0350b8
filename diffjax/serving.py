"""python -m diffjax.serving --stages runs/base64,runs/sr256 --out serve/ [--batch 1]

Writes a whole cascade as one program that runs without this code: text embeddings and seeds in,
uint8 pictures out. The folder holds

    graph.bin            the program, as jax.export serialises it (StableHLO with its signature)
    params.safetensors   its first argument: all parameters, by names such as "base64/stem/kernel"
    card.json            shapes, text encoder, settings of every stage, versions

and is used with jax and safetensors alone:

    graph = jax.export.deserialize(bytearray(Path("serve/graph.bin").read_bytes()))
    pictures = graph.call(load_file("serve/params.safetensors"), text, mask, seeds)

`text` [b l d] float32 and `mask` [b l] bool are what the encoder that card.json names gives
(rounded to bfloat16 and back, as in training), `seeds` int32 [b]. A program for several
--platforms runs on each of them. Exit codes: 0 done, 2 bad input, 5 the disk is full.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import UInt8

from diffjax.core import command, rng, tensorfile, trees
from diffjax.core.errors import require
from diffjax.core.files import storing, write_whole
from diffjax.images import pixels
from diffjax.models.layers import convolve
from diffjax.tasks import sampling

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
GRAPH, PARAMS, CARD = "graph.bin", "params.safetensors", "card.json"


def flat_params(stages: Sequence[sampling.TrainedStage]) -> dict[str, Any]:
    """The parameters of all stages by "stage/path": what the program takes."""
    return trees.named_leaves({trained.stage.name: trained.params for trained in stages})


def exported(
    stages: Sequence[sampling.TrainedStage], batch: int = 1, platforms: Sequence[str] = ("cpu",)
) -> export.Exported:
    """(params, text, mask, seeds) -> the last stage's pictures, uint8 [b s s 3], as one graph.

    A program for CPUs alone has their fastest convolutions; one for several platforms the plain
    ones. Pictures are those of `sampling.generate` up to rounding: one level of 255 here or there.
    """
    first = stages[0].stage
    cpu_only = tuple(platforms) == ("cpu",)
    convolution = convolve.for_cpu if cpu_only else jax.lax.conv_general_dilated
    portable = dict(convolution=convolution, attention_implementation="xla")
    fitted = [
        dataclasses.replace(one.stage, model=one.stage.model.clone(**portable)) for one in stages
    ]
    structure = jax.tree.structure({one.stage.name: one.params for one in stages})
    names = list(flat_params(stages))

    def run(params, text, mask, seeds) -> UInt8[jax.Array, "b h w c"]:
        trained = jax.tree.unflatten(structure, [params[name] for name in names])
        keys = rng.per_example(seeds)
        picture: Any = None
        for stage, one in zip(fitted, stages, strict=True):
            picture = sampling.sample_stage(
                trained[stage.name], text, mask, keys, picture, stage=stage, settings=one.settings
            )
        return pixels.to_uint8(picture)

    shape = jax.ShapeDtypeStruct
    shapes = {name: shape(x.shape, x.dtype) for name, x in flat_params(stages).items()}
    return export.export(jax.jit(run), platforms=tuple(platforms))(
        shapes,
        shape((batch, first.max_tokens, first.text_width), jnp.float32),
        shape((batch, first.max_tokens), jnp.bool_),
        shape((batch,), jnp.int32),
    )


def save(
    folder: Path,
    stages: Sequence[sampling.TrainedStage],
    encoder: dict[str, Any],
    batch: int = 1,
    platforms: Sequence[str] = ("cpu",),
) -> None:
    """Write the folder; the card goes last, so that a folder with a card is whole.

    Raises:
      StorageError: the disk refuses.
    """
    graph = exported(stages, batch, platforms)
    last = stages[-1].stage
    card = {
        "pictures": [batch, last.size_px, last.size_px, 3],
        "text": list(graph.in_avals[-3].shape),
        "encoder": encoder,
        "platforms": list(graph.platforms),
        "stages": {one.stage.name: dataclasses.asdict(one.settings) for one in stages},
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the flags, export, and say in the exit code how it went."""
    flags = command.parser("serving", __doc__)
    flags.add_argument(
        "--stages",
        type=command.paths,
        help="workdirs or exports: DIR,DIR; none: those that ship",
    )
    flags.add_argument("--out", type=command.path, required=True, help="the folder to write")
    flags.add_argument("--batch", type=int, default=1, help="pictures a call")
    flags.add_argument("--platforms", default="cpu", help=f"some of {','.join(PLATFORMS)}")
    flags.add_argument("--ema", help="which average; none: the first that training kept")
    return command.run_command(flags, work, arguments)


def work(flags: argparse.Namespace) -> None:
    """Load the stages, and write them as one program."""
    platforms = flags.platforms.split(",")
    require(flags.batch > 0, "--batch", flags.batch, "must be at least 1")
    allowed = f"allowed: {', '.join(PLATFORMS)}"
    require(set(platforms) <= set(PLATFORMS), "--platforms", flags.platforms, allowed)
    from diffjax.build.loading import load_stages, stage_dirs

    stages, encoder = load_stages(stage_dirs(None, flags.stages), flags.ema)
    whose = {"name": encoder.name, "fingerprint": encoder.fingerprint}
    save(flags.out, stages, whose | {"max_length": encoder.max_length}, flags.batch, platforms)
    print(f"{flags.out}: {sum(p.stat().st_size for p in flags.out.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    command.start(main)
