import ml_collections
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffjax.build import config
from diffjax.core.errors import ConfigError


def example():
    return ml_collections.ConfigDict(
        {"a": {"rate": 0.1, "steps": 10, "names": ("x", "y"), "flag": False}, "name": "n"}
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
        ("--config.b.c.d=3", ["b.c.d", "known keys: a.flag"]),
        ("--config.a.steps=ten", ["a.steps", "'ten'", "type int"]),
        ("--config.a.steps=1.5", ["a.steps", "'1.5'", "type int"]),
        ("--config.a.flag=maybe", ["a.flag", "'maybe'", "true or false"]),
        ("--config.a.names=3", ["a.names", "'3'", "type tuple"]),
        ("--config.a.names=(1,2)", ["a.names", "hold only str"]),
        ("--config.a.steps", ["--config.a.steps", "--config.KEY=VALUE"]),
        ("--verbose=1", ["--verbose=1", "--config.KEY=VALUE"]),
        ("--config.a=3", ["a", "unknown key"]),
    ],
)
def test_a_mistake_is_one_line_that_names_key_value_and_remedy(argument, words):
    with pytest.raises(ConfigError) as caught:
        config.override(example(), [argument])
    message = str(caught.value)
    assert "\n" not in message
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
    with pytest.raises(ConfigError, match=r"'configs/base64\.py:huge'.*allowed: emoji, demo, tiny"):
        config.load("configs/base64.py:huge")


@given(
    st.one_of(
        st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), st.text()
    )
)
def test_parsing_what_a_value_prints_gives_the_value_back(value):
    assert config.parse("key", str(value), value) == value
