"""Writes tests/golden/tokenizers.tar.xz: a small SentencePiece model, and transformers' ids.

    PEERS/bin/python -m tools.golden.tokenizers

PEERS is an environment with transformers, sentencepiece and protobuf. The archive holds
spiece.model, trained here on invented lines and normalised like T5's (nmt_nfkc), tokenizer.json as
T5Tokenizer writes it, and ids.npz with the ids of 1,000 texts: `slow` by transformers'
SentencePiece backend, `fast` by T5Tokenizer, `bytes` by ByT5Tokenizer, and the number of ids of
each text. The normaliser's table is part of both models, and kept only in the first.
"""

import io
import json
import tarfile
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from transformers import ByT5Tokenizer, T5Tokenizer
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from tests.encoders.strings import corpus, texts

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
SENTINELS = [f"<extra_id_{i}>" for i in range(99, -1, -1)]


def train(folder: Path, user_defined: str = "") -> None:
    """Writes folder/spiece.model with T5's special ids and normaliser."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_prefix=str(folder / "spiece"), vocab_size=190,
        model_type="unigram", character_coverage=0.98, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        normalization_rule_name="nmt_nfkc", user_defined_symbols=user_defined, minloglevel=2,
        num_threads=1,
    )  # fmt: skip
    (folder / "spiece.vocab").unlink()


def references(folder: Path) -> dict[str, Any]:
    """name -> a function that gives transformers' ids of a text, eos included."""
    slow = SentencePieceBackend(
        vocab_file=str(folder / "spiece.model"), eos_token="</s>", unk_token="<unk>",
        pad_token="<pad>", extra_special_tokens=SENTINELS,
    )  # fmt: skip
    fast, byte = T5Tokenizer.from_pretrained(folder), ByT5Tokenizer()
    return {
        # the bare backend adds no eos
        "slow": lambda text: [*slow.convert_tokens_to_ids(slow.tokenize(text)), 1],
        "fast": lambda text: fast(text).input_ids,
        "bytes": lambda text: byte(text).input_ids,
    }


def main() -> None:
    warnings.simplefilter("ignore")  # ByT5Tokenizer warns about an eos in the text
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train(folder)
        rows = {n: [ids(text) for text in texts()] for n, ids in references(folder).items()}
        T5Tokenizer.from_pretrained(folder).save_pretrained(folder / "fast")
        without_table = json.loads((folder / "fast" / "tokenizer.json").read_text("utf-8"))
        without_table["normalizer"]["precompiled_charsmap"] = ""
        packed = io.BytesIO()
        arrays: dict[str, Any] = {n: np.concatenate(r).astype(np.uint16) for n, r in rows.items()}
        arrays |= {f"{n}_lengths": np.array(list(map(len, r)), np.uint16) for n, r in rows.items()}
        np.savez(packed, **arrays)
        files = {
            "spiece.model": (folder / "spiece.model").read_bytes(),
            "tokenizer.json": json.dumps(without_table).encode(),
            "ids.npz": packed.getvalue(),
        }
    with tarfile.open(GOLDEN / "tokenizers.tar.xz", "w:xz", preset=9) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    differ = sum(a != b for a, b in zip(rows["slow"], rows["fast"], strict=True))
    print(f"slow and fast ids differ in {differ} of {len(rows['slow'])} texts")


if __name__ == "__main__":
    main()
