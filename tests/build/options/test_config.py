import importlib.resources
import re
import runpy
import shutil
import sys
import tomllib
from pathlib import Path

import ml_collections
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffjax.build.options import config
from diffjax.core.errors import ConfigError


def example():
    return ml_collections.ConfigDict(
        {
            "a": {"rate": 0.1, "steps": 10, "names": ("x", "y"), "flag": False},
            "name": "n",
            "stage": "s",
        }
    ).lock()


def test_overrides_keep_the_type_of_what_they_replace():
    options = example()
    config.override(
        options,
        ["--config.a.rate=1", "--config.a.steps=3", "--config.a.names=['z']",
         "--config.a.flag=true", "--config.name=5"],
    )  # fmt: skip
    assert options.a.to_dict() == {"rate": 1.0, "steps": 3, "names": ("z",), "flag": True}
    assert isinstance(options.a.rate, float)
    assert options.name == "5"


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.a.stps=3", ["a.stps", "'3'", "did you mean a.steps?"]),
        ("--config.b.c.d=3", ["b.c.d", "known keys and sections: a"]),
        ("--config.a.zzz=3", ["a.zzz", "known keys: a.flag"]),
        ("--config.a.steps=ten", ["a.steps", "'ten'", "type int"]),
        ("--config.a.steps=1.5", ["a.steps", "'1.5'", "type int"]),
        ("--config.a.flag=maybe", ["a.flag", "'maybe'", "true or false"]),
        ("--config.a.names=3", ["a.names", "'3'", "type tuple"]),
        ("--config.a.names=(1,2)", ["a.names", "hold only str"]),
        ("--config.a.steps", ["--config.a.steps", "--config.KEY=VALUE"]),
        ("--verbose=1", ["--verbose=1", "--config.KEY=VALUE"]),
        ("--config.a=3", ["a", "unknown key"]),
        (f"--config.a.steps={'(' * 100_000}", ["a.steps", "type int"]),
        (f"--config.a.steps={'7' * 5_000}", ["a.steps", "type int"]),
        (f"--config.a.rate={'7' * 400}", ["a.rate", "too large for a float"]),
    ],
)
def test_a_mistake_is_one_line_that_names_key_value_and_remedy(argument, words):
    with pytest.raises(ConfigError) as caught:
        config.override(example(), [argument])
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    for word in words:
        assert word in message


def test_a_config_comes_back_from_its_json_as_it_was(tmp_path):
    config.save(example(), tmp_path / "config.json")
    assert dict(config.leaves(config.restore(tmp_path / "config.json"))) == dict(
        config.leaves(example())
    )
    with pytest.raises(ConfigError, match=r"config\.json"):
        config.restore(tmp_path / "absent" / "config.json")


def test_unknown_files_and_presets_are_named():
    with pytest.raises(ConfigError, match=r"no file configs/absent\.py"):
        config.load("configs/absent.py")
    with pytest.raises(
        ConfigError, match=r"'configs/base64\.py:huge'.*allowed: emoji, fine, demo, tiny"
    ):
        config.load("configs/base64.py:huge")


@settings(deadline=None)  # a busy machine may take its time
@given(
    st.one_of(
        st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), st.text()
    )
)
def test_parsing_what_a_value_prints_gives_the_value_back(value):
    assert config.parse("key", str(value), value) == value


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("optim.lr", "optim.learning_rate"),
        ("lr", "optim.learning_rate"),
        ("optim.wd", "optim.weight_decay"),
        ("data.bs", "data.batch_size"),
        ("train.steps", "train.num_steps"),
        ("steps", "optim.warmup_steps or sample.num_steps or train.num_steps?"),
        ("learning_rate", "optim.learning_rate"),
        ("train.learning_rate", "optim.learning_rate"),
        ("optim.learnig_rate", "optim.learning_rate"),
    ],
)
def test_an_unknown_key_is_told_the_one_that_it_means(key, meant):
    options = config.load("configs/base64.py:tiny")
    with pytest.raises(ConfigError, match=re.escape(f"did you mean {meant}")):
        config.override(options, [f"--config.{key}=1"])


def test_a_cascade_names_the_key_of_each_stage():
    with pytest.raises(ConfigError, match=r"base64\.optim\.learning_rate or sr256\.optim\.learn"):
        config.override(config.load("configs/cascade.py:tiny"), ["--config.optim.lr=1"])


OWN = """
import importlib.resources
import re
import runpy
import shutil
import sys
import tomllib
from pathlib import Path

import ml_collections
from configs import common{more}
{presets}
def get_config({argument}):
    config = common.stage_config("mine", 16)
    config.model.width = {value}
    return config
"""


def own(folder, name="own.py", *, more="", presets="", argument="", value="7"):
    folder.mkdir(exist_ok=True)
    path = folder / name
    text = OWN.format(more=more, presets=presets, argument=argument, value=value)
    path.write_text(text)
    return path


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """As a user who has no repository: not in its folder, and it is not on Python's path."""
    here = tmp_path / "elsewhere"
    here.mkdir()
    monkeypatch.chdir(here)
    root = Path(config.__file__).resolve().parents[3]
    monkeypatch.setattr(
        sys, "path", [one for one in sys.path if Path(one or ".").resolve() != root]
    )
    return here


def test_a_config_of_ones_own_needs_no_presets_and_no_argument(elsewhere):
    assert config.load(str(own(elsewhere / "mine"))).model.width == 7
    path = own(elsewhere / "mine", argument='preset="a"', value="len(preset)")
    assert config.load(str(path)).model.width == 1
    assert config.load(f"{path}:three").model.width == 5
    path = own(elsewhere / "mine", presets='PRESETS = ("ab", "c")', argument="preset",
               value="len(preset)")  # fmt: skip
    assert config.load(str(path)).model.width == 2
    with pytest.raises(ConfigError, match="unknown preset; allowed: ab, c"):
        config.load(f"{path}:d")


def test_a_config_of_ones_own_takes_a_preset_only_where_it_can(elsewhere):
    path = own(elsewhere / "mine")
    with pytest.raises(ConfigError, match="takes no preset"):
        config.load(f"{path}:tiny")


def test_a_config_imports_its_neighbours_before_those_of_diffjax(elsewhere):
    """And leaves nothing behind: the next folder's are its own."""
    before = dict(sys.modules), list(sys.path)
    for width in (3, 4):
        folder = elsewhere / f"mine{width}"
        path = own(folder, more=", size", value="size.WIDTH")
        (folder / "size.py").write_text(f"WIDTH = {width}\n")
        assert config.load(str(path)).model.width == width
    assert [name for name in sys.modules if name not in before[0] and "configs" in name] == []
    assert sys.path == before[1]


@pytest.mark.parametrize("name", ["base64", "base64.py", "configs/base64.py", "configs/base64"])
def test_a_config_that_comes_with_diffjax_is_found_by_name(name, elsewhere):
    assert config.load(f"{name}:tiny") == config.load(str(config.shipped() / "base64.py:tiny"))


def test_a_file_that_is_here_comes_before_one_of_diffjax(elsewhere):
    own(elsewhere / "configs", "base64.py")
    assert config.load("configs/base64.py").stage == "mine"


@pytest.mark.parametrize("name", ["runs/base64.py", "absent", "base64.txt", ""])
def test_what_is_neither_here_nor_with_diffjax_is_refused(name, elsewhere):
    with pytest.raises(ConfigError, match=r"no file .*; with diffjax come adm, adm_classifier,"):
        config.load(name)


def test_the_home_folder_is_meant_by_a_tilde(elsewhere, monkeypatch):
    monkeypatch.setenv("HOME", str(elsewhere))
    own(elsewhere / "mine")
    assert config.load("~/mine/own.py").stage == "mine"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_config(:\n    pass\n", "own.py, line 1: SyntaxError: invalid syntax"),
        ("x = 1\nx.y\n", "own.py, line 2: AttributeError: 'int' object has no attribute 'y'"),
        ("def get_config():\n    return {}['a']\n", "own.py, line 2: KeyError: 'a'"),
        ("import no_such_thing\n", "own.py, line 1: ModuleNotFoundError: No module named 'no_such"),
        ("from configs import no_such\n", "own.py, line 1: ImportError: cannot import"),
        ("from configs import common\ncommon.stage_config()\n", "own.py, line 2: TypeError"),
        ("get_config = 3\n", "must define get_config()"),
        ("", "must define get_config()"),
        ("def get_config():\n    return {}\n", "returns no ConfigDict: dict"),
        ("def get_config():\n    pass\n", "returns no ConfigDict: NoneType"),
        ("def get_config(a, b):\n    pass\n", "TypeError: get_config() missing 2 required"),
        ("\0", "own.py"),
        ("\udcff", "own.py"),
    ],
)
def test_a_config_that_python_cannot_run_is_one_line_with_its_place(text, words, tmp_path):
    path = tmp_path / "own.py"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        config.load(str(path))
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path) in message
    assert words in message


def test_the_wheel_holds_every_config_where_the_finder_looks(tmp_path, monkeypatch):
    """What setup.py hands to setuptools is laid out as an installation does it."""
    root = Path(config.__file__).resolve().parents[3]
    monkeypatch.chdir(root)
    pytest.importorskip("setuptools")
    told = {}
    monkeypatch.setattr("setuptools.setup", lambda **given: told.update(given))
    runpy.run_path("setup.py")
    assert {"diffjax", "diffjax.core", "diffjax.configs"} <= set(told["packages"])
    assert told["package_dir"] == {"diffjax.configs": "configs"}
    data = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    package = tmp_path / "site-packages" / "diffjax"
    (package / "configs").mkdir(parents=True)
    for pattern in ("*.py", *data["diffjax.configs"]):
        for path in (root / told["package_dir"]["diffjax.configs"]).glob(pattern):
            shutil.copy(path, package / "configs")
    assert {path.name for path in (root / "configs").iterdir() if path.is_file()} == {
        path.name for path in (package / "configs").iterdir()
    }
    monkeypatch.setattr(importlib.resources, "files", lambda name: package)
    assert config.shipped() == package / "configs"
    monkeypatch.chdir(tmp_path)
    assert len(config.load("cascade:tiny").stages) == 2


def test_a_config_that_was_read_takes_no_new_keys(tmp_path):
    """A misspelt key is an error, not a key that nothing reads."""
    config.save(example(), tmp_path / "config.json")
    loaded, restored = config.load("base64:tiny"), config.restore(tmp_path / "config.json")
    for options in (loaded, restored):
        with pytest.raises(AttributeError):
            options.stagee = "s"
    with pytest.raises(AttributeError):
        loaded.optim.lr = 1.0
