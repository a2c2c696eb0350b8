"""The text tower of Karlo: the ids, states and vectors of transformers, of random weights."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from diffjax.encoders.unclip import texts
from diffjax.generation import rows
from tests.encoders.unclip import whole
from tools.inputs import karlo_inputs

WANTED = load_file(Path(__file__).parents[2] / "golden/karlo/texts.safetensors")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The encoder, and what a chain reads of the prompts: padded, empty and cut off."""
    folder = whole.tower(tmp_path_factory.mktemp("karlo"))
    encoder = texts.text_encoder(texts.load(folder), "small", jnp.float32)
    return encoder, rows.columns_of(encoder, karlo_inputs.PROMPTS)


def near(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_a_token_counts_where_the_mask_of_transformers_has_it_and_ids_are_the_same(made):
    encoder, columns = made
    ids, mask = encoder.tokenize(karlo_inputs.PROMPTS, encoder.max_length)
    np.testing.assert_array_equal(mask, WANTED["mask"])
    np.testing.assert_array_equal(columns["text_mask"], WANTED["mask"])
    assert WANTED["mask"].sum(1).tolist() == [9, 2, 77]
    np.testing.assert_array_equal(ids[mask], WANTED["ids"][WANTED["mask"]])


def test_the_states_of_tokens_are_those_of_transformers_and_padding_has_none(made):
    """The ids of padding differ, which no token before them sees."""
    text, seen = np.asarray(made[1]["text"]), WANTED["mask"]
    near(text[seen], WANTED["states"][seen])
    assert not text[~seen].any()


def test_the_vector_of_a_text_is_the_projection_of_transformers(made):
    near(made[1]["text_vector"], WANTED["text_vectors"])
