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
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.fid import race
from benchmarks.peers import ROOT, TUNABLES, Racer, Turn, counted, machine

# A step to be timed, and the network's answer to `inputs`, which must be equal for both programs.
Program = tuple[Callable[[], object], np.ndarray]
AGREE = 1e-3  # of the largest number of an answer
CLASSES, TEXT, LENGTH = 1000, 768, 77
WORKERS = {"ours": "latent_worker", "theirs": "latent_peer_worker"}


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
    env = {"GLIBC_TUNABLES": TUNABLES, **os.environ}
    said = json.dumps(work)
    racers: dict[str, Racer] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        peer = [flags.peers, "-m", f"benchmarks.{WORKERS['theirs']}"]
        subprocess.run([*peer, said, place, "weights"], cwd=ROOT, env=env, check=True)
        try:
            for name, python in (("ours", flags.ours), ("theirs", flags.peers)):
                command = [python, "-m", f"benchmarks.{WORKERS[name]}", said, place]
                racers[name] = Racer(command, env, folder / f"{name}.txt")
            mine, other = (np.load(folder / f"{name}.npy") for name in racers)
            apart = float(np.abs(mine - other).max() / np.abs(other).max())
            if not apart < AGREE:
                raise RuntimeError(f"{work.part}: answers differ by {apart:.1e}, want {AGREE}")
            race(list(racers.values()), flags.rounds, flags.seconds)
            peaks = {f"{name}_mb": racer.end()["rss_peak_mb"] for name, racer in racers.items()}
        finally:
            for racer in racers.values():
                racer.process.kill()
    turns = {name: racer.turns for name, racer in racers.items()}
    return {**work._asdict(), "apart": apart, **result(turns), **machine(), **peaks}


def result(turns: dict[str, list[Turn]]) -> dict[str, float]:
    """Milliseconds of a step of each program, and their ratio: above 1 ours is faster."""
    rounds = counted(turns["ours"], turns["theirs"])
    ratios = sorted(turns["theirs"][i].ms / turns["ours"][i].ms for i in rounds)
    others = [turn.others for its in turns.values() for turn in its]
    return {
        **{f"{name}_ms": statistics.median(its[i].ms for i in rounds) for name, its in
           turns.items()},
        "ratio": statistics.median(ratios),
        "least": ratios[0],
        "most": ratios[-1],
        "rounds": len(rounds),
        "others": statistics.median(others),
    }  # fmt: skip


def line(facts: dict[str, Any]) -> str:
    """What is printed of the facts of `compare`."""
    return (
        "{part:10} width {width}, side {side}, {rows} rows: ours {ours_ms:.0f} ms, diffusers "
        "{theirs_ms:.0f} ms; ours is {ratio:.2f} times as fast ({least:.2f} to {most:.2f}); peak "
        "of memory {ours_mb:.0f} and {theirs_mb:.0f} MB; answers differ by {apart:.0e}; {rounds} "
        "rounds, others took {others:.0%}".format(**facts)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(WORKS)}; none: all")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try it")
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
        if flags.out:
            flags.out.parent.mkdir(parents=True, exist_ok=True)
            with flags.out.open("a") as file:
                file.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
