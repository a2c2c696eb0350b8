"""Measures how well t5-nano agrees with its teacher on new phrases; prints a Markdown table.

    python -m tools.t5_nano.evaluate --data DATA [--model FOLDER]

DATA is the folder that tools.t5_nano.corpus and tools.t5_nano.teacher wrote. The embedding of a
phrase is the mean of the encoder's output over its tokens; similarity is the cosine, once of these
and once of these minus the mean of all phrases. The baselines are an untrained t5-nano, and the
similarity of spellings (Jaccard similarity of byte 1- to 3-grams).
"""

import argparse
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import rankdata

from diffjax.encoders import weights
from diffjax.encoders.t5 import SHIPPED, TextEncoder, load_encoder
from diffjax.models.t5 import T5Config, T5Encoder
from tools.t5_nano import corpus as t5_nano_corpus

TOP = 10


def pooled(encoder: TextEncoder, phrases: list[str]) -> np.ndarray:
    """The mean over the tokens of each phrase, `[n d]`."""
    order = sorted(range(len(phrases)), key=lambda i: len(phrases[i].encode()))
    out = np.zeros((len(phrases), encoder.width), np.float32)
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        h, mask = encoder.encode([phrases[i] for i in rows])
        out[rows] = jnp.sum(h, 1) / jnp.sum(mask, 1, keepdims=True)
    return out


def cosines(x: np.ndarray, centre: bool = False) -> np.ndarray:
    """`[n n]`, with -inf on the diagonal, because no phrase is its own neighbour."""
    x = x - x.mean(0) if centre else x
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return np.where(np.eye(len(x), dtype=bool), -np.inf, x @ x.T)


def spelling(phrases: list[str]) -> np.ndarray:
    """Jaccard similarity of the sets of byte 1-, 2- and 3-grams, `[n n]`."""
    grams = []
    for phrase in phrases:
        raw = f" {phrase.lower()} ".encode()
        grams.append({raw[i : i + n] for n in (1, 2, 3) for i in range(len(raw) - n + 1)})
    index = {gram: i for i, gram in enumerate(set().union(*grams))}
    table = np.zeros((len(phrases), len(index)), np.float32)
    for row, some in enumerate(grams):
        table[row, [index[gram] for gram in some]] = 1
    shared, size = table @ table.T, table.sum(1)
    jaccard = shared / (size[:, None] + size[None, :] - shared)
    return np.where(np.eye(len(phrases), dtype=bool), -np.inf, jaccard)


def agreement(ours: np.ndarray, teacher: np.ndarray) -> tuple[float, float, float]:
    """(same nearest neighbour, share of the 10 nearest found, Spearman over all pairs)."""
    top_1 = np.mean(ours.argmax(1) == teacher.argmax(1))
    best = [set(row) for row in np.argsort(-ours, 1)[:, :TOP]]
    true = [set(row) for row in np.argsort(-teacher, 1)[:, :TOP]]
    recall = np.mean([len(a & b) / TOP for a, b in zip(best, true, strict=True)])
    pairs = np.triu_indices(len(ours), 1)
    ranks = [rankdata(x[pairs]) for x in (ours, teacher)]
    return float(top_1), float(recall), float(np.corrcoef(*ranks)[0, 1])


def untrained(config: T5Config, like: Path) -> TextEncoder:
    """An encoder of the same size with its random initial weights."""
    with tempfile.TemporaryDirectory() as name:
        ids = jnp.ones((1, 4), jnp.int32)
        params = T5Encoder(config).init(jax.random.key(0), ids, ids > 0)["params"]
        weights.save(name, config, params)
        (Path(name) / "tokenizer_config.json").write_text(
            (like / "tokenizer_config.json").read_text()
        )
        return load_encoder(name)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=SHIPPED["t5-nano"])
    parser.add_argument("--examples", type=int, default=16)
    args = parser.parse_args()
    lines = (args.data / "heldout.txt").read_text(encoding="utf-8").splitlines()
    kinds, phrases = map(list, zip(*(line.split("\t") for line in lines), strict=True))
    teacher = np.load(args.data / "heldout_sentences.npy").astype(np.float32)
    trained = (args.data / "train.txt").read_text(encoding="utf-8").splitlines()
    words = set(t5_nano_corpus.common_words(trained))
    sets = {
        "all": np.ones(len(phrases), bool),
        "of common words": np.array([t5_nano_corpus.words_of(p) <= words for p in phrases]),
        "emoji names": np.array([kind == "emoji" for kind in kinds]),
    }

    nano = pooled(load_encoder(args.model), phrases)
    random = pooled(untrained(weights.load_config(args.model), args.model), phrases)
    print("| held-out phrases | similarity | top-1 | recall@10 | Spearman |")
    print("|---|---|---|---|---|")
    for name, rows in sets.items():
        some = [p for p, row in zip(phrases, rows, strict=True) if row]
        answers = {
            "t5-nano": cosines(nano[rows]),
            "t5-nano, mean subtracted": cosines(nano[rows], centre=True),
            "untrained": cosines(random[rows]),
            "untrained, mean subtracted": cosines(random[rows], centre=True),
            "spelling": spelling(some),
        }
        for label, ours in answers.items():
            top_1, recall, rank = agreement(ours, cosines(teacher[rows]))
            print(f"| {name} ({rows.sum()}) | {label} | {top_1:.3f} | {recall:.3f} | {rank:.3f} |")

    print("\n| phrase | t5-nano's nearest | the teacher's nearest |\n|---|---|---|")
    ours, true = cosines(nano, centre=True).argmax(1), cosines(teacher).argmax(1)
    for i in np.random.default_rng(0).choice(len(phrases), args.examples, replace=False):
        print(f"| {phrases[i]} | {phrases[ours[i]]} | {phrases[true[i]]} |")


if __name__ == "__main__":
    main()
