"""The tokenizers of Stable Diffusion: CLIP's, whose rows are always padded to their whole length.

All ids of a row are read by the network, also those of the padding.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from diffjax.core.files import write_whole
from diffjax.core.json_types import Json, JsonObject
from diffjax.encoders.clip import bpe, vocabulary
from diffjax.encoders.clip.bpe import BytePairs
from diffjax.encoders.unreadable import read_downloaded_json

VOCABULARY, MERGES, WHOLE = "vocab.json", "merges.txt", "tokenizer.json"
CONFIG, SPECIAL = "tokenizer_config.json", "special_tokens_map.json"
LENGTH = 77
# What Hugging Face calls the ends of a text.
THEIRS = {bpe.START: "<|startoftext|>", bpe.END: "<|endoftext|>"}


@dataclass(frozen=True)
class Padded:
    """A tokenizer whose rows have `length` ids. pad: the id after the end of a text.

    Version 1 pads with the id that ends a text, version 2 with 0.
    """

    tokens: BytePairs
    pad: int
    length: int = LENGTH

    def ids(self, text: str, max_length: int) -> list[int]:
        """START, the units of the text, END, and the padding: `length` ids, or max_length."""
        length = min(self.length, max_length)
        found = self.tokens.ids(text, length)
        return found + [self.pad] * (length - len(found))


def load(folder: Path) -> Padded:
    """The tokenizer of a folder: vocab.json and merges.txt, or tokenizer.json.

    Raises:
      ValueError: it has none, or one of another kind; one line.
    """
    file = folder / MERGES
    if file.is_file():
        merges = vocabulary.read(file)
        listed = folder / VOCABULARY
        units = read_downloaded_json(listed) if listed.is_file() else None
    else:
        if not (folder / WHOLE).is_file():
            raise ValueError(f"{folder}: neither {MERGES} nor {WHOLE}: download the tokenizer too")
        merges, units = _of_json(folder / WHOLE)
    tokens = bpe.from_merges(merges)
    wanted = {THEIRS.get(unit, unit): number for unit, number in tokens.units.items()}
    if units is not None and units != wanted:
        raise ValueError(f"{folder}: its ids are not those of CLIP's tokenizer with these merges")
    pad = _said(folder, "pad_token") or THEIRS[bpe.END]
    if pad not in wanted:
        raise ValueError(f"{folder}: pad_token {pad[:40]!r} is not in its vocabulary")
    return Padded(tokens, wanted[pad])


def save(folder: Path, tokens: Padded) -> None:
    """Writes a tokenizer as transformers does."""
    folder.mkdir(parents=True, exist_ok=True)
    units = {THEIRS.get(unit, unit): number for unit, number in tokens.tokens.units.items()}
    by_number = {number: unit for unit, number in units.items()}
    lines = "\n".join(" ".join(merge) for merge in tokens.tokens.ranks)
    special = {
        "bos_token": THEIRS[bpe.START],
        "eos_token": THEIRS[bpe.END],
        "pad_token": by_number[tokens.pad],
        "unk_token": THEIRS[bpe.END],
    }
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": tokens.length, **special}
    for name, text in (
        (VOCABULARY, json.dumps(units, ensure_ascii=False)),
        (MERGES, f"#version: 0.2\n{lines}"),
        (SPECIAL, json.dumps(special, indent=2)),
        (CONFIG, json.dumps(config, indent=2)),
    ):
        write_whole(folder / name, f"{text}\n".encode())


def _of_json(file: Path) -> tuple[list[bpe.Merge], JsonObject]:
    """The merges and the ids of a tokenizer.json."""
    whole = read_downloaded_json(file)
    model = whole.get("model")
    model = model if isinstance(model, dict) else {}
    listed, units = model.get("merges"), model.get("vocab")
    if model.get("type") != "BPE" or not isinstance(listed, list) or not isinstance(units, dict):
        raise ValueError(f"{file}: not a tokenizer of byte pairs, want CLIP's")
    merges = []
    for merge in listed:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"{file}: merge {str(merge)[:40]!r}, want two units")
        merges.append((str(pair[0]), str(pair[1])))
    return merges, units


def _said(folder: Path, name: str) -> str:
    """A special token of the configs of a folder; "" if they say none."""
    for file in (folder / SPECIAL, folder / CONFIG):
        value: Json = read_downloaded_json(file).get(name) if file.is_file() else None
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            return value
    return ""
