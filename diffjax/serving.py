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
import sys
from collections.abc import Sequence
from pathlib import Path

from diffjax.core.errors import ConfigError, StorageError, require
from diffjax.generation.export import PLATFORMS, save


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the flags, export, and say in the exit code how it went."""
    parser = argparse.ArgumentParser(
        prog="python -m diffjax.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--stages", help="workdirs or exports: DIR,DIR; none: those that ship")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--batch", type=int, default=1, help="pictures a call")
    parser.add_argument("--platforms", default="cpu", help=f"some of {','.join(PLATFORMS)}")
    parser.add_argument("--ema", help="which average; none: the first that training kept")
    flags = parser.parse_args(arguments)
    try:
        platforms = flags.platforms.split(",")
        require(flags.batch > 0, "--batch", flags.batch, "must be at least 1")
        require(
            set(platforms) <= set(PLATFORMS), "--platforms", flags.platforms,
            f"allowed: {', '.join(PLATFORMS)}",
        )  # fmt: skip
        from diffjax.build.loading import load, stage_dirs

        cascade = load(stage_dirs(None, flags.stages), flags.ema)
        encoder = cascade.encoder
        whose: dict[str, object] = {"name": encoder.name, "fingerprint": encoder.fingerprint}
        save(
            flags.out,
            cascade.stages,
            whose | {"max_length": encoder.max_length},
            flags.batch,
            platforms,
        )
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except StorageError as error:
        print(error, file=sys.stderr)
        return 5
    print(f"{flags.out}: {sum(p.stat().st_size for p in flags.out.iterdir()) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
