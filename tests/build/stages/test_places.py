"""Where stages are looked for, and what is said of places that hold none."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base64, clip, prior, sr256
from diffjax.build.options import config
from diffjax.build.reports import loaded
from diffjax.build.stages import places
from diffjax.core import tensorfile
from diffjax.core.errors import ConfigError
from diffjax.tasks.denoising import Denoising
from tests.tasks.network import Network


def save(path, options, **metadata):
    text = json.dumps(options.to_dict())
    tensorfile.write(path, {"w": np.zeros(3, np.float32)}, {"config": text, **metadata})
    return path


@pytest.fixture
def folder(tmp_path):
    """Exports whose names sort the other way round than their sizes."""
    save(tmp_path / "a.safetensors", sr256.get_config("tiny"))
    save(tmp_path / "b.safetensors", base64.get_config("tiny"))
    return tmp_path


def test_a_folder_of_exports_is_a_cascade_smallest_first(folder):
    assert [path.name for path in places.stage_dirs(folder)] == ["b.safetensors", "a.safetensors"]
    assert places.stage_dirs(folder / "a.safetensors") == [folder / "a.safetensors"]
    options = places.options_of(folder / "b.safetensors")
    assert dict(config.leaves(options)) == dict(config.leaves(base64.get_config("tiny")))


def test_a_clip_beside_stages_is_left_out_and_one_by_itself_is_found(folder, tmp_path_factory):
    own = tmp_path_factory.mktemp("own")
    for place in (folder, own):
        save(place / "0.safetensors", clip.get_config("tiny"))
    assert [path.name for path in places.stage_dirs(folder)] == ["b.safetensors", "a.safetensors"]
    assert places.stage_dirs(own) == [own / "0.safetensors"]


def test_priors_without_a_decoder_are_refused_in_a_line(tmp_path):
    files = [
        save(tmp_path / name, prior.get_config("tiny"))
        for name in ("a.safetensors", "b.safetensors")
    ]
    with pytest.raises(ConfigError, match=r"WHERE = .*a\.safetensors.*is a prior.*add a decoder"):
        loaded.load(files)


def test_stages_are_taken_in_the_order_given():
    assert [str(path) for path in places.stage_dirs(None, [Path("z"), Path("a.safetensors")])] == [
        "z", "a.safetensors"
    ]  # fmt: skip


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"--workdir.*holds no trained stage"):
        places.stage_dirs(tmp_path)


def test_a_package_without_the_shipped_cascade_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "shipped", lambda: tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"--workdir.*make demo.*--workdir runs/demo"):
        places.stage_dirs()


def test_a_file_that_is_not_an_export_is_refused_in_a_line_that_names_it(tmp_path):
    tensorfile.write(tmp_path / "bare.safetensors", {"w": np.zeros(3)}, {})
    tensorfile.write(tmp_path / "odd.safetensors", {"w": np.zeros(3)}, {"config": "{"})
    (tmp_path / "page.safetensors").write_text("<html>404</html>")
    cases = {"bare": "holds no config", "odd": "holds a damaged config: is not JSON",
             "page": "damaged: not safetens", "absent": "no such file"}  # fmt: skip
    for name, words in cases.items():
        with pytest.raises(ConfigError, match=rf"{name}\.safetensors.*{words}") as error:
            places.options_of(tmp_path / f"{name}.safetensors")
        assert "\n" not in str(error.value)


def test_an_export_holds_one_average_and_says_which(tmp_path):
    file = save(tmp_path / "x.safetensors", base64.get_config("tiny"), ema="live", step="7")
    network = Network(None, init=lambda key, *inputs: {"params": {"w": jnp.zeros(3)}})
    task, options = Denoising("base", network, (8, 8, 3)), base64.get_config("tiny")
    params, step, name = places.params_of(options, file, task, None)
    assert (params["w"].tolist(), step, name) == ([0, 0, 0], "7", "live")
    with pytest.raises(ConfigError, match=r"--ema.*decay_0\.9.*holds live alone"):
        places.params_of(options, file, task, "decay_0.9")


def test_to_read_an_export_no_program_is_compiled(tmp_path):
    """One for each shape of a tensor took half of the time before a first picture."""
    compiled = []
    width = 37  # of no other test, whose programs would be here already
    network = Network(None, init=lambda key, *inputs: {"params": {"w": jnp.zeros(width)}})
    file, task = tmp_path / "x.safetensors", Denoising("base", network, (8, 8, 3))
    options = base64.get_config("tiny")
    text = json.dumps(options.to_dict())
    tensorfile.write(file, {"w": np.zeros(width, np.float32)}, {"config": text, "ema": "live"})
    jax.random.key(0)  # which seeds are made with
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    try:
        places.params_of(options, file, task, None)
        assert compiled == []
        (jnp.zeros(width) + width).block_until_ready()
        assert compiled, "what counts the programs counts none"
    finally:
        jax.monitoring.clear_event_listeners()
