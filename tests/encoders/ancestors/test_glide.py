"""GLIDE's files: the same answers, the same tensors, and what its networks are told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.encoders.ancestors import openai
from diffjax.encoders.matching import stored_of
from tests.encoders.ancestors import glide, made
from tools.inputs.glide_inputs import NETS, given

SLOW = pytest.mark.slow
FAST = ("upsampler_inpaint",)


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=SLOW) for name in NETS]
)
def test_the_network_answers_as_the_forward_pass_that_was_written_for_this_test(name, tmp_path):
    """The hole, the small picture and the tokens reach it by the conditions of sampling."""
    model, inputs = glide.network(), given()
    told = glide.told(name, inputs)
    file = made.write_pt(tmp_path / "model.pt", glide.weights(name))
    shapes = glide.shapes_of(model, name, inputs)
    params = openai.params_of(model, shapes, openai.read(file), file)
    levels = jnp.asarray(made.LOGSNRS[inputs["step"]], jnp.float32)
    found = jax.jit(model.apply)({"params": params}, jnp.asarray(inputs["x"]), levels, **told)
    wanted = glide.answers()[name]
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max(), rtol=0)


@pytest.mark.parametrize("name", NETS)
def test_the_shapes_of_the_tensors_say_what_the_network_is(name, tmp_path):
    facts = openai.facts_of(glide.weights(name), tmp_path / "x.pt")
    assert facts == openai.facts_of_model(glide.network(), NETS[name].inputs, 6)
    assert facts.text == (11, 6, 24, 2)


def test_the_parameters_are_their_tensors_byte_for_byte(tmp_path):
    model, stored = glide.network(), glide.weights("base")
    shapes = glide.shapes_of(model, "base", given())
    again = stored_of(openai.params_of(model, shapes, stored, tmp_path), openai.sources(model))
    assert again.keys() == stored.keys()
    assert all(again[key].tobytes() == x.tobytes() for key, x in stored.items())


@pytest.mark.parametrize(
    ("there", "wanted", "said"),
    [
        ("base", "inpaint", "starts from noise alone, and the config's fills holes"),
        ("upsampler_inpaint", "upsampler", "enlarges a smaller picture and fills holes, and the"),
    ],
)
def test_what_a_file_is_beside_its_config_is_said(there, wanted, said, tmp_path):
    facts = [openai.facts_of(glide.weights(name), tmp_path / "x.pt") for name in (there, wanted)]
    assert said in openai.difference(*facts)
    silent = facts[1]._replace(text=())
    assert "is told a text, and the config's is told no text" in openai.difference(facts[1], silent)
    other = facts[1]._replace(text=(50_257, *facts[1].text[1:]))
    assert "knows 11 token ids, and the config's vocabulary has 50,257" in openai.difference(
        facts[1], other
    )
