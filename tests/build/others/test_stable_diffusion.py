"""The stage of a Stable Diffusion: its latents are those of diffusers' pipeline."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import latent
from diffjax import sample
from diffjax.build import tasks
from diffjax.build.inputs import texts
from diffjax.build.others import stable_diffusion
from diffjax.build.stages import loading, places
from diffjax.core import rng
from diffjax.core.errors import ConfigError
from diffjax.generation import parse, rows
from diffjax.images import png
from diffjax.tasks import sampling
from diffjax.tasks.conditions import NEGATIVE, NO_TEXT
from tests.encoders.stable_diffusion import made
from tools.inputs import sd_inputs

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {v: made.folder(v, tmp_path_factory.mktemp(v)) for v in ("sd1", "sd2")}


@pytest.fixture(scope="module")
def cascades(folders):
    return {version: stable_diffusion.load(folder) for version, folder in folders.items()}


@pytest.mark.parametrize(
    ("version", "sampler", "negative"),
    [
        ("sd1", "ddim", False),
        ("sd2", "dpmpp_2m", False),
        pytest.param("sd1", "pndm", False, marks=SLOW),
        pytest.param("sd1", "ddim", True, marks=SLOW),
        pytest.param("sd1", "dpmpp_2m", False, marks=SLOW),
        pytest.param("sd2", "ddim", False, marks=SLOW),
        pytest.param("sd2", "ddim", True, marks=SLOW),
    ],
)
def test_twenty_guided_steps_end_at_the_latents_of_diffusers(cascades, version, sampler, negative):
    cascade, wanted = cascades[version], made.answers(version)
    stage, embed = cascade.stages[0], rows.embedder(cascade)
    settings = dataclasses.replace(
        stage.settings,
        num_steps=sd_inputs.STEPS,
        sampler=sampler,
        spacing="leading_inner" if sampler == "dpmpp_2m" else "leading_1",
    )
    assert settings.guidance_weight == sd_inputs.GUIDANCE
    away = embed(sd_inputs.NEGATIVE) if negative else {}
    columns = {**embed(sd_inputs.PROMPT), **{f"{NEGATIVE}{name}": x for name, x in away.items()}}
    keys = rng.per_example(jnp.zeros(1, int))

    def run(params, columns, x_T, task):
        return sampling.ready(params, columns, keys, task=task, settings=settings).sample(x_T)

    found = jax.jit(run)(stage.params, columns, wanted["x_T"], stage.task)
    np.testing.assert_allclose(found, wanted["negative" if negative else sampler], atol=1e-3)


def test_no_text_is_the_embedding_of_the_empty_text_in_training_and_in_sampling(cascades):
    cascade = cascades["sd1"]
    task, (empty, mask) = cascade.stages[0].task, rows.embedded(cascade.encoder, [""])
    np.testing.assert_array_equal(task.frozen[NO_TEXT], empty[0])
    assert mask.all()
    assert np.abs(empty).max() > 0.1
    text = task.text
    batch = {
        "text": jnp.ones((3, 77, 24)),
        "text_length": jnp.array([77, 77, 1]),  # the last one's caption is blank
        "keep_text": jnp.array([True, False, True]),
    }
    told = text.told(task.known(batch))
    for row, wanted in enumerate((np.ones((77, 24)), empty[0], empty[0])):
        np.testing.assert_array_equal(told["text"][row], wanted)
    assert told["text_mask"][1:].all()
    given = {name: told[name] for name in ("text", "text_mask")}
    absent = text.absent(given, task.known(given))
    np.testing.assert_array_equal(absent["text"], np.repeat(empty, 3, axis=0))


@pytest.mark.slow
def test_the_command_draws_a_picture_and_draws_it_again(folders, tmp_path, capsys):
    flags = ["--checkpoint", str(folders["sd1"]), "--steps", "2", "--size", "32"]
    assert sample.main([*flags, "a red apple", "--out", str(tmp_path / "a")]) == 0
    picture = tmp_path / "a/0000_seed0_32px.png"
    said = parse.read(picture)
    assert (said.prompt, said.stages[0][1].spacing, said.encoder is None) == (
        "a red apple", "leading_1", False,
    )  # fmt: skip
    assert png.read(picture).shape == (32, 32, 3)
    like = ["--checkpoint", str(folders["sd1"]), "--like", str(picture)]
    assert sample.main([*like, "--out", str(tmp_path / "b")]) == 0
    assert "the same as" in capsys.readouterr().out


def test_what_is_no_checkpoint_is_one_line(folders, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no")
    for where in (tmp_path, tmp_path / "x.safetensors", tmp_path / "absent"):
        assert not places.is_others(where)
        with pytest.raises(ConfigError, match="--checkpoint") as caught:
            stable_diffusion.check_place(where)
        assert "\n" not in str(caught.value)
    assert places.stage_dirs(folders["sd1"]) == [folders["sd1"]]
    with pytest.raises(ConfigError, match="give it alone"):
        loading.load([folders["sd1"], folders["sd2"]])


def test_only_sizes_that_the_network_takes_are_drawn(cascades):
    assert cascades["sd1"].at_size(24).stages[0].task.shape == (12, 12, 4)
    with pytest.raises(ConfigError, match="want a multiple of 4"):
        cascades["sd1"].at_size(18)


def test_the_preset_has_the_network_that_is_told_steps_and_takes_the_text_of_a_checkpoint(folders):
    config = latent.get_config("sd1")
    task = tasks.task_of(config, texts.text_width_of(config))
    steps = task.model.steps(task.schedule(jnp.array([0.0, 1.0])))
    np.testing.assert_array_equal(steps, [0, 999])
    assert (task.text.embeds_blank, task.frozen[NO_TEXT].shape) == (True, (77, 768))
    with pytest.raises(ConfigError, match='"sd:PLACE"'):
        texts.encoder_of(config)
    small = latent.get_config("tiny")
    small.text.update(encoder=f"sd:{folders['sd1']}", max_tokens=77)
    task = tasks.task_of(small, texts.text_width_of(small))
    empty = texts.encoder_of(small).encode([""], 77)[0][0]
    np.testing.assert_array_equal(task.frozen[NO_TEXT], empty)
