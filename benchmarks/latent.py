"""How fast is latent diffusion, ours and diffusers', with equal networks and equal weights?

    PEERS/bin/python -m benchmarks.latent            (requirements-peers.txt)
    PEERS/bin/python -m benchmarks.latent dit_train --rounds 5

PEERS is an environment with PyTorch and with JAX; --ours and --peers may name two. The parts:

vae         KL-f8 of full width decodes a latent of 16 x 16, which is 128 px
unet        Stable Diffusion 1's U-Net at a width of 128, two rows: one guided step
unet_train  a training step of it: times, noise, loss, gradients, AdamW
dit         DiT-S/2 on latents of 32 x 32, told classes, two rows
dit_train   a training step of it

Float32. diffusers writes its random weights to a folder, which both read, and what the networks
answer is compared before the race. Both take turns, each in a process of its own, and a ratio is
formed within a round (benchmarks/peers.py). The peak of memory is that of the steps.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import duel
from benchmarks.peers import ROOT

# A step to be timed, and the network's answer to `inputs`, which must be equal for both programs.
Program = tuple[Callable[[], object], np.ndarray]
CLASSES, TEXT, LENGTH = 1000, 768, 77
WORKERS = {duel.OURS: "latent_worker", duel.THEIRS: "latent_peer_worker"}


class Work(NamedTuple):
    """A part, the network's width, the latent's side and the rows."""

    part: str
    width: int
    side: int
    rows: int

    @property
    def network(self) -> str:
        """Which network takes part."""
        return self.part.partition("_")[0]

    @property
    def trains(self) -> bool:
        """Whether a step is one of training."""
        return self.part.endswith("_train")


WORKS = {
    "vae": Work("vae", 128, 16, 1),
    "unet": Work("unet", 128, 32, 2),
    "unet_train": Work("unet_train", 128, 32, 2),
    "dit": Work("dit", 384, 32, 2),
    "dit_train": Work("dit_train", 384, 32, 4),
}
TINY = {part: Work(part, 32, 8, 2) for part in WORKS}


def inputs(work: Work) -> dict[str, np.ndarray]:
    """Latents [b h w 4], steps of a chain of 1,000, texts and classes."""
    draw = np.random.default_rng(0)
    shape = (work.rows, work.side, work.side, 4)
    return {
        "x": draw.standard_normal(shape).astype(np.float32),
        "step": draw.integers(0, 1000, work.rows),
        "text": draw.standard_normal((work.rows, LENGTH, TEXT)).astype(np.float32),
        "label": draw.integers(0, CLASSES, work.rows),
    }


def config_of(work: Work) -> dict[str, Any]:
    """diffusers' arguments of the network."""
    if work.network == "dit":
        head = 64 if work.width % 64 == 0 else 16
        return dict(
            num_attention_heads=work.width // head, attention_head_dim=head, in_channels=4,
            num_layers=12 if work.width >= 384 else 2, sample_size=work.side, norm_eps=1e-6,
            num_embeds_ada_norm=CLASSES,
        )  # fmt: skip
    widths = [work.width * mult for mult in (1, 2, 4, 4)]
    if work.network == "unet":
        return dict(
            block_out_channels=widths, cross_attention_dim=TEXT, attention_head_dim=8,
            sample_size=work.side,
        )  # fmt: skip
    return dict(
        block_out_channels=widths, layers_per_block=2, latent_channels=4, sample_size=work.side * 8,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
    )  # fmt: skip


def compare(work: Work, flags: argparse.Namespace) -> dict[str, Any]:
    """Runs both programs; everything that is printed.

    Raises:
      RuntimeError: a program failed, or the two answers are not equal.
    """
    with tempfile.TemporaryDirectory() as folder:
        pythons = {duel.OURS: flags.ours, duel.THEIRS: flags.peers}
        commands = {
            name: [python, "-m", f"benchmarks.{WORKERS[name]}", json.dumps(work), folder]
            for name, python in pythons.items()
        }
        write = [*commands[duel.THEIRS], "weights"]
        subprocess.run(write, cwd=ROOT, env=duel.environment(), check=True)
        found = duel.duel(
            commands, Path(folder), rounds=flags.rounds, seconds=flags.seconds, steps=flags.steps
        )
    return {**work._asdict(), **found}


def line(facts: dict[str, Any]) -> str:
    """What is printed of the facts of `compare`."""
    work = "{part:10} width {width}, side {side}, {rows} rows: ".format(**facts)
    return work + duel.line(facts, "diffusers")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(WORKS)}; none: all")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try it")
    parser.add_argument("--steps", type=int, default=1, help="steps that count in each turn")
    parser.add_argument("--rounds", type=int, default=5, help="quiet turns wanted of each program")
    parser.add_argument("--seconds", type=float, default=300, help="time for further rounds")
    parser.add_argument("--ours", default=sys.executable, help="python with diffjax")
    parser.add_argument("--peers", default=sys.executable, help="python with diffusers and diffjax")
    parser.add_argument("--out", type=Path, help="a file of JSON lines, to which results are added")
    flags = parser.parse_args()
    works = TINY if flags.tiny else WORKS
    if unknown := set(flags.parts) - set(works):
        parser.error(f"parts {', '.join(sorted(unknown))}: allowed are {', '.join(works)}")
    for part in flags.parts or works:
        facts = compare(works[part], flags)
        print(line(facts), flush=True)
        duel.keep(facts, flags.out)


if __name__ == "__main__":
    main()
