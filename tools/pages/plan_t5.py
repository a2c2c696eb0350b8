"""Compiles a T5 encoder ahead of time for TPUs that are not here, and says whether it fits.

    python -m tools.pages.plan_t5 t5-v1_1-xxl --topology v5e:4x4 --fsdp 16 --batch 256 --length 128

It prints the same as `python -m diffjax.main --mode=compile`: lines for people and a line of JSON,
in which images are captions. No checkpoint is needed; the sizes are those of the published configs.
"""

import argparse
import sys

from diffjax.core.errors import ConfigError
from diffjax.devices.topology import devices_of
from diffjax.models.t5 import T5Config
from diffjax.planning import plan
from diffjax.planning.encoding import abstract_encoding

ENCODERS = {  # vocabulary, width, size of a head, feed-forward, layers, heads
    "t5-small": T5Config(32128, 512, 64, 2048, 6, 8, feed_forward="relu"),
    "t5-11b": T5Config(32128, 1024, 128, 65536, 24, 128, feed_forward="relu"),
    "t5-v1_1-small": T5Config(32128, 512, 64, 1024, 8, 6),
    "t5-v1_1-xxl": T5Config(32128, 4096, 64, 10240, 24, 64),
    "mt5-xxl": T5Config(250112, 4096, 64, 10240, 24, 64),
    "byt5-xxl": T5Config(384, 4672, 64, 12352, 36, 64),
    "ul2": T5Config(32128, 4096, 256, 16384, 32, 16, feed_forward="gated-silu"),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("encoder", choices=ENCODERS)
    parser.add_argument(
        "--topology", default="", help="v5e:4x4, v4:2x2x2 ...; by default the devices here"
    )
    parser.add_argument("--fsdp", type=int, default=1)
    parser.add_argument("--tensor", type=int, default=1)
    parser.add_argument("--batch", type=int, default=256, help="captions at a time")
    parser.add_argument("--length", type=int, default=128, help="tokens per caption, with padding")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    flags = parser.parse_args()
    try:
        work = abstract_encoding(
            ENCODERS[flags.encoder],
            devices_of(flags.topology),
            flags.batch,
            flags.length,
            fsdp=flags.fsdp,
            tensor=flags.tensor,
            dtype=flags.dtype,
        )
        print(plan.report(plan.plan(work, flags.encoder, "encode", flags.topology)))
    except (ValueError, ConfigError) as error:
        print(f"plan_t5: {error}", file=sys.stderr)
        return 2
    except plan.TooBig as error:
        print(f"plan_t5: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
