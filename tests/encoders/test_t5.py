import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.encoders.t5 import default_dtype, fingerprint, load_encoder
from tests.encoders.folders import write

CAPTIONS = ["a red apple", "", "two blue birds", "a red apple"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("encoders") / "tiny")


@pytest.fixture(scope="module")
def encoder(folder):
    return load_encoder(folder, max_length=40)


def test_encode_gives_one_row_per_caption_and_a_mask_of_their_tokens(encoder):
    embeddings, mask = encoder.encode(CAPTIONS)
    assert embeddings.shape == (4, 16, encoder.width)
    np.testing.assert_array_equal(mask.sum(1), [12, 1, 15, 12])  # bytes and the eos
    assert not np.any(embeddings[~mask])
    assert np.all(np.any(embeddings[mask] != 0, axis=-1))
    np.testing.assert_array_equal(embeddings[0], embeddings[3])


@pytest.mark.parametrize("longest", [1, 15, 16, 31, 32, 39, 80])
def test_the_common_length_is_a_multiple_of_16_up_to_max_length(encoder, longest):
    embeddings, mask = encoder.encode(["x" * longest, "y"])
    assert embeddings.shape[1] == mask.shape[1] == min(-(-(longest + 1) // 16) * 16, 40)


def test_a_caption_is_encoded_the_same_alone_and_in_a_batch(encoder):
    together, _ = encoder.encode([*CAPTIONS, "a long caption of thirty bytes"])
    alone, mask = encoder.encode(CAPTIONS[:1])
    np.testing.assert_allclose(together[0, :12], alone[0, :12], atol=2e-6)
    assert int(mask.sum()) == 12


def test_a_given_length_pads_or_cuts_the_embeddings(encoder):
    free, _ = encoder.encode(CAPTIONS)
    padded, mask = encoder.encode(CAPTIONS, length=33)
    assert padded.shape[1] == mask.shape[1] == 33
    np.testing.assert_allclose(padded[:, :16], free, atol=2e-6)
    _, cut = encoder.encode(CAPTIONS, length=6)
    np.testing.assert_array_equal(cut.sum(1), [6, 1, 6, 6])


def test_more_padding_changes_no_bit(encoder):
    """Each caption is encoded at its own length, for any other captions and any given length."""
    captions = [*CAPTIONS, "a caption of thirty-one bytes .."]
    free, mask = encoder.encode(captions)
    for length in (33, 40):
        padded, longer = encoder.encode(captions, length=length)
        np.testing.assert_array_equal(padded[:, :32], free[:, :32])
        np.testing.assert_array_equal(longer[:, :32], mask[:, :32])
        assert not np.any(padded[~longer])


def test_batches_of_1_and_of_64_agree(encoder):
    captions = [f"caption {i}" for i in range(64)]
    together, _ = encoder.encode(captions)
    for i in (0, 17, 63):
        np.testing.assert_allclose(
            encoder.encode(captions[i : i + 1])[0][0], together[i], atol=1e-5
        )


def test_captions_of_mixed_lengths_are_returned_in_their_order(encoder):
    captions = ["x" * n for n in (30, 2, 17, 15, 39, 1, 20)]
    together, mask = encoder.encode(captions)
    np.testing.assert_array_equal(mask.sum(1), [31, 3, 18, 16, 40, 2, 21])
    for caption, row in zip(captions, together, strict=True):
        alone, alone_mask = encoder.encode([caption])
        np.testing.assert_allclose(row[: alone_mask.sum()], alone[alone_mask], atol=1e-5)


def test_float32_is_the_default_on_a_cpu_and_float16_is_refused(encoder, folder):
    assert encoder.dtype == jnp.float32
    assert default_dtype("cpu") == jnp.float32
    assert default_dtype("gpu") == default_dtype("tpu") == jnp.bfloat16
    with pytest.raises(ValueError, match=r"dtype=float16.*65504"):
        load_encoder(folder, dtype="float16")


def test_only_a_few_shapes_are_compiled(folder):
    encoder = load_encoder(folder, max_length=32)
    for rows in range(1, 20):
        encoder.encode(["x" * (i % 31) for i in range(rows)])
    assert encoder.apply._cache_size() <= 9


def test_an_empty_list_of_captions_gives_an_empty_batch(encoder):
    embeddings, mask = encoder.encode([])
    assert embeddings.shape == (0, 16, encoder.width)
    assert mask.shape == (0, 16)


def test_a_string_instead_of_a_list_is_refused(encoder):
    with pytest.raises(ValueError, match="'a red apple' is one string"):
        encoder.encode("a red apple")


def test_embeddings_have_the_given_dtype(folder):
    assert load_encoder(folder, dtype=jnp.bfloat16).encode(["a"])[0].dtype == jnp.bfloat16


def test_the_fingerprint_depends_on_weights_config_and_tokenizer(folder, tmp_path):
    first = load_encoder(folder).fingerprint
    assert load_encoder(write(tmp_path / "same")).fingerprint == first
    bump = write(tmp_path / "bump", lambda p: p | {"embedding": p["embedding"].at[0, 0].add(1e-3)})
    assert load_encoder(bump).fingerprint != first
    (tmp_path / "same" / "tokenizer_config.json").write_text('{"tokenizer_class":"ByT5Tokenizer"}')
    assert load_encoder(tmp_path / "same").fingerprint != first


def test_an_unknown_name_is_refused_in_one_line_with_a_remedy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"'t5-nan0' is neither a folder.*pip install") as caught:
        load_encoder("t5-nan0")
    assert "t5-nano" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_encoder_is_named_after_its_folder(encoder):
    assert encoder.name == "tiny"


def test_no_more_tokens_than_max_length_are_kept_whatever_length_is_asked_for(encoder):
    embeddings, mask = encoder.encode(["x" * 80], length=60)
    assert embeddings.shape[1] == mask.shape[1] == 60
    assert int(mask.sum()) == encoder.max_length == 40


def test_every_file_that_embeddings_depend_on_is_in_the_fingerprint(folder, tmp_path):
    """Embeddings on a disk are marked with it; a byte more in any of the files is another one."""
    found = {fingerprint(folder)}
    for number, name in enumerate(path.name for path in folder.iterdir()):
        other = shutil.copytree(folder, tmp_path / str(number))
        with open(other / name, "ab") as file:
            file.write(b" ")
        found.add(fingerprint(other))
    assert len(found) == 1 + len(list(folder.iterdir())) == 4
