"""Configs: load a file and its preset, override keys, and say clearly what is wrong."""

import ast
import contextlib
import difflib
import functools
import importlib.machinery
import importlib.resources
import inspect
import json
import sys
import traceback
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ml_collections

from diffjax.build.upgrade import upgraded
from diffjax.core.errors import ConfigError, require
from diffjax.core.files import parse_json_object, read_json, write_whole
from diffjax.core.json_types import Json, JsonObject

# What is a mapping in a stage's config, where it is there.
SECTIONS = ("data", "text", "model", "diffusion", "low_res", "optim", "train", "sample", "mesh")
MOST_HINTS = 4  # keys that are offered in place of an unknown one
# Keys of runs that this version cannot go on with, and what replaced them.
RENAMED = {"train.ema_decay": "one average, now train.ema = ('decay_D',)"}


def load(spec: str) -> ml_collections.ConfigDict:
    """The config of "FILE.py" or "FILE.py:PRESET", its keys locked.

    A name of a config that comes with diffjax, as "base64" or "configs/base64.py", is that config
    where no such file is.

    Raises:
      ConfigError: no such file, one that Python cannot run, no `get_config`, or an unknown preset
        (those known are listed).
    """
    name, _, preset = spec.partition(":")
    path = _find(spec, name)
    with _neighbours(path), _told(spec, path):
        module = _execute(path)
        get_config = getattr(module, "get_config", None)
        if not callable(get_config):
            raise ConfigError("--config", spec, f"{path} must define get_config()")
        presets = tuple(getattr(module, "PRESETS", ()))
        preset = preset or (presets[0] if presets else "")
        if presets and preset not in presets:
            raise ConfigError("--config", spec, f"unknown preset; allowed: {', '.join(presets)}")
        if preset and not inspect.signature(get_config).parameters:
            raise ConfigError("--config", spec, f"get_config() of {path} takes no preset")
        config = get_config(preset) if preset else get_config()
    if not isinstance(config, ml_collections.ConfigDict):
        found = type(config).__name__
        raise ConfigError(
            "--config", spec, f"get_config() of {path} returns no ConfigDict: {found}"
        )
    return config.lock()


def shipped() -> Path:
    """The folder of the configs that come with diffjax: in the repository, or in the package."""
    package = Path(str(importlib.resources.files("diffjax")))
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def _find(spec: str, name: str) -> Path:
    """The file that is meant."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    ours = shipped() / f"{path.stem}.py"
    if path.parent in (Path(), Path("configs")) and path.suffix in ("", ".py") and ours.is_file():
        return ours
    known = ", ".join(sorted(one.stem for one in shipped().glob("*.py")))
    raise ConfigError(
        "--config", spec, f"no file {path} here ({Path.cwd()}); with diffjax come {known}"
    )


@contextlib.contextmanager
def _neighbours(path: Path) -> Iterator[None]:
    """Meanwhile `configs.NAME` is a file beside `path`, or else one that comes with diffjax.

    Other modules are looked for beside it, and beside its folder, last.
    """
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_ours(name)}
    package = types.ModuleType("configs")
    package.__path__ = [str(path.resolve().parent), str(shipped())]
    more = [str(path.resolve().parent), str(path.resolve().parent.parent)]
    sys.modules["configs"] = package
    sys.path += more
    try:
        yield
    finally:
        for folder in more:
            sys.path.remove(folder)
        for name in list(sys.modules):
            if _is_ours(name):
                del sys.modules[name]
        sys.modules.update(kept)


def _is_ours(name: str) -> bool:
    return name.split(".")[0] == "configs"


def _execute(path: Path) -> types.ModuleType:
    """The module of a config file."""
    loader = importlib.machinery.SourceFileLoader(f"config_{path.stem}", str(path))
    module = types.ModuleType(loader.name)
    module.__file__ = str(path)
    loader.exec_module(module)
    return module


@contextlib.contextmanager
def _told(spec: str, path: Path) -> Iterator[None]:
    """What a config raises is one line with the file, the line and the error."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        where = [
            f"{frame.filename}, line {frame.lineno}"
            for frame in frames
            if Path(frame.filename).parent in (path.parent, path.resolve().parent, shipped())
        ]
        what = str(error)
        if isinstance(error, SyntaxError):
            where, what = [f"{error.filename}, line {error.lineno}"], error.msg
        line = (what.strip() or "no message").splitlines()[0]
        place = where[-1] if where else str(path)
        raise ConfigError("--config", spec, f"{place}: {type(error).__name__}: {line}") from None


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
            close = similar(key, known)
            hint = f"did you mean {close}?" if close else f"known keys: {', '.join(known)}"
            raise ConfigError(key, text, f"unknown key; {hint}")
        node = config
        *parents, last = key.split(".")
        for parent in parents:
            node = node[parent]
        node[last] = parse(key, text, known[key])


def similar(key: str, known: Iterable[str]) -> str:
    """The keys that `key` may stand for, by meaning first and by spelling else; "" for none.

    By meaning: "lr" has the initials of learning_rate, "steps" is a word of num_steps, and
    "learning_rate" belongs to a section. Keys of the section that `key` names come before others.
    """
    section, _, last = key.rpartition(".")

    def alike(other: str) -> bool:
        words = other.rpartition(".")[2].split("_")
        return last in ("_".join(words), "".join(word[0] for word in words if word), *words)

    found = sorted(filter(alike, known))
    here = [other for other in found if other.rpartition(".")[0] == section]
    found = [other for other in here or found if _words(other) == min(map(_words, here or found))]
    return " or ".join(found[:MOST_HINTS] or difflib.get_close_matches(key, known, n=1))


def _words(key: str) -> int:
    return key.rpartition(".")[2].count("_") + 1


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
    write_whole(path, (json.dumps(config.to_dict(), indent=2) + "\n").encode())


def restore(path: Path) -> ml_collections.ConfigDict:
    """The config that `save` wrote; lists come back as tuples.

    Raises:
      ConfigError: there is none, or it is no config of this version.
      StorageError: it is damaged.
    """
    try:
        found = read_json(path, "bring back a copy, or name another workdir")
    except FileNotFoundError:
        raise ConfigError("workdir", str(path.parent), "holds no config.json: not a run") from None
    return _restored(found, path.parent)


def from_json(text: str, where: Path) -> ml_collections.ConfigDict:
    """The config that this JSON is; `where` it was found is for errors.

    Raises:
      ConfigError: it is no config, or of a version whose checkpoints do not fit this one.
    """
    try:
        return _restored(parse_json_object(text), where)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError("config", str(where), f"holds a damaged config: {error}") from None


def _restored(found: JsonObject, where: Path) -> ml_collections.ConfigDict:
    def tuples(value: Json) -> object:
        if isinstance(value, dict):
            return {name: tuples(child) for name, child in value.items()}
        return tuple(value) if isinstance(value, list) else value

    wrong = [name for name in SECTIONS if not isinstance(found.get(name, {}), dict)]
    if wrong or not isinstance(found.get("stage"), str):
        key = wrong[0] if wrong else "stage"
        raise ConfigError(
            key,
            str(found.get(key))[:40],
            f"{where} holds the config of another program, or a damaged one: bring back a copy",
        )
    try:
        restored = ml_collections.ConfigDict(tuples(found)).lock()
    except (ValueError, RecursionError) as error:
        raise ConfigError("config", str(where), f"holds a damaged config: {error}") from None
    for key, value in leaves(restored):
        if key in RENAMED:
            raise ConfigError(
                key,
                value,
                f"{where} is of an older diffjax, which had {RENAMED[key]}; its "
                "checkpoints do not fit this one: train in a new workdir",
            )
    return upgraded(restored)
