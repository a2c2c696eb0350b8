"""What a decoder is told of its picture: by a prior, by the text itself, or by a picture."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffjax.build.stages import decoders
from diffjax.core.errors import ConfigError
from diffjax.encoders.clip import encoder
from diffjax.encoders.clip.captions import of_prompts
from diffjax.generation import folder, parse, recipe, rows, telling
from diffjax.generation.jobs import Job
from diffjax.tasks.conditions import Embedding
from diffjax.tasks.vectors import IMAGE_VECTOR
from tests import tiny_cascade, tiny_prior
from tests.encoders.clip import small

WIDTH = small.CONFIG.embed
JOBS = [Job("a red apple", 3)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return encoder.load(small.write(tmp_path_factory.mktemp("clip") / "small"))


@pytest.fixture(scope="module")
def cascade(tmp_path_factory):
    return tiny_cascade.cascade(tmp_path_factory.mktemp("t5"), Embedding(IMAGE_VECTOR, WIDTH))


@pytest.fixture(scope="module")
def by_prior(cascade, clip):
    return tiny_prior.teller(cascade, clip)


def told(cascade, teller):
    """The vector that the decoder is told."""
    tell = rows.teller(dataclasses.replace(cascade, teller=teller))
    embed = rows.embedder(cascade)
    columns, _ = rows.inputs_of(JOBS, embed, cascade.conditions, tell=tell)
    return np.asarray(columns[IMAGE_VECTOR])


def test_a_prior_makes_the_vector_of_the_prompt_and_the_text_its_own(cascade, clip, by_prior):
    own = of_prompts(clip, [JOBS[0].prompt])
    np.testing.assert_allclose(told(cascade, by_prior), np.roll(own, 1, axis=-1), atol=1e-3)
    np.testing.assert_array_equal(told(cascade, telling.Teller("text", clip)), own)
    np.testing.assert_array_equal(told(cascade, None), np.zeros((1, WIDTH)))


def test_the_vector_changes_the_picture_and_the_recipe_says_whose_it_is(cascade, clip, by_prior):
    made = {}
    for teller in (None, telling.Teller("text", clip), by_prior):
        whole = dataclasses.replace(cascade, teller=teller)
        made[teller and teller.by] = next(iter(rows.make(whole, JOBS)))[0]
        said = folder.recipes_of(JOBS[0], whole)[-1]
        assert parse.from_json(recipe.to_json(said)) == said
        assert (said.told is None) == (teller is None)
    assert said.told.clip == clip.fingerprint
    assert said.told.prior[0].name == "prior"
    assert (made[None] != made["text"]).any()
    assert (made["prior"] != made["text"]).any()


def test_a_given_picture_is_told_by_its_vector(cascade, clip, tmp_path, monkeypatch):
    colours = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    monkeypatch.setattr(decoders, "clip_of", lambda dirs: clip)
    whole = decoders.told(cascade, [], str(tmp_path / "a.png"))
    np.testing.assert_allclose(told(cascade, whole.teller), clip.of_pictures(colours[None]))
    said = folder.recipes_of(JOBS[0], whole)[-1]
    with pytest.raises(ConfigError, match="--like = 'picture': gave its vector: name that"):
        decoders.of_recipe(said)
    other = dataclasses.replace(whole, teller=telling.Teller("picture", clip, picture="f" * 64))
    with pytest.raises(ConfigError, match="is the picture of its vector, here is ffff"):
        decoders.check_like(said, other)
    decoders.check_like(said, whole)


def test_a_decoder_without_a_prior_and_a_flag_without_a_decoder_are_refused(
    cascade, clip, by_prior, tmp_path, monkeypatch
):
    monkeypatch.setattr(decoders, "clip_of", lambda dirs: clip)
    with pytest.raises(ConfigError, match="--stages = 'small': no prior makes its vectors"):
        decoders.told(cascade, [], None)
    with pytest.raises(ConfigError, match="--vector = 'prior': no prior"):
        decoders.told(cascade, [], "prior")
    with pytest.raises(ConfigError, match=r"--vector = .*no such file"):
        decoders.told(cascade, [], str(tmp_path / "none.png"))
    plain = tiny_cascade.cascade(tmp_path / "t5")
    with pytest.raises(ConfigError, match="--vector = 'text': has no effect"):
        decoders.told(plain, [], "text")
    assert decoders.told(plain, [], None).teller is None
    known = dataclasses.replace(cascade, teller=by_prior)
    assert decoders.told(known, [], None).teller is by_prior
    assert decoders.told(known, [], "none").teller is None


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        (dict(by="magic"), "told.by: want one of prior"),
        (dict(clip="x"), "told.clip"),
        (dict(by="picture"), "told.prior: want one if by is prior"),
        (dict(by="text", prior=None, picture="c" * 64), "told.picture: want one if by is picture"),
    ],
)
def test_a_recipe_with_a_strange_teller_is_refused(cascade, by_prior, changed, wrong):
    whole = dataclasses.replace(cascade, teller=by_prior)
    said = recipe.to_json(folder.recipes_of(JOBS[0], whole)[-1])
    said["told"] = {**said["told"], **changed}
    with pytest.raises(ValueError, match=wrong):
        parse.from_json(said)


def test_a_vector_does_not_depend_on_the_others_of_its_call(cascade, by_prior):
    tell = rows.teller(dataclasses.replace(cascade, teller=by_prior))
    jobs = [Job("a red apple", 1), Job("a frog", 2)]
    both = tell(jobs, jnp.array([1, 2]))
    np.testing.assert_allclose(both[1], tell(jobs[1:], jnp.array([2]))[0], atol=1e-6)
