"""Makes and writes the pictures that `diffjax.edit` was asked for.

On CPUs every picture is a call of its own, as in `generation.rows`, so that a picture does not
depend on which others were asked for.
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
from diffjax.core.json_types import JsonObject
from diffjax.core.types import Resized
from diffjax.editing import img2img, inpaint
from diffjax.editing import upscale as upscale_lib
from diffjax.generation import folder, recipe
from diffjax.generation import rows as rows_lib
from diffjax.generation.chain import Cascade
from diffjax.generation.jobs import Job, all_jobs
from diffjax.images import pixels, png, square
from diffjax.images.sheet import contact_sheet
from diffjax.logs.progress import Progress

Picture = UInt8[np.ndarray, "_ _ 3"]

MAX_UPSCALED_PIXELS = 16_000_000
HIDDEN = (255, 0, 255)  # the colour of masked pixels on a sheet


@dataclasses.dataclass(frozen=True)
class Ask:
    """A request.

    kind: the subcommand, such as "inpaint". prompts: empty for no prompt. mask: True where the
    picture is painted anew. strength: of img2img and vary. fit: how pictures are made square.
    label: the class, None for models that are told none.
    """

    kind: str
    pictures: Sequence[Picture]
    prompts: Sequence[str]
    seeds: Sequence[int]
    mask: Bool[np.ndarray, "h w"] | None = None
    negative: str | None = None
    strength: float = 1.0
    fit: str = "crop"
    label: int | None = None

    def jobs(self) -> list[Job]:
        """A job for every prompt and seed."""
        prompts, seeds = list(self.prompts) or [""], list(dict.fromkeys(self.seeds))
        return all_jobs(prompts, seeds, self.negative, [self.label])


@dataclasses.dataclass(frozen=True)
class Place:
    """Where pictures are written, and whether they may replace files and carry metadata."""

    out: Path
    overwrite: bool = False
    metadata: bool = True

    def check(self, names: Sequence[str] = ()) -> None:
        """Checks the folder and the names before anything is made.

        Raises:
          ConfigError: the folder is a file, or a name is taken and must not be overwritten.
        """
        is_folder = self.out.is_dir() or not self.out.exists()
        require(is_folder, "--out", str(self.out), "is not a folder")
        for path in (self.out / name for name in names):
            require(not path.is_dir(), "--out", str(path), "is a folder")
            if not self.overwrite and (path.exists() or path.is_symlink()):
                what = "is there already; --overwrite replaces it, or give another folder"
                raise ConfigError("--out", str(path), what)

    def write(self, name: str, picture: Picture, said: JsonObject | None = None) -> Path:
        """Writes one PNG, whole or not at all, and makes the folder if needed."""
        with storing(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
        png.write(self.out / name, picture, said if self.metadata else None)
        return self.out / name


def write_redrawn(
    trained: Cascade,
    ask: Ask,
    where: Place,
    resample: tuple[int, ...] | None = None,
    how: tuple[Callable[..., list[Resized]], JsonObject] | None = None,
) -> Path:
    """Makes and writes the pictures of inpaint, img2img and vary, and a sheet of them.

    There is a picture for each prompt, seed and stage. resample: see `inpaint.inpaint`. how: of
    other kinds, the function that takes the arguments of `img2img.vary` but strength, and what the
    metadata say of it.

    Returns:
      The path of the sheet.

    Raises:
      ConfigError: the request is impossible, or a file of its name is there already.
      StorageError: the disk does not take a file.
    """
    size_px = trained.stages[-1].task.size_px
    given = square.fit_square(ask.pictures[0], size_px, ask.fit)
    shown, said = [given], {"strength": ask.strength, **describe(ask)}
    if how is not None:
        edit, said = how[0], {**how[1], **describe(ask)}
    elif ask.mask is not None:
        mask = square.fit_square_mask(ask.mask, size_px, ask.fit)
        require(bool(mask.any()), "--mask", "", "is cropped away; try --fit pad")
        require(
            not trained.stages[0].task.low_res_px,
            "--stages",
            trained.stages[0].task.name,
            "starts from a picture; inpainting needs a base stage first",
        )
        shown = [np.where(mask[:, :, None], np.array(HIDDEN, np.uint8), given)]
        resample = resample or inpaint.default_resample(trained.stages)
        said["resample"] = list(resample)
        edit = functools.partial(
            inpaint.inpaint, mask=repeated(mask[:, :, None]), resample=resample
        )
    else:
        edit = functools.partial(img2img.img2img, strength=ask.strength)
    edit = functools.partial(edit, trained.stages, picture=repeated_image(given))
    todo = ask.jobs()
    names = [
        [f"{ask.kind}_seed{job.seed}_{stage.task.size_px}px.png" for stage in trained.stages]
        for job in todo
    ]
    sheet = f"{ask.kind}_grid.png"
    where.check([*itertools.chain(*names), sheet])
    cells, captions = [], []
    with Progress(len(todo)) as progress:
        for job, own, made in zip(todo, names, edited(trained, todo, edit, ask), strict=True):
            data_of_each = metadata_of(job, trained, ask, said)
            for name, picture, data in zip(own, made, data_of_each, strict=True):
                where.write(name, picture, data)
            cells.append([*shown, *made])
            words = folder.caption(folder.words_of(job, trained))
            captions.append(f"{words or ask.kind} ({job.seed})")
            progress.tick()
    return write_sheet(where, sheet, cells, captions)


def write_upscaled(
    trained: Cascade, ask: Ask, where: Place, factor: int | None = None, faithful: bool = True
) -> Path:
    """Makes and writes an enlarged picture for each prompt and seed.

    factor: how many times as large a side is; by default that of the first upsampling stage.
    faithful: see `upscale.upscale`.

    Returns:
      The path of the first picture.

    Raises:
      ConfigError: the request is impossible, or a file of its name is there already.
      StorageError: the disk does not take a file.
    """
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
    todo = ask.jobs()
    names = [[f"upscale_seed{job.seed}_{w}x{h}px.png" for w, h in sizes] for job in todo]
    where.check([*itertools.chain(*names)])
    tiles = [
        upscale_lib.num_tiles(stage.task, h // stage.task.factor, w // stage.task.factor)
        for stage, (w, h) in zip(part.stages, sizes, strict=True)
    ]
    print(f"{width} x {height} -> {sizes[-1][0]} x {sizes[-1][1]} px, tiles: {tiles}")
    edit = functools.partial(
        upscale_lib.upscale, part.stages, picture=repeated_image(ask.pictures[0]), faithful=faithful
    )
    said = {"faithful": faithful, **describe(ask)}
    with Progress(len(todo)) as progress:
        for job, own, made in zip(todo, names, edited(part, todo, edit, ask), strict=True):
            data_of_each = metadata_of(job, part, ask, said)
            for name, picture, data in zip(own, made, data_of_each, strict=True):
                where.write(name, picture, data)
            progress.tick()
    return where.out / names[0][-1]


def edited(
    trained: Cascade, todo: Sequence[Job], edit: Callable[..., list[Resized]], ask: Ask
) -> Iterator[list[Picture]]:
    """For each job, in order, the pictures of all stages that `edit` makes, small to large."""
    embed, tell = rows_lib.embedder(trained), rows_lib.teller(trained)
    for padded, count in rows_lib.in_calls(todo):
        columns, seeds = rows_lib.inputs_of(padded, embed, trained.conditions, tell=tell)
        yield from rows_lib.pictures_of(edit(columns, seeds=seeds), count)


def describe(ask: Ask) -> JsonObject:
    """The metadata of a request: the sha256 of its pictures' pixels, but never a path."""
    said: JsonObject = {
        "pictures": [sha256(picture) for picture in ask.pictures],
        "fit": ask.fit,
        "prompted": bool(ask.prompts),
    }
    return said if ask.mask is None else {**said, "mask": sha256(ask.mask)}


def sha256(pixels_: np.ndarray) -> str:
    """The digest of an array's shape and bytes."""
    return hashlib.sha256(f"{pixels_.shape}".encode() + pixels_.tobytes()).hexdigest()


def metadata_of(job: Job, trained: Cascade, ask: Ask, said: JsonObject) -> list[JsonObject]:
    """The metadata of the picture of each stage. said: what holds for all of them."""
    recipes = (dataclasses.replace(one, kind=ask.kind) for one in folder.recipes_of(job, trained))
    return [{**recipe.to_json(one), "edit": said} for one in recipes]


def repeated_image(picture: Picture) -> Resized:
    """The picture in [-1, 1], repeated for each row of a call."""
    return pixels.from_uint8(repeated(picture))


def repeated(array: np.ndarray) -> Array:
    """The array, repeated for each row of a call."""
    return jnp.asarray(np.repeat(array[None], rows_lib.rows_per_call(), axis=0))


def write_sheet(where: Place, name: str, cells: list, captions: Sequence[str]) -> Path:
    """Writes a sheet: each row of pictures side by side, over its caption; returns its path."""
    tile_px = min(max(cells[0][-1].shape[0], folder.TILE_PX[0]), folder.TILE_PX[1])
    cells = [[folder.thumbnail(picture, tile_px) for picture in row] for row in cells]
    sheet = np.asarray(contact_sheet(cells, captions, tile_px=tile_px))
    return where.write(name, sheet, folder.SHEET_METADATA)
