"""Configs: load a file and its preset, override keys, and say clearly what is wrong."""

import ast
import difflib
import functools
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ml_collections

from diffjax.core.errors import ConfigError, require

# Keys of runs that this version cannot go on with, and what replaced them.
RENAMED = {"train.ema_decay": "one average, now train.ema = ('decay_D',)"}


def load(spec: str) -> ml_collections.ConfigDict:
    """The config of "path/to/file.py" or "path/to/file.py:preset", unlocked keys refused.

    Raises:
      ConfigError: no such file, no `get_config`, or an unknown preset (those known are listed).
    """
    name, _, preset = spec.partition(":")
    path = Path(name)
    if not path.is_file():
        raise ConfigError("--config", spec, f"no file {path} here ({Path.cwd()})")
    module = _execute(path)
    if not hasattr(module, "get_config"):
        raise ConfigError("--config", spec, "the file must define get_config(preset)")
    presets = tuple(module.PRESETS)
    preset = preset or presets[0]
    if preset not in presets:
        raise ConfigError("--config", spec, f"unknown preset; allowed: {', '.join(presets)}")
    return module.get_config(preset).lock()


def _execute(path: Path):
    """The module of a config file; it may import its neighbours as `configs.NAME`."""
    root = str(path.resolve().parent.parent)
    module_spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.path.insert(0, root)
    try:
        module_spec.loader.exec_module(module)
    finally:
        sys.path.remove(root)
    return module


def override(config: ml_collections.ConfigDict, arguments: Iterable[str]) -> None:
    """Apply `--config.a.b=value` arguments in place; the type of what stands there decides.

    Raises:
      ConfigError: unknown key (with the closest known one) or a value of another type.
    """
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not key.startswith("--config.") or not equals:
            raise ConfigError(argument, "", "not understood; overrides read --config.KEY=VALUE")
        key = key.removeprefix("--config.")
        known = dict(leaves(config))
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"
            raise ConfigError(key, text, f"unknown key; {hint}")
        node = config
        *parents, last = key.split(".")
        for parent in parents:
            node = node[parent]
        node[last] = parse(key, text, known[key])


def parse(key: str, text: str, like: Any) -> Any:
    """`text` as a value of the type of `like`: an int may stand for a float, nothing else."""
    if isinstance(like, str):
        return text
    if isinstance(like, bool):
        allowed = {"true": True, "1": True, "false": False, "0": False}
        if text.lower() not in allowed:
            raise ConfigError(key, text, "must be true or false")
        return allowed[text.lower()]
    wanted = type(like).__name__
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise ConfigError(key, text, f"must be of type {wanted}, like {like!r}") from None
    if isinstance(like, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(like, tuple) and isinstance(value, list):
        value = tuple(value)
    if type(value) is not type(like):
        raise ConfigError(key, text, f"must be of type {wanted}, like {like!r}")
    if isinstance(like, tuple) and like and any(type(v) is not type(like[0]) for v in value):
        raise ConfigError(key, text, f"must hold only {type(like[0]).__name__}, like {like!r}")
    return value


def leaves(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All ("a.b", value) of a config, in its order."""
    for name in config:
        value = config[name]
        if isinstance(value, ml_collections.ConfigDict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def one_of(config: ml_collections.ConfigDict, key: str, allowed: Iterable[Any]) -> Any:
    """The value of "a.b", which must be among those allowed."""
    value = functools.reduce(getattr, key.split("."), config)
    allowed = list(allowed)
    require(value in allowed, key, value, f"allowed: {', '.join(map(str, allowed))}")
    return value


def save(config: ml_collections.ConfigDict, path: Path) -> None:
    """The config as JSON beside the run that it describes; the file is whole or not there."""
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(config.to_dict(), indent=2) + "\n")
    os.replace(beside, path)


def restore(path: Path) -> ml_collections.ConfigDict:
    """The config that `save` wrote; lists come back as tuples.

    Raises:
      ConfigError: there is none, or it is no config of this version.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise ConfigError("workdir", str(path.parent), "holds no config.json: not a run") from None
    return from_json(text, path.parent)


def from_json(text: str, where: Path) -> ml_collections.ConfigDict:
    """The config that this JSON is; `where` it was found is for errors.

    Raises:
      ConfigError: it is of a version whose checkpoints do not fit this one.
    """

    def tuples(value):
        if isinstance(value, dict):
            return {name: tuples(child) for name, child in value.items()}
        return tuple(value) if isinstance(value, list) else value

    restored = ml_collections.ConfigDict(tuples(json.loads(text))).lock()
    for key, value in leaves(restored):
        if key in RENAMED:
            raise ConfigError(
                key,
                value,
                f"{where} is of an older diffjax, which had {RENAMED[key]}; its "
                "checkpoints do not fit this one: train in a new workdir",
            )
    return restored
