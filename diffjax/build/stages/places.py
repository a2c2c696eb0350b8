"""Finds trained stages, each in the workdir of its run or in a safetensors file of an export."""

import importlib.resources
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from diffjax import checkpoint
from diffjax.build import check
from diffjax.build.kinds import autoregressive, contrastive, latents
from diffjax.build.models import PRIORS
from diffjax.build.options import config, resume
from diffjax.build.others import ancestors
from diffjax.checkpoint.portable import FROZEN_PREFIX, LIVE
from diffjax.core import tensorfile
from diffjax.core.errors import ConfigError, StorageError, require
from diffjax.core.trees import named_leaves
from diffjax.devices import mesh
from diffjax.encoders.stable_diffusion import checkpoint as stable_diffusion
from diffjax.encoders.unclip import texts as unclip
from diffjax.generation.recipe import FROM_A_FILE
from diffjax.tasks.task import Params, Task

SAFETENSORS = ".safetensors"
SMALL = 64  # so many blocks are soon built, to say which tensors are missing
CONFIG = "config.json"


def shipped() -> Path:
    """The folder of the trained cascade that comes with diffjax."""
    return Path(str(importlib.resources.files("diffjax") / "shipped"))


def stage_dirs(
    workdir: Path | None = None, stages: Sequence[Path] | None = None, flag: str = "--workdir"
) -> list[Path]:
    """The places of the stages, smallest first: `stages` themselves, or those in `workdir`.

    A prior, which makes no pictures, is the first. A CLIP is no stage, so those beside stages are
    left out.

    A place is a workdir, or a file that `python -m diffjax.checkpoint export` wrote. `workdir` is a
    place itself or holds some. Without both, the cascade that comes with diffjax is used. flag: the
    name of the flag, for messages.

    Raises:
      ConfigError: `workdir` is not a trained stage and holds none.
    """
    if stages is not None:
        return list(stages)
    if workdir is None:
        workdir = shipped()
        require(
            any(workdir.glob(f"*{SAFETENSORS}")),
            flag,
            None,
            "no trained cascade came along; `make demo` trains one: --workdir runs/demo",
        )
    if is_file(workdir) or _is_run(workdir) or is_others(workdir):
        return [workdir]
    found = [path for path in workdir.glob("*") if _is_run(path)]
    found = found or list(workdir.glob(f"*{SAFETENSORS}"))
    require(bool(found), flag, str(workdir), "holds no trained stage; train one first")
    found = [place for place in found if not _is_clip(place)] or found
    return sorted(found, key=lambda place: (not is_prior(place), _size_px(place)))


def is_prior(place: Path) -> bool:
    """Whether the stage of a place makes the vectors of pictures, for a decoder."""
    there = (place if is_file(place) else place / CONFIG).exists()
    if not there or is_others(place):
        return False
    with config.interpreting(place):
        return options_of(place).model.get("kind") in PRIORS


def _is_clip(place: Path) -> bool:
    if not is_file(place) and not (place / CONFIG).exists():
        return False
    with config.interpreting(place):
        return contrastive.is_contrastive(options_of(place))


def _is_run(place: Path) -> bool:
    """Whether a run was begun in the folder; its config.json may be gone."""
    return (place / CONFIG).exists() or (place / "checkpoints").is_dir()


def _size_px(place: Path) -> int:
    with config.interpreting(place):
        return int(options_of(place).data.size_px)


def is_others(place: Path) -> bool:
    """Whether the place is a checkpoint of others."""
    return ancestors.is_one(place) or is_stable_diffusion(place) or unclip.is_whole(place)


def num_stages(place: Path) -> int:
    """How many stages of a place make pictures: none of a prior, two of a whole Karlo."""
    return 2 if unclip.is_whole(place) else int(not is_prior(place))


def is_stable_diffusion(place: Path) -> bool:
    """Whether the place is a checkpoint of Stable Diffusion: a folder, or a single file."""
    if ancestors.is_one(place) or unclip.is_whole(place):
        return False
    if place.is_dir():
        return (place / stable_diffusion.INDEX).is_file()
    if place.suffix != SAFETENSORS or not place.is_file():
        return place.suffix == stable_diffusion.CKPT and place.is_file()
    try:
        if tensorfile.read_metadata(place).get("config"):
            return False
        return any(name.startswith(stable_diffusion.UNET) for name in tensorfile.shapes(place))
    except (ValueError, OSError):
        return False


def is_file(place: Path) -> bool:
    """Whether the place is an exported file and not a workdir."""
    return place.suffix == SAFETENSORS


def options_of(place: Path) -> ConfigDict:
    """The config with which the stage was trained.

    A stage of latents has a copy of its autoencoder beside it, and an autoregressive prior its
    basis; the config then names it.

    Raises:
      ConfigError: the place does not exist, is neither a run nor an export, or is too old.
    """
    options = _options_of(place)
    with config.interpreting(place):
        check.check_numbers(options, f"; it stands in the config of {place}")
        return autoregressive.placed(latents.placed(options, place), place)


def _options_of(place: Path) -> ConfigDict:
    if not is_file(place):
        return config.restore(place / CONFIG)
    try:
        text = tensorfile.read_metadata(place).get("config", "")
    except OSError:
        raise ConfigError("--stages", str(place), "there is no such file") from None
    except ValueError as error:
        raise ConfigError("--stages", str(place), str(error)) from None
    require(bool(text), "--stages", str(place), "holds no config: not an export")
    return config.from_json(text, place)


def params_of(
    options: ConfigDict,
    place: Path,
    task: Task,
    name: str | None,
    verify: str = "full",
    step: int | None = None,
) -> tuple[Params, int | str, str]:
    """(parameters, step, name) of an average of a task.

    name: of the average. None means the first one that training kept, or the one in an export. A
    name that ends with .safetensors is a file that diffjax.ema or an export wrote. step: the step
    of the checkpoint if it exists, else the newest.

    Raises:
      ConfigError: there is no such average, no checkpoint, or it belongs to another network, or was
        trained with another config.
      StorageError: a checkpoint is damaged, or holds numbers that are not finite.
    """
    if is_file(place):
        _check_count(options, place)
    like = params_shape(task)
    if name and name.endswith(SAFETENSORS):
        file = Path(name).expanduser()
        params, metadata = _read(file, like, "--ema", f"; wanted for {place}")
        return params, metadata.get("step", "unknown"), FROM_A_FILE
    if is_file(place):
        params, metadata = _read(place, like, "--stages")
        there = metadata.get("ema", FROM_A_FILE)
        allowed = f"{place} holds {there} alone"
        require(name in (None, there, FROM_A_FILE), "--ema", name, allowed)
        return params, metadata.get("step", "unknown"), there
    name = name or sampled_average(options)
    known = (*sorted(options.train.ema), LIVE)
    allowed = f"no average is called {name}; there are {', '.join(known)} in {place}"
    require(name in known, "--ema", name, allowed)
    where = "params" if name == LIVE else f"ema_params/{name}"
    found = checkpoint.open_to_read(place / "checkpoints")
    for wanted in (step, None) if step is not None else (None,):
        try:
            params, at = checkpoint.restore_part(found, where, like, step=wanted, verify=verify)
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise ConfigError("--stages", str(place), str(error)) from None
        resume.check_copy(options, place, at)
        return _finite(params, place), at, name
    raise ConfigError("--stages", str(place), "has no checkpoint yet")


def sampled_average(options: ConfigDict) -> str:
    """The average that pictures are made with by default: the first one, if there is any."""
    return next(iter(options.train.ema), LIVE)


def _check_count(options: ConfigDict, file: Path) -> None:
    """Refuses a config with more blocks than the file has tensors, before they are built."""
    model = options.model
    of_level = model.get("num_blocks", 1)
    blocks = (
        sum(of_level) if isinstance(of_level, tuple) else of_level * len(model.get("mults", (1,)))
    )
    if not model.get("scan", False):
        there = len(_shapes(file))
        allowed = f"{file} has only {there} tensors: it is not of such a network"
        require(blocks <= there + SMALL, "model.num_blocks", of_level, allowed)


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    try:
        return tensorfile.shapes(file)
    except (ValueError, OSError) as error:
        raise ConfigError("--stages", str(file), str(error)) from None


def params_shape(task: Task) -> Params:
    """The shapes of a task's parameters, placed on the first device."""
    place = mesh.replicated(mesh.make_mesh(devices=jax.devices()[:1]))
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)


def _read(file: Path, like: Params, flag: str, ending: str = "") -> tuple[Params, dict[str, str]]:
    try:
        params, metadata = tensorfile.read_tree(file, like, FROZEN_PREFIX)
    except (ValueError, OSError) as error:
        raise ConfigError(flag, str(file), f"{error}{ending}") from None
    return _finite(params, file), metadata


def _finite(params: Params, place: Path) -> Params:
    """Returns the parameters after checking that all are finite; else pictures would be black.

    Raises:
      StorageError: an array holds NaN or infinity; names the first one.
    """
    for name, array in named_leaves(params).items():
        if not np.isfinite(np.asarray(array)).all():  # on the host: no program for each shape
            raise StorageError(
                f"{place}: {name} holds NaN or infinity: not the parameters of a trained network; "
                "bring back a copy, or export it anew"
            )
    return params
