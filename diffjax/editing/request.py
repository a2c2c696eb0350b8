"""What `diffjax.edit` was asked for, made and written: a person's pictures, prompts and seeds.

On CPUs every picture goes through the same program alone, as in `making`, so that the others that
were asked for change no bit of it.
"""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, UInt8

from diffjax.core.errors import ConfigError, require
from diffjax.core.files import storing
from diffjax.core.types import Resized
from diffjax.editing import img2img, inpaint
from diffjax.editing import upscale as upscale_lib
from diffjax.generation import folder, recipe
from diffjax.generation import rows as rows_lib
from diffjax.generation.chain import Cascade
from diffjax.generation.jobs import Job, asked
from diffjax.images import pixels, png, read
from diffjax.images.sheet import contact_sheet
from diffjax.logs.progress import Progress

Picture = UInt8[np.ndarray, "_ _ 3"]

MAX_UPSCALED_PIXELS = 16_000_000
HIDDEN = (255, 0, 255)


@dataclasses.dataclass(frozen=True)
class Ask:
    """What is wanted. prompts: none for no prompt. strength: of img2img and vary."""

    kind: str
    pictures: Sequence[Picture]
    prompts: Sequence[str]
    seeds: Sequence[int]
    mask: Bool[np.ndarray, "h w"] | None = None
    negative: str | None = None
    strength: float = 1.0
    fit: str = "crop"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where pictures go, whether they may replace others, and whether they say what they are."""

    out: Path
    overwrite: bool = False
    metadata: bool = True

    def check(self, names: Sequence[str] = ()) -> None:
        """Refuse a folder that is none, and names that are taken, before anything is made."""
        require(self.out.is_dir() or not self.out.exists(), "--out", str(self.out), "is no folder")
        for path in (self.out / name for name in names):
            require(not path.is_dir(), "--out", str(path), "is a folder")
            if not self.overwrite and (path.exists() or path.is_symlink()):
                what = "is there already; --overwrite replaces it, or give another folder"
                raise ConfigError("--out", str(path), what)

    def write(self, name: str, picture: Picture, said: dict[str, object] | None = None) -> Path:
        """Write one PNG, whole or not at all, and make the folder."""
        with storing(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
        png.write(self.out / name, picture, said if self.metadata else None)
        return self.out / name


def redraw(
    trained: Cascade, ask: Ask, where: Place, resample: tuple[int, ...] | None = None
) -> Path:
    """inpaint, img2img and vary: a picture per seed and stage, and a sheet; returns its path."""
    size_px = trained.stages[-1].task.size_px
    given = read.fit_square(ask.pictures[0], size_px, ask.fit)
    shown, said = [given], {"strength": ask.strength, **about(ask)}
    if ask.mask is not None:
        mask = read.fit_square_mask(ask.mask, size_px, ask.fit)
        require(bool(mask.any()), "--mask", "", "is cropped away; try --fit pad")
        require(
            not trained.stages[0].task.low_res_px,
            "--stages",
            trained.stages[0].task.name,
            "starts from a picture; inpainting wants a base stage first",
        )
        shown = [np.where(mask[:, :, None], np.array(HIDDEN, np.uint8), given)]
        resample = resample or inpaint.default_resample(len(trained.stages))
        said["resample"] = list(resample)
        edit = functools.partial(inpaint.inpaint, mask=rows_of(mask[:, :, None]), resample=resample)
    else:
        edit = functools.partial(img2img.img2img, strength=ask.strength)
    edit = functools.partial(edit, trained.stages, picture=image_of(given))
    todo = asked(list(ask.prompts) or [""], list(dict.fromkeys(ask.seeds)), ask.negative)
    names = [
        [f"{ask.kind}_seed{job.seed}_{stage.task.size_px}px.png" for stage in trained.stages]
        for job in todo
    ]
    sheet = f"{ask.kind}_grid.png"
    where.check([*itertools.chain(*names), sheet])
    cells, captions = [], []
    with Progress(len(todo)) as progress:
        for job, own, made in zip(todo, names, make(trained, todo, edit, ask), strict=True):
            for name, picture, data in zip(own, made, told(job, trained, ask, said), strict=True):
                where.write(name, picture, data)
            cells.append([*shown, *made])
            captions.append(f"{folder.caption(job.prompt) or ask.kind} ({job.seed})")
            progress.tick()
    return write_sheet(where, sheet, cells, captions)


def upscale(
    trained: Cascade, ask: Ask, where: Place, factor: int | None = None, faithful: bool = True
) -> Path:
    """A larger picture per seed; returns the path of the first."""
    from_pictures = [
        (stage, origin)
        for stage, origin in zip(trained.stages, trained.origins, strict=True)
        if stage.task.low_res_px
    ]
    require(bool(from_pictures), "--stages", len(trained.stages), "none starts from a picture")
    factors = list(
        itertools.accumulate((s.task.factor for s, _ in from_pictures), lambda a, b: a * b)
    )
    factor = factors[0] if factor is None else factor
    require(factor in factors, "--factor", factor, f"allowed: {', '.join(map(str, factors))}")
    used = from_pictures[: factors.index(factor) + 1]
    part = Cascade(tuple(s for s, _ in used), tuple(o for _, o in used), trained.encoder)
    height, width = ask.pictures[0].shape[:2]
    require(
        height * width * factor**2 <= MAX_UPSCALED_PIXELS,
        "--picture",
        f"{width} x {height} px",
        f"{factor} times as large is more than {MAX_UPSCALED_PIXELS / 1e6:.0f} million pixels",
    )
    sizes = [(width * f, height * f) for f in factors[: len(used)]]
    todo = asked(list(ask.prompts) or [""], list(dict.fromkeys(ask.seeds)), ask.negative)
    names = [[f"upscale_seed{job.seed}_{w}x{h}px.png" for w, h in sizes] for job in todo]
    where.check([*itertools.chain(*names)])
    tiles = [
        upscale_lib.num_tiles(stage.task, h // stage.task.factor, w // stage.task.factor)
        for stage, (w, h) in zip(part.stages, sizes, strict=True)
    ]
    print(f"{width} x {height} -> {sizes[-1][0]} x {sizes[-1][1]} px, tiles: {tiles}")
    edit = functools.partial(
        upscale_lib.upscale, part.stages, picture=image_of(ask.pictures[0]), faithful=faithful
    )
    said = {"faithful": faithful, **about(ask)}
    with Progress(len(todo)) as progress:
        for job, own, made in zip(todo, names, make(part, todo, edit, ask), strict=True):
            for name, picture, data in zip(own, made, told(job, part, ask, said), strict=True):
                where.write(name, picture, data)
            progress.tick()
    return where.out / names[0][-1]


def make(
    trained: Cascade, todo: Sequence[Job], edit: Callable[..., list[Resized]], ask: Ask
) -> Iterator[list[Picture]]:
    """For each job, in order, the pictures that `edit` gives, small to large."""
    nothing = img2img.null_columns(trained.stages[0].task, 1)

    @functools.lru_cache(maxsize=rows_lib.KEPT_EMBEDDINGS)
    def embed(prompt: str):
        if not ask.prompts:
            return nothing["text"], nothing["text_mask"]
        return rows_lib.embedded(trained.encoder, [prompt])

    for padded, count in rows_lib.in_calls(todo):
        columns, seeds = rows_lib.inputs_of(padded, embed)
        yield from rows_lib.pictures_of(edit(columns, seeds=seeds), count)


def about(ask: Ask) -> dict[str, object]:
    """What is said of what was given: sha256 of the pixels, never a path."""
    said: dict[str, object] = {
        "pictures": [sha256(picture) for picture in ask.pictures],
        "fit": ask.fit,
        "prompted": bool(ask.prompts),
    }
    return said if ask.mask is None else {**said, "mask": sha256(ask.mask)}


def sha256(pixels_: np.ndarray) -> str:
    """The digest of an array's shape and bytes."""
    return hashlib.sha256(f"{pixels_.shape}".encode() + pixels_.tobytes()).hexdigest()


def told(job: Job, trained: Cascade, ask: Ask, said: dict[str, object]) -> list[dict[str, object]]:
    """What the picture of each stage says of itself."""
    recipes = (dataclasses.replace(one, kind=ask.kind) for one in folder.recipes_of(job, trained))
    return [{**recipe.to_json(one), "edit": said} for one in recipes]


def image_of(picture: Picture) -> Resized:
    """The picture in [-1, 1], once for each row of a call."""
    return pixels.from_uint8(rows_of(picture))


def rows_of(array: np.ndarray) -> Array:
    """An array, once for each row of a call."""
    return jnp.asarray(np.repeat(array[None], rows_lib.rows_per_call(), axis=0))


def write_sheet(where: Place, name: str, cells: list, captions: Sequence[str]) -> Path:
    """The pictures beside each other over their captions."""
    tile_px = min(max(cells[0][-1].shape[0], folder.TILE_PX[0]), folder.TILE_PX[1])
    cells = [[folder.thumbnail(picture, tile_px) for picture in row] for row in cells]
    sheet = np.asarray(contact_sheet(cells, captions, tile_px=tile_px))
    return where.write(name, sheet, folder.SHEET_METADATA)
