"""Writes tests/golden/clip*: small CLIPs as others save them, their features, and ids of texts.

    PEERS/bin/python -m tools.golden.clip      (an environment with requirements-peers.txt)

The networks have random weights. The ids are those of open_clip's tokenizer with the first of
OpenAI's merges (MIT licence, https://github.com/openai/CLIP). Left out are texts with characters
that are younger than Unicode 14, about which versions of Python differ, and texts that ftfy takes
for wrongly decoded, which diffjax leaves as they are.
"""

import gzip
import shutil
import unicodedata
from pathlib import Path

import ftfy
import numpy as np
import torch
from safetensors.numpy import save_file

from tests.encoders.strings import texts
from tools.peers import clip_peers

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
MERGES, TEXTS = 3_000, 1_000
SIZE = dict(size=16, patch=8, width=16, layers=2, heads=2, text_width=12, text_layers=1,
            text_heads=3, embed=8, length=10, vocabulary=50)  # fmt: skip
# Texts that the random ones have too few of.
MORE = (
    "A man's dog, they're here; I'll go: we've 123 things", "caf\u00e9 &amp; cr\u00e8me &lt;3",
    "&amp;amp;", "\u201cquoted\u201d \u2018single\u2019 \u02bc", "<start_of_text> x <end_of_text>",
    "\ufb01ne \ufb04 \u0132ssel", "\uff26\uff35\uff2c\uff2c \uff8a\uff9d\uff76\uff78\u3000x",
    "a\x1b[31mred\x1b[0m", "line\r\nbreak\u2028x\x85y", "\u00bd \u2163 \u00b2 \u0663 \u4e00",
    "x" * 200, "it's IT'S 'S '\u017f", "&NTILDE; &ntilde; &#241; &nosuch; &#xD;",
)  # fmt: skip


def main() -> None:
    tokens()
    networks()


def tokens() -> None:
    """The merges, and the ids of the texts."""
    package = clip_peers.open_clip()
    whole = gzip.decompress(Path(package.tokenizer.default_bpe()).read_bytes()).decode()
    lines = whole.split("\n")[1 : MERGES + 1]
    header = f"#version: 0.2 - the first {MERGES} of OpenAI's merges for CLIP, MIT licence"
    file = GOLDEN / "clip_merges.txt.gz"
    data = "\n".join([header, *lines]) + "\n"
    file.write_bytes(gzip.compress(data.encode(), 9, mtime=0))
    ours = [*MORE, *texts(TEXTS + 700)]
    kept = [i for i, text in enumerate(ours) if plain(text)][:TEXTS]
    tokenizer = package.tokenizer.SimpleTokenizer(str(file))
    # a file that ends with a line feed makes the original add an empty unit, which takes an id
    shift = "" in tokenizer.encoder
    ids = np.asarray(tokenizer([ours[i] for i in kept]).numpy(), np.int64)
    if shift:
        ids = np.where(ids > tokenizer.encoder[""], ids - 1, ids)
    numbers = np.array(kept, np.uint16)
    np.savez_compressed(GOLDEN / "clip_tokens.npz", kept=numbers, ids=ids.astype(np.uint16))
    print(f"{len(kept)} texts")


def plain(text: str) -> bool:
    """Whether all versions agree about the text; see above."""
    known = all(unicodedata.category(character) != "Cn" for character in text)
    return known and ftfy.fix_encoding(text) == text and "\u0345" not in text


def networks() -> None:
    """A network in each form that is read, and the unit features of both towers."""
    folder = GOLDEN / "clip"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    image, ids = clip_peers.inputs(SIZE)
    ids = np.minimum(ids, SIZE["vocabulary"] - 1)
    found = {"image": image, "tokens": ids.astype(np.int32)}

    def answer(name: str, model: torch.nn.Module, mean: object, std: object) -> None:
        said = clip_peers.answers(model, clip_peers.as_pixels(image, mean, std), ids)
        found.update({f"{name}/{part}": value.copy() for part, value in said.items()})

    openai = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    model = clip_peers.of_transformers(SIZE, "gelu")
    model.save_pretrained(folder / "hugging_face")
    answer("hugging_face", model, *openai)
    for custom in (False, True):
        name = "open_clip_text" if custom else "open_clip"
        model = clip_peers.of_open_clip(SIZE, quick_gelu=custom, custom_text=custom)
        clip_peers.save_open_clip(model, SIZE, custom, folder / name)
        answer(name, model, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    # OpenAI's files do not say how many heads there are: as many of 64 as fill the width
    model = clip_peers.of_open_clip({**SIZE, "heads": 1, "text_heads": 1}, quick_gelu=True)
    pixels = clip_peers.as_pixels(image, *openai)
    with torch.no_grad():
        traced = torch.jit.trace(model, (pixels, torch.tensor(ids)), check_trace=False)
    traced.save(str(folder / "openai.pt"))
    answer("openai", model, *openai)
    torch.save(model.state_dict(), folder / "state.pt")
    save_file(found, str(folder / "answers.safetensors"))


if __name__ == "__main__":
    main()
