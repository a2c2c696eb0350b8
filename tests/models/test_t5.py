import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffjax.encoders import weights
from diffjax.models import t5
from tests.encoders import family
from tests.models.random_t5 import CONFIGS, GOLDEN, random_params, run

IDS = jnp.ones((1, 2), jnp.int32)


@pytest.fixture(params=CONFIGS)
def model(request):
    """(apply, config) of a small encoder with random parameters."""
    config = CONFIGS[request.param]
    params = random_params(config)
    encoder = t5.T5Encoder(config)
    return jax.jit(lambda ids, mask: encoder.apply({"params": params}, ids, mask)), config


@pytest.mark.parametrize("name", ["v1_0", "v1_1"])
def test_the_output_equals_pytorchs(name):
    golden = load_file(GOLDEN / f"t5_{name}.safetensors")
    config, params = weights.load(GOLDEN / f"t5_{name}")
    output = run(config, params, golden["ids"], golden["mask"])
    where = golden["mask"]
    np.testing.assert_allclose(output[where], golden["output"][where], atol=1e-5, rtol=0)
    assert not np.any(output[~where])


@pytest.fixture(scope="module", params=family.FAMILY)
def relative(request, tmp_path_factory):
    """(folder, ids, mask, PyTorch's output in float32) of a member of the family."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    (folder / weights.CONFIG).write_text(json.dumps(family.FAMILY[name]))
    save_file(family.weights(name), folder / weights.WEIGHTS)
    expected = load_file(GOLDEN / "t5_family.safetensors")[name]
    return folder, *family.tokens(name), expected


def answer(folder, ids, mask, dtype):
    config, params = weights.load(folder, dtype=dtype)
    model = t5.T5Encoder(config, dtype)
    output = jax.jit(lambda *given: model.apply({"params": given[0]}, *given[1:]))(
        params, ids, mask
    )
    return np.asarray(output, np.float32)


def test_the_output_of_every_variant_equals_pytorchs(relative):
    folder, ids, mask, expected = relative
    output = answer(folder, ids, mask, jnp.float32)
    assert np.abs(output[mask] - expected[mask]).max() < 1e-5
    assert not np.any(output[~mask])


def test_bfloat16_keeps_two_digits_for_every_variant(relative):
    """The bound that T5Encoder documents; outputs are of order 1."""
    folder, ids, mask, expected = relative
    error = answer(folder, ids, mask, jnp.bfloat16)[mask] - expected[mask]
    print(f"max {np.abs(error).max():.4f} rms {np.sqrt(np.mean(error**2)):.4f}")
    assert np.abs(error).max() < 0.1
    assert 0 < np.sqrt(np.mean(error**2)) < 0.02


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float64, jnp.int8])
def test_a_dtype_that_t5_cannot_compute_in_is_refused(dtype):
    with pytest.raises(ValueError, match=r"want float32 or bfloat16") as caught:
        jax.eval_shape(t5.T5Encoder(CONFIGS["relu"], dtype).init, jax.random.key(0), IDS, IDS > 0)
    assert ("65504" in str(caught.value)) == (dtype == jnp.float16)


@pytest.mark.parametrize("count_far", ["32_128", "12_40", "16_200"])
def test_distance_buckets_equal_pytorchs(count_far):
    count, far = map(int, count_far.split("_"))
    expected = load_file(GOLDEN / "t5_buckets.safetensors")[count_far]
    np.testing.assert_array_equal(t5.distance_buckets(np.arange(-600, 601), count, far), expected)


def test_padding_changes_no_real_position_beyond_1e_6(model):
    apply, config = model
    ids = jax.random.randint(jax.random.key(1), (2, 7), 2, config.vocab_size)
    mask = jnp.arange(7)[None] < jnp.array([[7], [4]])
    short = apply(ids, mask)
    # The ids under the padding are not 0, so that only the mask can hide them.
    long = apply(
        jnp.pad(ids, ((0, 0), (0, 20)), constant_values=5), jnp.pad(mask, ((0, 0), (0, 20)))
    )
    np.testing.assert_allclose(long[:, :7], short, atol=1e-6, rtol=1e-6)
    assert not np.any(long[:, 7:])


def test_a_row_does_not_depend_on_its_batch(model):
    apply, config = model
    ids = jax.random.randint(jax.random.key(1), (3, 6), 2, config.vocab_size)
    mask = jnp.ones((3, 6), bool)
    np.testing.assert_allclose(apply(ids, mask)[1:2], apply(ids[1:2], mask[1:2]), atol=1e-6)


def test_a_row_of_padding_is_zero(model):
    apply, _ = model
    assert not np.any(apply(jnp.zeros((1, 5), jnp.int32), jnp.zeros((1, 5), bool)))


def test_word_order_matters(model):
    apply, _ = model
    ids = jnp.array([[2, 3, 4, 5], [5, 4, 3, 2]])
    output = apply(ids, jnp.ones((2, 4), bool))
    assert np.abs(output[0] - output[1, ::-1]).max() > 1e-2


def test_bfloat16_equals_float32_within_its_precision():
    config, params = weights.load(GOLDEN / "t5_v1_1")
    golden = load_file(GOLDEN / "t5_v1_1.safetensors")
    output = run(config, params, golden["ids"], golden["mask"], jnp.bfloat16)
    assert output.dtype == jnp.bfloat16
    where = golden["mask"]
    error = np.asarray(output, np.float32)[where] - golden["output"][where]
    assert np.abs(error).max() < 0.1
    assert np.sqrt(np.mean(error**2)) < 0.02


@pytest.mark.peers
@pytest.mark.parametrize("feed_forward", ["relu", "gated-gelu", "gated-silu"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("heads", "d_kv", "length"), [(3, 5, 9), (1, 64, 200), (7, 3, 64)])
def test_full_models_agree_with_pytorch(feed_forward, tied, heads, d_kv, length, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(length)
    config = transformers.T5Config(
        vocab_size=50, d_model=24, d_kv=d_kv, d_ff=30, num_layers=3, num_heads=heads,
        feed_forward_proj=feed_forward, tie_word_embeddings=tied, decoder_start_token_id=0,
    )  # fmt: skip
    full = transformers.T5ForConditionalGeneration(config).eval()
    # Small shards, so that the test includes the index and the tensors of the decoder.
    full.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / weights.INDEX).exists()

    mask = np.arange(length)[None] < np.array([[length], [length // 2], [1]])
    ids = np.random.default_rng(0).integers(2, 50, mask.shape).astype(np.int32) * mask
    with torch.inference_mode():
        expected = full.encoder(
            input_ids=torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(mask).long()
        ).last_hidden_state.numpy()
    loaded, params = weights.load(tmp_path)
    output = run(loaded, params, ids, mask)
    error = np.abs(output[mask] - expected[mask]).max()
    print(f"max abs difference {error:.2e}")
    assert error < 1e-5


@pytest.mark.peers
@pytest.mark.parametrize("feed_forward", ["relu", "gated-gelu"])
def test_pytorch_reads_the_files_of_save(feed_forward, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = t5.T5Config(40, 16, 5, 20, 2, 3, feed_forward=feed_forward)
    ids, mask = jnp.arange(2, 14).reshape(2, 6), jnp.ones((2, 6), bool)
    params = t5.T5Encoder(config).init(jax.random.key(0), ids, mask)["params"]
    weights.save(tmp_path, config, params)
    theirs = transformers.T5EncoderModel.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(np.array(ids)).long()).last_hidden_state.numpy()
    output = run(config, params, ids, mask)
    np.testing.assert_allclose(output, expected, atol=1e-5)
