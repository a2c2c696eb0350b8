import shutil
import time

import pytest

from diffjax.build.options import config, resume
from diffjax.core.errors import ConfigError
from diffjax.training import run
from tests import runs
from tests.checkpoint.states import fill
from tests.damage import KINDS
from tests.tiny_t5 import save_tiny

BEGUN = "configs/base64.py:tiny"
CHANGES = {  # what: (flag, the key, before, now)
    "width": ("model.width=32", "model.width", "16", "32"),
    "depth": ("model.num_blocks=2", "model.num_blocks", "1", "2"),
    "dtype": ("model.dtype=bfloat16", "model.dtype", "'float32'", "'bfloat16'"),
    "no average": ("train.ema=()", "train.ema", "('decay_0.999',)", "()"),
    "text": ("text.encoder=t5-base", "text.encoder", "'t5-nano'", "'t5-base'"),
    "image size": ("data.size_px=32", "data.size_px", "16", "32"),
    "optimiser": ("optim.name=adafactor", "optim.name", "'adam'", "'adafactor'"),
}


def options_of(*flags):
    options = config.load(BEGUN)
    config.override(options, [f"--config.{flag}" for flag in flags])
    return options


@pytest.fixture
def begun(tmp_path):
    config.save(options_of(), tmp_path / "config.json")
    return tmp_path


@pytest.mark.parametrize("what", CHANGES)
def test_changes_that_do_not_fit_are_refused_in_two_columns_with_a_hint(what, begun):
    flag, key, before, now = CHANGES[what]
    with pytest.raises(ConfigError) as caught:
        resume.allowed_changes(options_of(flag), begun)
    first, header, row = str(caught.value).splitlines()
    assert first.startswith(f"config error: {key} = ")
    assert "name another workdir" in first
    assert header.split() == ["key", "begun", "with", "now"]
    assert row.split() == [key, before, now]
    assert row.index(now) == header.index("now")


def test_all_changes_are_shown_at_once(begun):
    with pytest.raises(ConfigError) as caught:
        resume.allowed_changes(options_of(*(flag for flag, *_ in CHANGES.values())), begun)
    assert all(key in str(caught.value) for _, key, *_ in CHANGES.values())


def test_only_the_dtype_may_change_and_only_if_the_config_allows_it(begun):
    allowed = "train.allow_dtype_change=true"
    flag, key, *_ = CHANGES["dtype"]
    with pytest.raises(ConfigError, match=f"go on with --config.{allowed}"):
        resume.allowed_changes(options_of(flag), begun)
    assert key in [
        change.key for change in resume.allowed_changes(options_of(flag, allowed), begun)
    ]
    with pytest.raises(ConfigError, match="another workdir, or the old values"):
        resume.allowed_changes(options_of(flag, allowed, "model.width=32"), begun)


def test_allowed_changes_are_listed(begun):
    changes = resume.allowed_changes(
        options_of("train.num_steps=8", "optim.learning_rate=0.5"), begun
    )
    assert changes == [("optim.learning_rate", 1e-3, 0.5), ("train.num_steps", 4, 8)]
    assert resume.allowed_changes(options_of(), begun) == []


def test_a_run_of_a_version_without_a_key_can_be_continued(begun):
    old = options_of()
    with old.unlocked():
        del old.train["max_bad_steps"], old.model["remat"]
    config.save(old, begun / "config.json")
    assert resume.allowed_changes(options_of("model.remat=full"), begun) == []


def test_any_config_can_start_in_an_empty_workdir(tmp_path):
    assert resume.allowed_changes(options_of("model.width=32"), tmp_path) == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A workdir with a checkpoint, which has a copy of the config."""
    folder = tmp_path_factory.mktemp("whole")
    config.save(options_of(), folder / "config.json")
    fill(folder / "checkpoints", 2, config=(folder / "config.json").read_text())
    return folder


@pytest.fixture
def saved(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "saved")


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_config_is_taken_from_the_checkpoint_and_set_aside(kind, saved, capsys):
    text = (saved / "config.json").read_text()
    KINDS[kind](saved / "config.json")
    assert config.restore(saved / "config.json") == options_of()
    assert f"{saved / 'config.json'}" in capsys.readouterr().err
    assert resume.allowed_changes(options_of(), saved) == []
    run._write_config(saved / "config.json", text)
    assert (saved / "config.json").read_text() == text
    assert [path.name for path in saved.glob("*.damaged")] == ["config.json.damaged"]


def test_a_config_that_is_gone_is_taken_from_the_checkpoint(saved):
    (saved / "config.json").unlink()
    assert config.restore(saved / "config.json") == options_of()
    with pytest.raises(ConfigError, match=r"model\.width = 32"):
        resume.allowed_changes(options_of("model.width=32"), saved)


def test_a_config_that_was_edited_is_held_against_that_of_the_checkpoint(saved):
    """A run cannot be led to another network by an edit of config.json; sampling is refused."""
    edited = options_of("model.width=32", "sample.num_steps=7", "text.encoder=moved")
    config.save(edited, saved / "config.json")
    with pytest.raises(ConfigError, match=r"begun with 16"):
        resume.allowed_changes(edited, saved)
    with pytest.raises(ConfigError, match=r"model\.width = 32: .* its step 2 was trained with 16"):
        resume.check_copy(edited, saved, 2)
    resume.check_copy(options_of("sample.num_steps=7", "text.encoder=moved"), saved, 2)
    resume.check_copy(edited, saved, 1)  # no such step, so nothing contradicts it


@pytest.mark.slow
def test_seven_of_seven_changes_end_a_process_with_code_2_in_five_seconds(tmp_path):
    for name in ("t5", "other"):
        (tmp_path / name).mkdir()
    encoder, other = save_tiny(tmp_path / "t5"), save_tiny(tmp_path / "other")
    begun = tmp_path / "run"
    assert runs.finish(runs.start(begun, encoder, "train.num_steps=2"))[0] == 0
    for what, (flag, key, *_) in CHANGES.items():
        before = time.monotonic()
        flag = f"text.encoder={other}" if what == "text" else flag
        code, out, err = runs.finish(runs.start(begun, encoder, flag))
        seconds = time.monotonic() - before
        assert (code, "compiling" in out) == (2, False), what
        assert key in err, what
        assert seconds < runs.within(5), (what, seconds)


# What a checkpoint, or its meaning, depends on; all else may be another when a run goes on.
KEPT = ("model.", "diffusion.", "text.", "low_res.", "optim.name", "data.size_px", "train.ema")


def test_a_run_goes_on_with_other_values_of_any_key_that_its_state_does_not_depend_on(begun):
    plain = options_of()
    for key, value in config.leaves(plain):
        changed = plain.copy_and_resolve_references()
        node = changed
        *parents, last = key.split(".")
        for parent in parents:
            node = node[parent]
        different = {bool: not value, str: f"{value}x", tuple: ("x",)}.get(type(value))
        with changed.unlocked():
            node[last] = value + 1 if different is None else different
        if key.startswith(KEPT):
            with pytest.raises(ConfigError, match=f"config error: {key} = "):
                resume.allowed_changes(changed, begun)
        else:
            assert [change.key for change in resume.allowed_changes(changed, begun)] == [key]
