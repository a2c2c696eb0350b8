"""A checkpoint as one safetensors file, and back into a step."""

import functools
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from diffjax.checkpoint.reading import read
from diffjax.core import digest, tensorfile
from diffjax.core.errors import require
from diffjax.core.files import parse_json_object, read_json
from diffjax.core.trees import named_leaves

DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
STATE, EMA = "state", "ema"
CONFIG = "config.json"


def export(step: Path, out: Path, *, what: str, dtype: str, config: str) -> int:
    """Write a part of the verified step's folder to `out`; returns how many bytes it has.

    what: "state" is all of it; "ema" the average that is sampled by default; else the name of an
    average, or "live". Averages and live parameters are as `python -m diffjax.sample --ema FILE`
    takes them: float32, or rounded to bfloat16. config: what config.json holds, "" if there is
    none; it goes into the file's metadata.

    Raises:
      ConfigError: the step holds nothing of that name, or a whole state is asked for in bfloat16.
      OSError: the disk refuses.
    """
    metadata = {"step": step.name, "config": config}
    if what == STATE:
        require(dtype == "float32", "--dtype", dtype, "a whole state keeps the dtypes it has")
        state, position = read(step)
        metadata |= {
            "data_position": json.dumps(position),
            "digest": digest.digest_of(state, position),
        }
    else:
        require(what != EMA or bool(config), "--what", what, f"no {CONFIG} says which; name it")
        name = sampled(config) if what == EMA else what
        where = "params" if name == LIVE else f"ema_params/{name}"
        try:
            state, _ = read(step, where)
        except KeyError:
            require(False, "--what", what, f"{step} holds no {where}")
        metadata |= {"ema": name}
    tensors = named_leaves(state)
    if what != STATE:
        tensors = {name: array.astype(DTYPES[dtype]) for name, array in tensors.items()}
    tensorfile.write(out, tensors, metadata)
    return out.stat().st_size


def sampled(config: str) -> str:
    """The average that a config, as JSON, samples by default: its first, or the live parameters."""
    train = parse_json_object(config).get("train")
    names = train.get("ema", ()) if isinstance(train, dict) else ()
    name = next(iter(names), LIVE) if isinstance(names, list | tuple) else None
    if not isinstance(name, str):
        require(False, "train.ema", str(names)[:40], f"{CONFIG} must hold a list of averages")
    return str(name)


def config_of(workdir: Path) -> str:
    """The text of a workdir's config.json; "" if it has none.

    Raises:
      StorageError: it is damaged.
    """
    try:
        found = read_json(workdir / CONFIG, "bring back a copy, or name another workdir")
    except FileNotFoundError:
        return ""
    return json.dumps(found, indent=2) + "\n"


def load(file: Path) -> tuple[int, Any, dict, str]:
    """(step, state as nested dicts, the data's position, config) of a file that `export` wrote.

    Averages and live parameters come as float32, and are all that their state holds.

    Raises:
      ConfigError: it is no such file, or damaged.
    """
    try:
        metadata = tensorfile.verify(file)
    except (ValueError, OSError) as error:
        require(False, "FILE", str(file), str(error))
    known = "step" in metadata and ("digest" in metadata or "ema" in metadata)
    require(known and metadata["step"].isdecimal(), "FILE", str(file), "holds no checkpoint")
    step = int(metadata["step"])
    tensors = {name: tensorfile.read(file, name) for name in tensorfile.shapes(file)}
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


def _nested(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """{"a/b": x} as {"a": {"b": x}}."""
    tree: dict[str, Any] = {}
    for name, array in tensors.items():
        *parents, last = name.split("/")
        functools.reduce(lambda node, key: node.setdefault(key, {}), parents, tree)[last] = array
    return tree


# What stands for the parameters themselves where an average is asked for.
LIVE = "live"
