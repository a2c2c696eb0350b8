"""python -m diffjax.serving --stages runs/base64,runs/sr256 --out serve/ [--batch 1]

Writes a whole cascade as one program that runs without this code. It takes text embeddings and
seeds, and gives uint8 pictures. The folder holds

    graph.bin            the program, as jax.export serialises it (StableHLO with its signature)
    params.safetensors   its first argument: all parameters, by names such as "base64/stem/kernel"
    card.json            shapes, text encoder, settings of every stage, versions

and is used with jax and safetensors alone:

    graph = jax.export.deserialize(bytearray(Path("serve/graph.bin").read_bytes()))
    pictures = graph.call(load_file("serve/params.safetensors"), text, mask, seeds)

`text` [b l d] float32 and `mask` [b l] bool come from the encoder that card.json names, with `text`
rounded to bfloat16 and back, as in training; `seeds` is int32 [b]. A program for several
--platforms runs on each of them. Exit codes: 0 done, 2 bad input, 5 the disk is full.
"""

import argparse
from collections.abc import Sequence

from diffjax.core import command
from diffjax.core.errors import require
from diffjax.generation.export import PLATFORMS, save


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = command.parser("serving", __doc__)
    flags.add_argument(
        "--stages",
        type=command.paths,
        help="workdirs or exports: DIR,DIR; by default the cascade that ships",
    )
    flags.add_argument("--out", type=command.path, required=True, help="the folder to write")
    flags.add_argument("--batch", type=int, default=1, help="pictures per call")
    flags.add_argument("--platforms", default="cpu", help=f"some of {','.join(PLATFORMS)}")
    flags.add_argument("--ema", help="which average; by default the first that training kept")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the flags and exports the cascade; returns the exit code."""
    return command.run_command(parser(), work, arguments)


def work(flags: argparse.Namespace) -> None:
    """Loads the stages and writes them as one program."""
    platforms = flags.platforms.split(",")
    allowed = f"allowed: {', '.join(PLATFORMS)}"
    require(set(platforms) <= set(PLATFORMS), "--platforms", flags.platforms, allowed)
    from diffjax.build.stages.loading import load, stage_dirs

    cascade = load(stage_dirs(None, flags.stages), flags.ema)
    encoder = cascade.text_encoder()
    whose = {"name": encoder.name, "fingerprint": encoder.fingerprint}
    said = {**whose, "max_length": encoder.max_length}
    save(flags.out, cascade.stages, said, flags.batch, platforms)
    print(f"{flags.out}: {sum(p.stat().st_size for p in flags.out.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    command.start(main)
