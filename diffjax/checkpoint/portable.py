"""Writes a checkpoint to one safetensors file, and reads it back."""

import json
from collections.abc import Mapping
from pathlib import Path

import flax.traverse_util
import ml_dtypes
import numpy as np

from diffjax.checkpoint import config_copy
from diffjax.checkpoint.reading import read
from diffjax.core import digest, int8, tensorfile
from diffjax.core.errors import ConfigError, StorageError, require
from diffjax.core.files import parse_json_object, read_json
from diffjax.core.json_types import JsonObject
from diffjax.core.trees import PyTree, named_leaves

# In the place of the name of an average: the parameters themselves.
LIVE = "live"
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
BYTES = "int8"
STATE, EMA = "state", "ema"
CONFIG = "config.json"
# Weights that a run uses and does not train, in its workdir, and how their names begin.
FROZEN, FROZEN_PREFIX = "frozen.safetensors", "frozen/"


def export(step: Path, out: Path, *, what: str, dtype: str, config: str) -> int:
    """Write a verified step, or a part of it, to `out`; returns the size of the file in bytes.

    what: "state" is everything; "ema" is the average that sampling uses by default; "live" are the
    parameters themselves; else the name of an average. `python -m diffjax.sample --ema FILE` can
    use parameters and averages. dtype: "float32", "bfloat16" or "int8" (`core.int8`). config: the
    text of config.json, or "" if there is none; it is kept in the metadata of the file. Frozen
    weights that lie in the workdir are written too.

    Raises:
      ConfigError: the step has no part of that name, `what` is "state" and `dtype` not float32, or
        numbers that are not finite would be bytes.
      OSError: the disk is full or fails.
    """
    metadata = {"step": step.name, "config": config}
    if what == STATE:
        require(dtype == "float32", "--dtype", dtype, "a whole state is exported in its own dtypes")
        state, position = read(step)
        metadata |= {
            "data_position": json.dumps(position),
            "digest": digest.digest_of(state, position),
        }
    else:
        require(
            what != EMA or bool(config),
            "--what",
            what,
            f"there is no {CONFIG} that names the average; name it",
        )
        name = default_average(config) if what == EMA else what
        where = "params" if name == LIVE else f"ema_params/{name}"
        try:
            state, _ = read(step, where)
        except KeyError:
            require(False, "--what", what, f"{step} has no {where}")
        metadata |= {"ema": name}
    tensors = named_leaves(state)
    if what != STATE:
        tensors = _rounded(tensors, dtype)
    used, said = frozen_of(step.parent.parent / FROZEN)
    tensorfile.write(out, {**tensors, **used}, {**metadata, **said})
    return out.stat().st_size


def _rounded(tensors: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    if dtype != BYTES:
        return {name: array.astype(DTYPES[dtype]) for name, array in tensors.items()}
    try:
        return int8.pack(tensors)
    except ValueError as error:
        raise ConfigError("--dtype", dtype, f"{error}: take float32") from None


def frozen_of(file: Path) -> tuple[dict[str, tensorfile.Promise], dict[str, str]]:
    """(the frozen weights in a file of a workdir or of `export`, what its metadata say of them).

    The weights are read when they are written. Both are empty if there are none, or no file.
    """
    if not file.is_file():
        return {}, {}
    found = tensorfile.promised(file, FROZEN_PREFIX)
    own = {"step", "config", "ema", "digest", "data_position", "profile_error", "sha256"}
    metadata = tensorfile.read_metadata(file)
    return found, {name: text for name, text in metadata.items() if name not in own and found}


def default_average(config: str) -> str:
    """The average that sampling uses by default: the first one in the config (JSON), or `LIVE`."""
    train = parse_json_object(config).get("train")
    names = train.get("ema", ()) if isinstance(train, dict) else ()
    name = next(iter(names), LIVE) if isinstance(names, list | tuple) else None
    if not isinstance(name, str):
        require(False, "train.ema", str(names)[:40], f"{CONFIG} must hold a list of averages")
    return str(name)


def config_of(workdir: Path) -> str:
    """The text of a workdir's config.json, or of its copy in a step; "" if there is neither.

    Raises:
      StorageError: the file is damaged, and no step has a copy.
    """
    found: JsonObject | None
    try:
        found = read_json(workdir / CONFIG, "bring back a copy, or name another workdir")
    except (FileNotFoundError, StorageError) as error:
        found = config_copy.instead_of(workdir, error)
        if found is None and isinstance(error, StorageError):
            raise
    return json.dumps(found, indent=2) + "\n" if found else ""


def load(file: Path) -> tuple[int, PyTree, JsonObject, str]:
    """(step, state as nested dicts, position in the data, config) from a file of `export`.

    If the file holds an average or the live parameters, the state has only these, in float32.

    Raises:
      ConfigError: the file was not written by `export`, or is damaged.
    """
    try:
        metadata = tensorfile.verify(file)
    except (ValueError, OSError) as error:
        require(False, "FILE", str(file), str(error))
    known = "step" in metadata and ("digest" in metadata or "ema" in metadata)
    require(known and metadata["step"].isdecimal(), "FILE", str(file), "does not hold a checkpoint")
    step = int(metadata["step"])
    names = [name for name in tensorfile.shapes(file) if not name.startswith(FROZEN_PREFIX)]
    tensors = {name: tensorfile.read(file, name) for name in names}
    try:
        config = metadata.get("config", "")
        if config:
            parse_json_object(config)
        position = parse_json_object(metadata.get("data_position", "{}"))
    except ValueError as error:
        require(False, "FILE", str(file), f"its metadata {error}")
    if "digest" in metadata:
        return step, _nested(tensors), position, config
    parameters = _nested({name: np.asarray(x, np.float32) for name, x in tensors.items()})
    name = metadata["ema"]
    part = {"params": parameters} if name == LIVE else {"ema_params": {name: parameters}}
    return step, {"step": np.int32(step), **part}, {}, config


def _nested(tensors: Mapping[str, np.ndarray]) -> PyTree:
    """{"a/b": x} as {"a": {"b": x}}."""
    return flax.traverse_util.unflatten_dict(tensors, sep="/")
