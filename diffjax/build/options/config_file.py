"""Finds the Python file of a config, and runs it."""

import contextlib
import importlib.machinery
import importlib.resources
import inspect
import sys
import traceback
import types
from collections.abc import Iterator
from pathlib import Path

import ml_collections

from diffjax.core.errors import ConfigError


def load(spec: str) -> ml_collections.ConfigDict:
    """The config of "FILE.py" or "FILE.py:PRESET", with its keys locked.

    If there is no such file, names such as "base64" or "configs/base64.py" mean the config of that
    name that comes with diffjax. If the file says WITH_PLACE = True, a preset may name a place
    behind another colon.

    Raises:
      ConfigError: there is no such file, Python cannot run it, it has no `get_config`, or the
        preset is unknown (the message lists those that exist).
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
        with_place = bool(getattr(module, "WITH_PLACE", False))
        if presets and (preset.partition(":")[0] if with_place else preset) not in presets:
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


def presets_of(name: str) -> tuple[str, ...]:
    """The presets of a config, in its own order."""
    path = _find(name, name)
    with _neighbours(path), _told(name, path):
        return tuple(getattr(_execute(path), "PRESETS", ()))


def shipped() -> Path:
    """The folder of the configs that come with diffjax, in the repository or in the package."""
    package = Path(str(importlib.resources.files("diffjax")))
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def _find(spec: str, name: str) -> Path:
    """The file that `name` means."""
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
    """Lets a config file import others while it runs.

    `configs.NAME` means a file beside `path`, or else one that comes with diffjax. Other modules
    are looked for beside the file and beside its folder, after all other places.
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
    """Runs a config file; returns its module."""
    loader = importlib.machinery.SourceFileLoader(f"config_{path.stem}", str(path))
    module = types.ModuleType(loader.name)
    module.__file__ = str(path)
    loader.exec_module(module)
    return module


@contextlib.contextmanager
def _told(spec: str, path: Path) -> Iterator[None]:
    """Turns an error of a config file into one line with the file, the line and the error.

    Raises:
      ConfigError: the code inside this raised an error.
    """
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
