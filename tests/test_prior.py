"""Tiny priors of both kinds, from their config to their report."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import evaluate
from diffjax.build.inputs import clip_columns
from diffjax.build.stages import priors
from diffjax.checkpoint import __main__ as checkpoint
from diffjax.tasks.settings import SampleSettings
from diffjax.tasks.vectors import image_vector
from tests import runs
from tests.encoders.clip import small
from tests.tiny_t5 import save_tiny

pytestmark = pytest.mark.slow  # each is a program to compile
FLAGS = ("train.num_steps=4", "train.save_every=2", "mesh.data=8", "optim.decay=constant",
         "train.sample_every=4", f"vectors.width={small.CONFIG.embed}")  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder with a text encoder and a CLIP; caches are its own too."""
    made = tmp_path_factory.mktemp("prior")
    small.write(made / "clip")
    clip_columns._opened.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFJAX_CACHE_DIR", str(made / "cache"))
        yield made, save_tiny(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module", params=["tiny", "tiny_ar"])
def kind(request):
    return request.param


def run(place, workdir, kind, *flags):
    folder, encoder = place
    clip = f"vectors.clip=clip:{folder / 'clip'}"
    return runs.run(workdir, encoder, clip, *FLAGS, *flags, config=f"configs/prior.py:{kind}")


@pytest.fixture(scope="module")
def whole(place, kind, tmp_path_factory):
    """A run of four steps."""
    workdir = tmp_path_factory.mktemp("whole")
    assert run(place, workdir, kind) == 0
    return workdir


def digest(workdir, capsys):
    capsys.readouterr()
    assert checkpoint.main(["digest", str(workdir)]) == 0
    return capsys.readouterr().out


def test_a_run_in_two_parts_ends_as_one_without_a_stop(place, kind, whole, tmp_path, capsys):
    """The second part has the basis of the first, which no step changes."""
    assert run(place, tmp_path, kind, "train.num_steps=2") == 0
    frozen = tmp_path / "frozen.safetensors"
    before = frozen.read_bytes() if frozen.exists() else b""
    assert run(place, tmp_path, kind) == 0
    assert digest(tmp_path, capsys) == digest(whole, capsys)
    assert bool(before) == (kind == "tiny_ar")
    assert (frozen.read_bytes() if frozen.exists() else b"") == before
    said = json.loads((tmp_path / "config.json").read_text())
    assert len(said["vectors"]["mark"]) == 64
    assert (whole / "samples" / "0000004.png").exists()


def test_a_workdir_and_its_export_have_one_report_which_says_both_cosines(whole, tmp_path, capsys):
    file, reports = tmp_path / "prior.safetensors", []
    assert checkpoint.main(["export", str(whole), "--out", str(file)]) == 0
    for i, place in enumerate((whole, file)):
        out = tmp_path / f"{i}.json"
        assert evaluate.main([str(place), "--num", "8", "--split", "train", "--out", str(out)]) == 0
        reports.append(json.loads(out.read_text()))
    assert "prior: cosine_made" in (said := capsys.readouterr().out)
    assert "prior: cosine_text" in said
    assert reports[0] == reports[1]
    numbers = reports[0]["prior"]
    assert -1 <= numbers["cosine_made"] <= 1
    assert numbers["loss"] > 0
    assert not any(name.startswith("bits") for name in numbers)


def test_what_a_prior_has_not_is_refused_in_one_line(whole, tmp_path, capsys):
    for flags, wrong in (
        (["--parts", "emoji"], "a prior has one part"),
        (["--clip", "shipped"], "this is a prior"),
    ):
        assert evaluate.main([str(whole), *flags, "--out", str(tmp_path / "out.json")]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        assert wrong in line


def test_a_prior_of_another_clip_is_not_gone_on_with(place, kind, whole, capsys):
    other = place[0] / "other"
    small.write(other)
    (other / "preprocessor_config.json").write_text(
        (other / "preprocessor_config.json").read_text() + " "
    )
    flags = (f"vectors.clip=clip:{other}", "train.num_steps=6")
    assert run(place, whole, kind, *flags) == 2
    assert "is another CLIP" in capsys.readouterr().err


def test_a_trained_prior_makes_unit_vectors(whole):
    loaded = priors.load(whole)
    columns = {
        name: jnp.zeros((2, *shape.shape), shape.dtype)
        for name, shape in loaded.task.prompts().items()
    }
    columns["text_mask"] = columns["text_mask"].at[:, 0].set(True)
    made = image_vector(
        loaded.params, columns, jax.random.split(jax.random.key(0), 2), task=loaded.task,
        settings=SampleSettings(2, threshold="none"),
    )  # fmt: skip
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
