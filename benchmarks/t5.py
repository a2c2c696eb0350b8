"""Compares captions per second of our T5 encoder and of PyTorch's T5EncoderModel, in one run.

    python -m benchmarks.t5 small --peers PYTHON      (PYTHON: with torch and transformers)

A step encodes the ids of 128 captions in float32, 64 at a time; tokenizing does not count. Both
have the same random weights, and their embeddings are compared before the race. The lengths are
those of short captions of pictures: 8 + Gamma(2.5, 2) tokens, which is 9 to 25 and on average 13
(COCO's captions have 10.5 words on average). Each encoder runs in three ways:

as_they_come  64 captions in their order. PyTorch pads them to the longest. We encode each at its
              own length, rounded up to a multiple of 16.
sorted        the same, but all captions are sorted by length first.
padded        padded to 77 tokens, as in text-to-image pipelines; ours without groups by length.

`benchmarks.peers` explains rounds, turns and quiet turns. Prints a line for each program and
appends it to OUT/t5.jsonl, with versions and date.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import GAP_S, ROOT, Racer, counted, machine

SIZES = {  # config.json's fields, of T5 v1.0
    "tiny": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4},
    "small": {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
    "base": {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
}
VOCAB, CAPTIONS, BATCH, PADDED = 32128, 128, 64, 77
WAYS = ("as_they_come", "sorted", "padded")
AGREE = 1e-4  # of embeddings of size 1


def captions() -> list[np.ndarray]:
    """The ids of each caption, with eos as the last."""
    random = np.random.default_rng(0)
    lengths = 8 + np.round(random.gamma(2.5, 2.0, CAPTIONS)).astype(int)
    return [np.append(random.integers(2, 32000, n - 1), 1).astype(np.int32) for n in lengths]


def batches(way: str) -> list[list[np.ndarray]]:
    """The captions, 64 at a time."""
    rows = sorted(captions(), key=len) if way == "sorted" else captions()
    return [rows[i : i + BATCH] for i in range(0, CAPTIONS, BATCH)]


def filled(rows: list[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids, mask) of the rows, padded with 0 to a length."""
    ids = np.zeros((len(rows), length), np.int32)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return ids, np.arange(length)[None] < np.array([len(row) for row in rows])[:, None]


def save_checkpoint(folder: Path, size: str) -> None:
    """Writes random weights in a layout that both can read."""
    import jax

    from diffjax.encoders import weights
    from diffjax.models import t5

    config = t5.T5Config(vocab_size=VOCAB, feed_forward="relu", **SIZES[size])
    ids = np.ones((1, 2), np.int32)
    init = jax.jit(t5.T5Encoder(config).init)
    weights.save(folder, config, init(jax.random.key(0), ids, ids > 0)["params"])


def race(flags: argparse.Namespace, folder: Path) -> list[Racer]:
    """Runs the race and returns the programs: for each way ours, then PyTorch's."""
    programs = [
        [python, "-m", f"benchmarks.{module}", str(folder), way, str(folder / f"{module}.{way}")]
        for way in WAYS
        for python, module in ((sys.executable, "t5_worker"), (flags.peers, "t5_peer_worker"))
    ]
    racers = [Racer(p, dict(os.environ), folder / f"{i}.txt") for i, p in enumerate(programs)]
    for way in WAYS:
        ours, theirs = (np.load(folder / f"{m}.{way}.npy") for m in ("t5_worker", "t5_peer_worker"))
        apart = float(np.abs(ours - theirs).max())
        print(f"{way}: embeddings differ by at most {apart:.1e}")
        if not apart < AGREE:
            raise SystemExit(f"{way}: apart by {apart}, want less than {AGREE}")
    start, num = time.perf_counter(), 0
    while num < flags.rounds or (
        min(sum(turn.quiet for turn in racer.turns) for racer in racers) < flags.rounds
        and time.perf_counter() - start < flags.seconds
    ):
        for i in range(len(racers)):
            racers[(num + i) % len(racers)].go(flags.steps)
            time.sleep(GAP_S)
        num += 1
    return racers


def result(racer: Racer, ours: Racer) -> dict[str, Any]:
    """The results of a program; a ratio above 1 means that ours is faster in the same way."""
    pairs = counted(racer.turns, ours.turns)
    ratios = sorted(racer.turns[i].ms / ours.turns[i].ms for i in pairs)
    ms = statistics.median(racer.turns[i].ms for i in pairs)
    return {
        **{key: value for key, value in racer.facts.items() if key != "ready"},
        "ms": round(ms, 1),
        "captions_per_s": round(CAPTIONS / ms * 1e3, 1),
        "ours_is_faster_by": round(statistics.median(ratios), 3),
        "ratio_ends": [round(ratios[0], 3), round(ratios[-1], 3)],
        "rounds": len(racer.turns),
        "quiet_turns": sum(turn.quiet for turn in racer.turns),
        "rss_peak_mb": racer.end()["rss_peak_mb"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--peers", required=True, help="python with torch and transformers")
    parser.add_argument("--rounds", type=int, default=7, help="quiet turns wanted of each program")
    parser.add_argument("--steps", type=int, default=2, help="steps that count in each turn")
    parser.add_argument("--seconds", type=float, default=600, help="time for further rounds")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder), flags.size)
        racers = race(flags, Path(folder))
    made = {"size": flags.size, "captions": CAPTIONS, "batch": BATCH, "dtype": "float32"}
    results = [made | result(r, racers[i - i % 2]) | machine() for i, r in enumerate(racers)]
    print(f"t5-{flags.size}, {results[0]['cores']} cores, {results[0]['cpu']}")
    for facts in results:
        print(
            "{way:12} {name:8} {ms:8.1f} ms  {captions_per_s:8.1f} captions/s; ours is "
            "{ours_is_faster_by:.2f} times as fast; {rss_peak_mb:5.0f} MB; {quiet_turns} of "
            "{rounds} turns quiet".format(**facts)
        )
    flags.out.mkdir(parents=True, exist_ok=True)
    with (flags.out / "t5.jsonl").open("a") as file:
        file.writelines(json.dumps(facts) + "\n" for facts in results)


if __name__ == "__main__":
    main()
