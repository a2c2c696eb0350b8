"""A whole Karlo of small random weights: the command draws with it, and damaged ones are a line."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffjax import sample
from diffjax.build.others import unclip
from diffjax.build.stages import decoders, loading, places
from diffjax.core.errors import ConfigError
from diffjax.encoders.unclip import texts
from diffjax.generation import parse, rows
from diffjax.generation.jobs import Job
from diffjax.images import png
from diffjax.tasks.conditions import NEGATIVE
from tests.encoders.unclip import whole as karlo

JOB = Job("a red apple", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return karlo.folder(tmp_path_factory.mktemp("karlo") / "small")


@pytest.fixture(scope="module")
def cascade(folder):
    return unclip.load(folder)


def test_its_text_tower_gives_the_states_and_the_projected_last_one(folder):
    encoder = texts.text_encoder(texts.load(folder), "small")
    columns = rows.columns_of(encoder, ["a red apple", ""])
    text, mask = columns["text"], columns["text_mask"]
    projection = load_file(folder / "text_encoder/model.safetensors")["text_projection.weight"]
    assert mask[1].sum() == 2  # the empty text has a start and an end
    for row in range(2):
        last = np.asarray(text[row, int(mask[row].sum()) - 1])
        found = columns["text_vector"][row]
        np.testing.assert_allclose(found, projection @ last, rtol=1e-4, atol=1e-4)
    assert np.abs(columns["text_vector"][0] - columns["text_vector"][1]).max() > 0.1


@pytest.mark.slow
def test_guidance_leads_away_from_the_empty_text_unless_there_is_a_negative_prompt(cascade):
    empty = rows.columns_of(cascade.encoder, [""])
    other = rows.columns_of(cascade.encoder, ["a frog"])
    told = rows.columns_of(cascade.encoder, [JOB.prompt])
    for task in (cascade.stages[0].task, cascade.teller.prior.task):
        without = task.known(told)
        given = task.known({**told, **{f"{NEGATIVE}{name}": x for name, x in other.items()}})
        for name in ("text", "text_mask", "text_vector"):
            np.testing.assert_array_equal(without[f"{NEGATIVE}{name}"], empty[name])
            np.testing.assert_array_equal(given[f"{NEGATIVE}{name}"], other[name])
            np.testing.assert_array_equal(given[name], told[name])


def test_the_place_is_known_and_given_alone(folder):
    assert places.is_others(folder)
    assert not places.is_stable_diffusion(folder)
    assert (places.num_stages(folder), places.stage_dirs(folder)) == (2, [folder])
    with pytest.raises(ConfigError, match=r"is a whole Karlo, which is no stage .* give it alone"):
        loading.load([folder, folder])


@pytest.mark.slow
def test_a_picture_cannot_tell_it_a_vector_but_a_text_can(cascade, folder):
    by_text = decoders.told(cascade, [folder], "text")
    vector = rows.teller(by_text)([JOB], jnp.zeros(1, int))
    wanted = rows.columns_of(cascade.encoder, [JOB.prompt])["text_vector"]
    np.testing.assert_array_equal(vector, wanted)
    with pytest.raises(ConfigError, match=r"--vector = 'a.png': this model has no network for"):
        decoders.told(cascade, [folder], "a.png")


@pytest.mark.slow
def test_the_command_draws_and_draws_again_and_another_prompt_is_another_picture(
    folder, tmp_path, capsys
):
    flags = ["--checkpoint", str(folder), "--steps", "2,2"]
    made = {}
    for name, words in {"a": ["a red apple"], "b": ["a frog"], "c": ["a red apple"]}.items():
        assert sample.main([*flags, *words, "--out", str(tmp_path / name)]) == 0
        made[name] = png.read(tmp_path / name / "0000_seed0_32px.png")
    assert made["a"].shape == (32, 32, 3)
    np.testing.assert_array_equal(made["a"], made["c"])
    assert (made["a"] != made["b"]).any()
    assert sample.main([*flags, "a red apple", "--negative", "a frog", "--out",
                        str(tmp_path / "n")]) == 0  # fmt: skip
    assert (png.read(tmp_path / "n/0000_seed0_32px.png") != made["a"]).any()
    for side in (8, 32):
        picture = tmp_path / f"a/0000_seed0_{side}px.png"
        said = parse.read(picture)
        assert (said.told.by, len(said.stages)) == ("prior", 1 if side == 8 else 2)
        again = ["--checkpoint", str(folder), "--like", str(picture)]
        assert sample.main([*again, "--out", str(tmp_path / f"like{side}")]) == 0
        assert "the same as" in capsys.readouterr().out


@pytest.mark.slow
def test_the_vector_that_the_prior_makes_depends_on_prompt_and_seed(cascade):
    prior = cascade.teller.prior
    settings = dataclasses.replace(prior.settings, num_steps=2)
    tell = rows.teller(dataclasses.replace(cascade, teller=cascade.teller.sampled_by(settings)))
    asked = [(JOB, 0), (JOB, 0), (JOB, 1), (Job("a frog", 0), 0)]
    first, again, seed, prompt = (np.asarray(tell([job], jnp.array([s]))) for job, s in asked)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - seed).max() > 0.01
    assert np.abs(first - prompt).max() > 0.001


@pytest.mark.parametrize(
    ("file", "said", "wrong"),
    [
        ("text_encoder/config.json", {"model_type": "t5"}, "model_type is 't5', want"),
        ("text_encoder/config.json", {"num_hidden_layers": 1}, "is not of this text encoder"),
        ("decoder_scheduler/scheduler_config.json", {"prediction_type": "sample"},
         "prediction_type is 'sample', want 'epsilon'"),
    ],
)  # fmt: skip
def test_another_model_is_refused_in_one_line(tmp_path, file, said, wrong):
    place = karlo.folder(tmp_path / "small")
    config = json.loads((place / file).read_text())
    (place / file).write_text(json.dumps({**config, **said}))
    refused(place, wrong)


@pytest.mark.slow
def test_a_tower_without_projection_and_a_missing_part_are_refused_in_one_line(tmp_path):
    place = karlo.folder(tmp_path / "small")
    file = place / "text_encoder/model.safetensors"
    whole = load_file(file)
    projection = whole.pop("text_projection.weight")
    save_file(whole, file)
    refused(place, "no tensor text_projection.weight")
    save_file({**whole, "text_projection.weight": projection[:, :5].copy()}, file)
    refused(place, r"text_projection.weight is \(24, 5\)")
    save_file({**whole, "text_projection.weight": projection[:20].copy()}, file)
    refused(place, "reads text_vector of width 24, its text encoder gives 20")
    save_file({**whole, "text_projection.weight": projection}, file)
    (place / "super_res_last/config.json").unlink()
    refused(place, "super_res_last")


def refused(place, wrong):
    with pytest.raises(ConfigError, match=wrong) as caught:
        unclip.load(place)
    assert "\n" not in str(caught.value)
    assert "--checkpoint = " in str(caught.value)
