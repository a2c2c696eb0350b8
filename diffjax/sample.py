"""python -m diffjax.sample --workdir runs/cascade --prompt "an openmoji drawing of a red apple"

Makes pictures from prompts with trained stages: a PNG per picture and stage, and a labelled grid.
Exit codes: 0 done, 2 bad input, 5 no checkpoint of a stage is whole.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffjax import config
from diffjax.storage import StorageError

# Pictures per call, or as many as there are devices; every call has as many rows, so that one
# program serves all.
BATCH = 8


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(
        prog="python -m diffjax.sample",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    where = flags.add_mutually_exclusive_group(required=True)
    where.add_argument("--workdir", type=Path, help="the folder of a trained cascade")
    where.add_argument("--stages", help="workdirs of the stages, smallest first: DIR,DIR,...")
    flags.add_argument("--prompt", action="append", default=[], help="may be given many times")
    flags.add_argument("--prompts", type=Path, help="a file with one prompt a line")
    flags.add_argument("--out", type=Path, default=Path("out"), help="folder for the pictures")
    flags.add_argument("--seeds", default="0", help="as 0, 3,5 or 0-7: pictures per prompt")
    flags.add_argument("--guidance", help="guidance weight, 1 is off; or one per stage: 3,1")
    flags.add_argument("--steps", help="sampling steps; or one number per stage: 64,16")
    flags.add_argument(
        "--ema",
        help="average of the parameters: a name of train.ema, live, or a file that diffjax.ema or "
        "an export wrote; or one per stage, with commas",
    )
    flags.add_argument(
        "--verify",
        choices=("full", "size"),
        default="full",
        help="of checkpoints: hash every file, or only look at the sizes",
    )
    flags.add_argument("--aug-level", help="noise on the small picture, 0 to 1; or one per stage")
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the flags, sample, and write the pictures."""
    flags = parser().parse_args(arguments)
    try:
        path = run(flags)
    except StorageError as error:
        print(error, file=sys.stderr)
        return 5
    except (config.ConfigError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(path)
    return 0


def run(flags: argparse.Namespace) -> Path:
    """Make and write the pictures; returns the path of the grid."""
    prompts, seeds = read_prompts(flags), parse_seeds(flags.seeds)
    import jax

    from diffjax import parallel

    parallel.keep_compilations()
    trained, encoder = load_stages(stage_dirs(flags), flags.ema, flags.verify)
    for name, text, kind in (
        ("num_steps", flags.steps, int),
        ("guidance_weight", flags.guidance, float),
        ("aug_level", flags.aug_level, float),
    ):
        if text is not None:
            values = per_stage(name, text, kind, len(trained))
            trained = [
                dataclasses.replace(t, settings=dataclasses.replace(t.settings, **{name: value}))
                for t, value in zip(trained, values, strict=True)
            ]
    jobs = [(prompt, seed) for prompt in prompts for seed in seeds]
    start = time.perf_counter()
    cells = []
    num_devices = jax.local_device_count()
    rows = -(-BATCH // num_devices) * num_devices
    for first in range(0, len(jobs), rows):
        cells += make(trained, encoder, jobs[first : first + rows], rows)
        print(f"{len(cells)} of {len(jobs)} pictures, {time.perf_counter() - start:.1f} s")
    return write(flags.out, jobs, cells)


def read_prompts(flags: argparse.Namespace) -> list[str]:
    """The prompts of the flags and of the file, in that order; at least one."""
    prompts = list(flags.prompt)
    if flags.prompts:
        if not flags.prompts.is_file():
            raise config.ConfigError("--prompts", str(flags.prompts), "no such file")
        prompts += [line.strip() for line in flags.prompts.read_text().splitlines() if line.strip()]
    config.require(bool(prompts), "--prompt", "", "give at least one prompt, or --prompts FILE")
    return prompts


def parse_seeds(text: str) -> list[int]:
    """ "3", "0,5" or "0-7", or several of them with commas, as a list."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        try:
            span = range(int(first), int(last if dash else first) + 1)
        except ValueError:
            span = range(0)
        config.require(
            0 < len(span) <= 100_000 and span[-1] < 2**31,
            "--seeds",
            text,
            "numbers from 0 to 2147483647, as 3 or 0,5 or 0-7",
        )
        seeds += span
    return seeds


def per_stage(name: str, text: str, kind, count: int) -> list:
    """One value for every stage, from one for all or one for each."""
    low, high = {"num_steps": (1, 10_000), "aug_level": (0, 1)}.get(name, (0, 1_000))
    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError:
        values = []
    ok = len(values) in (1, count) and all(low <= value <= high for value in values)
    config.require(
        ok, f"--{name}", text, f"one number from {low} to {high}, or {count} with commas"
    )
    return values * count if len(values) == 1 else values


def stage_dirs(flags: argparse.Namespace) -> list[Path]:
    """The workdirs of the stages, smallest first."""
    if flags.stages:
        return [Path(part) for part in flags.stages.split(",")]
    dirs = [path.parent for path in flags.workdir.glob("*/config.json")]
    if (flags.workdir / "config.json").exists():
        dirs = [flags.workdir]
    config.require(
        bool(dirs), "--workdir", str(flags.workdir), "holds no trained stage; train one first"
    )
    return sorted(dirs, key=lambda path: config.restore(path / "config.json").data.size_px)


def load_stages(dirs: Sequence[Path], ema: str | None = None, verify: str = "full"):
    """The trained stages of these workdirs, and their encoder.

    The parameters are those of the average `ema`, or of one for each stage with commas (see
    `params_of`), whole on every device of this process. verify: "full" hashes the files of the
    checkpoints, "size" only looks at their sizes.

    Raises:
      ConfigError: the stages do not fit each other, or one has no checkpoint or no such average.
      StorageError: a stage has checkpoints, and none is whole.
    """
    import jax

    from diffjax import build, cascade, parallel

    everywhere = parallel.replicated(parallel.make_mesh(devices=jax.local_devices()))

    first = config.restore(dirs[0] / "config.json")
    encoder = build.encoder_of(first)
    names = ema.split(",") if ema else [None]
    allowed = f"one for all stages, or {len(dirs)} with commas"
    config.require(len(names) in (1, len(dirs)), "--ema", ema, allowed)
    trained, size_px = [], 0
    for path, name in zip(dirs, names * (len(dirs) // len(names)), strict=True):
        options = config.restore(path / "config.json")
        for key in ("encoder", "max_tokens"):
            config.require(
                options.text[key] == first.text[key],
                f"text.{key} of {path}",
                options.text[key],
                f"the first stage was trained with {first.text[key]!r}",
            )
        the_stage = build.stage_of(options, encoder.width)
        config.require(
            the_stage.low_res_px == (size_px or None),
            "--stages",
            str(path),
            f"starts from {the_stage.low_res_px or 'no picture'} px, "
            f"the stage before it makes {size_px or 'none'}",
        )
        size_px = the_stage.size_px
        options.mesh.update(data=1, fsdp=1, tensor=1)
        tx, _ = build.optimiser_of(options)
        place = build.placement_of(options, the_stage, tx, jax.devices()[:1])
        params, step = params_of(options, path, place.state_shape, name, verify)
        print(f"{options.stage}: step {step} of {path}, {name or build.sampled_average(options)}")
        params = jax.device_put(params, everywhere)
        trained.append(cascade.TrainedStage(the_stage, params, build.settings_of(options)))
    return trained, encoder


def params_of(options, path: Path, state_shape, name: str | None, verify: str = "full"):
    """The parameters of the average `name` of a workdir, and the step that they are of.

    None is the first average that training kept. A name that ends with .safetensors is that of a
    file that diffjax.ema or an export wrote.
    """
    from diffjax import build, checkpoint, tensorfile
    from diffjax.averages import LIVE
    from diffjax.state import averaged

    if name and name.endswith(".safetensors"):
        try:
            params, metadata = tensorfile.read_tree(Path(name), state_shape.params)
        except (ValueError, OSError) as error:
            raise config.ConfigError("--ema", name, f"{error}; wanted for {path}") from None
        return params, metadata.get("step", "unknown")
    name = name or build.sampled_average(options)
    try:
        like = averaged(state_shape, name)
    except ValueError as error:
        raise config.ConfigError("--ema", name, f"{error} in {path}") from None
    where = "params" if name == LIVE else f"ema_params/{name}"
    try:
        found = checkpoint.open_to_read(path / "checkpoints")
        return checkpoint.restore_part(found, where, like, verify=verify)
    except FileNotFoundError:
        raise config.ConfigError("--stages", str(path), "has no checkpoint yet") from None
    except ValueError as error:
        raise config.ConfigError("--stages", str(path), str(error)) from None


def make(trained, encoder, jobs: Sequence[tuple[str, int]], rows: int) -> list[list[np.ndarray]]:
    """For each (prompt, seed), the uint8 pictures of all stages, small to large.

    One call, filled up to `rows`, which are split over this process's devices.
    """
    import jax
    import jax.numpy as jnp

    from diffjax import cascade, parallel, pixels

    split = parallel.batch_sharding(parallel.make_mesh(devices=jax.local_devices()))
    padded = [*jobs, *[jobs[-1]] * (rows - len(jobs))]
    # each prompt alone: beside others its embeddings could be rounded differently
    alone = {prompt: encoder.encode([prompt], encoder.max_length) for prompt, _ in padded}
    rows_of = zip(*(alone[prompt] for prompt, _ in padded), strict=True)
    text, mask = (jnp.concatenate(parts) for parts in rows_of)
    # the precision of the cached embeddings that the stages were trained on
    text = text.astype(jnp.bfloat16).astype(jnp.float32)
    seeds = jnp.array([seed for _, seed in padded], jnp.int32)
    text, mask, seeds = jax.device_put((text, mask, seeds), split)
    pictures = cascade.generate(trained, text, mask, seeds=seeds)
    stages = [np.asarray(pixels.to_uint8(picture)) for picture in pictures]
    return [list(row) for row in zip(*stages, strict=True)][: len(jobs)]


def write(out: Path, jobs, cells) -> Path:
    """INDEX_seedSEED_SIZE.png for every picture, and grid.png; returns the grid's path.

    A file's name is made of numbers alone, never of the prompt.
    """
    from PIL import Image

    from diffjax import grid

    out.mkdir(parents=True, exist_ok=True)
    for i, ((_, seed), row) in enumerate(zip(jobs, cells, strict=True)):
        for picture in row:
            path = out / f"{i:04d}_seed{seed}_{picture.shape[0]}px.png"
            Image.fromarray(picture).save(path)
    several = len({seed for _, seed in jobs}) > 1
    captions = [f"{prompt} ({seed})" if several else prompt for prompt, seed in jobs]
    tile_px = min(max(cells[0][-1].shape[0], 128), 256)
    return grid.save(grid.contact_sheet(cells, captions, tile_px=tile_px), out / "grid.png")


if __name__ == "__main__":
    sys.exit(main())
