"""How fast is an FID, ours and torch-fidelity's, with equal random weights on equal pictures?

    PEERS/bin/python -m benchmarks.fid --num 128      (requirements-peers.txt)

PEERS is an environment with PyTorch and with JAX; --ours and --peers may name two. Both programs
read one file of weights. A step is a whole FID of two sets of --num pictures in memory: features
of Inception, means and covariances, and the distance. With --part features it ends with the moments
of one set, so that the network alone counts. Both take turns, each in a process of its own, and a
ratio is formed within a round (benchmarks/peers.py). The peak of memory is that of the steps.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import protocol
from benchmarks.peers import GAP_S, ROOT, TUNABLES, Racer, Turn, counted, machine

PARTS = ("whole", "features")
# A step of a part gives a number, which must be equal for both programs.
Step = Callable[[], float]


class Work(NamedTuple):
    """What both programs do."""

    part: str
    num: int
    size_px: int
    batch: int
    weights: Path

    def sets(self) -> tuple[np.ndarray, np.ndarray]:
        """Two sets of smooth random pictures [n h w 3]; each picture has colours of its own."""
        draw = np.random.default_rng(0)

        def one(shift: int) -> np.ndarray:
            side = self.size_px
            small = draw.integers(0, 256, (self.num, -(-side // 8), -(-side // 8), 3))
            large = small.repeat(8, 1).repeat(8, 2)[:, :side, :side]
            return np.clip(large // 2 + shift, 0, 255).astype(np.uint8)

        return one(0), one(60)


def ours(work: Work) -> Step:
    """diffjax's steps."""
    from diffjax.evaluation import fid
    from diffjax.evaluation.extractors import extractor, inception

    found, (made, real) = inception.load(work.weights), work.sets()

    def moments(pictures: np.ndarray):
        return extractor.moments_of(found, pictures, batch=work.batch)

    def whole() -> float:
        return fid.distance(moments(made), moments(real), full_rank=False)

    return whole if work.part == "whole" else lambda: float(moments(made).mean.sum())


def theirs(work: Work) -> Step:
    """torch-fidelity's steps, through the functions that its command calls."""
    import torch

    from tools.peers import inception_peers
    from tools.peers.metric_peers import metric_fid, utils  # imported there without torchvision

    net = inception_peers.feature_extractor_inceptionv3.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(work.weights)
    )

    class Pictures(torch.utils.data.Dataset):
        def __init__(self, pictures: np.ndarray):
            self.pictures = pictures

        def __len__(self) -> int:
            return len(self.pictures)

        def __getitem__(self, i: int) -> torch.Tensor:
            return torch.from_numpy(self.pictures[i]).permute(2, 0, 1)

    made, real = (Pictures(one) for one in work.sets())

    def moments(pictures: Pictures) -> dict[str, np.ndarray]:
        # in this process: its workers would take memory that is not counted, and time to start
        rows = utils.get_featuresdict_from_dataset(pictures, net, work.batch, False, True, False)
        return metric_fid.fid_featuresdict_to_statistics(rows, "2048")

    def whole() -> float:
        found = metric_fid.fid_statistics_to_metric(moments(made), moments(real), False)
        return found[metric_fid.KEY_METRIC_FID]

    return whole if work.part == "whole" else lambda: float(moments(made)["mu"].sum())


PROGRAMS = {"ours": ours, "theirs": theirs}


def write_weights(file: Path) -> None:
    """Random weights in torch-fidelity's layout."""
    import torch

    from tools.peers import inception_peers

    torch.save(inception_peers.network(0, ("2048",)).state_dict(), file)


def serve(name: str, work: Work) -> None:
    """Follows the protocol as one of the programs."""
    step = PROGRAMS[name](work)
    start = time.perf_counter()
    value = step()  # compiles
    first_s = time.perf_counter() - start
    protocol.serve(lambda i: step(), warmup=0, name=name, value=value, first_s=first_s)


def race(racers: list[Racer], rounds: int, seconds: float) -> None:
    """A step of each program in each round, until all had as many quiet turns or time is over."""
    start, num = time.perf_counter(), 0
    while num < rounds or (
        min(sum(turn.quiet for turn in racer.turns) for racer in racers) < rounds
        and time.perf_counter() - start < seconds
    ):
        for i in range(len(racers)):
            racer = racers[(num + i) % len(racers)]
            said, others = racer.watched("go 1", "ms")
            racer.turns.append(Turn(said["ms"][0], others))
            time.sleep(GAP_S)
        num += 1


def result(work: Work, turns: dict[str, list[Turn]]) -> dict[str, float]:
    """Pictures per second of each program, and their ratio: above 1 ours is faster."""
    pictures = work.num * (2 if work.part == "whole" else 1)
    rounds = counted(turns["ours"], turns["theirs"])
    found = {
        f"{name}_per_s": pictures / statistics.median(its[i].ms for i in rounds) * 1e3
        for name, its in turns.items()
    }
    ratios = [turns["theirs"][i].ms / turns["ours"][i].ms for i in rounds]
    return {**found, "ratio": statistics.median(ratios), "rounds": len(rounds)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, default="whole")
    parser.add_argument("--num", type=int, default=128, help="pictures of each set")
    parser.add_argument("--size", type=int, default=64, help="their side in pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3, help="quiet turns wanted of each program")
    parser.add_argument("--seconds", type=float, default=900, help="time for further rounds")
    parser.add_argument("--ours", default=sys.executable, help="python with diffjax")
    parser.add_argument("--peers", default=sys.executable, help="python with torch-fidelity")
    parser.add_argument("--out", type=Path, help="a file of JSON lines, to which results are added")
    parser.add_argument("--program", choices=["weights", *PROGRAMS], help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    work = Work(flags.part, flags.num, flags.size, flags.batch, flags.weights)
    if flags.program == "weights":
        write_weights(flags.weights)
    elif flags.program:
        serve(flags.program, work)
    else:
        with tempfile.TemporaryDirectory() as folder:
            facts = compare(flags, work._replace(weights=Path(folder) / "inception.pth"))
        print(line(facts))
        if flags.out:
            flags.out.parent.mkdir(parents=True, exist_ok=True)
            with flags.out.open("a") as file:
                file.write(json.dumps(facts) + "\n")


def line(facts: dict[str, Any]) -> str:
    """What is printed of the facts of `compare`."""
    return (
        "{part}, sets of {num} pictures of {size_px} px, batch {batch}: ours {ours_per_s:.3g}, "
        "torch-fidelity {theirs_per_s:.3g} pictures/s, ratio {ratio:.3g}; peak of memory "
        "{ours_mb:.0f} and {theirs_mb:.0f} MB; values {ours_value:.6g} and {theirs_value:.6g}; "
        "{rounds} rounds, others took {others:.0%}".format(**facts)
    )


def compare(flags: argparse.Namespace, work: Work) -> dict[str, Any]:
    """Runs both programs; everything that is printed.

    Raises:
      RuntimeError: a program failed.
    """

    def command(python: str, program: str) -> list[str]:
        return [
            python, "-m", "benchmarks.fid", "--program", program, "--part", work.part,
            "--num", str(work.num), "--size", str(work.size_px), "--batch", str(work.batch),
            "--weights", str(work.weights),
        ]  # fmt: skip

    subprocess.run(command(flags.peers, "weights"), cwd=ROOT, check=True)
    env = {"GLIBC_TUNABLES": TUNABLES, **os.environ}
    racers: dict[str, Racer] = {}
    try:
        for name, python in (("ours", flags.ours), ("theirs", flags.peers)):
            errors = work.weights.parent / f"{name}.txt"
            racers[name] = Racer(command(python, name), env, errors)
        race(list(racers.values()), flags.rounds, flags.seconds)
        peaks = {f"{name}_mb": racer.end()["rss_peak_mb"] for name, racer in racers.items()}
    finally:
        for racer in racers.values():
            racer.process.kill()
    turns = {name: racer.turns for name, racer in racers.items()}
    shared = {key: value for key, value in work._asdict().items() if key != "weights"}
    facts = {**shared, **result(work, turns), **machine(), **peaks}
    for name, racer in racers.items():
        facts[f"{name}_value"] = racer.facts["value"]
        facts[f"{name}_first_s"] = racer.facts["first_s"]
    facts["others"] = statistics.median(turn.others for its in turns.values() for turn in its)
    return facts


if __name__ == "__main__":
    main()
