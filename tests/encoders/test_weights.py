import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors.numpy import load_file, save_file

from diffjax.core import trees
from diffjax.encoders import weights
from diffjax.models.t5 import T5Config, shapes
from tests.models.random_t5 import CONFIGS, GOLDEN, random_params, run


@pytest.fixture
def folder(tmp_path):
    config = CONFIGS["gated"]
    weights.save(tmp_path, config, random_params(config))
    return tmp_path


def change(folder, edit):
    tensors = load_file(folder / weights.WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / weights.WEIGHTS)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", CONFIGS)
def test_load_returns_the_bits_that_save_wrote(name, dtype, tmp_path):
    config, params = CONFIGS[name], random_params(CONFIGS[name], dtype=dtype)
    weights.save(tmp_path, config, params)
    config_again, again = weights.load(tmp_path)
    assert config_again == config
    assert jax.tree.structure(again) == jax.tree.structure(params)
    for path, leaf in trees.named_leaves(params).items():
        other = trees.named_leaves(again)[path]
        assert other.dtype == leaf.dtype
        assert other.tobytes() == np.asarray(leaf).tobytes(), path


@pytest.mark.parametrize("name", ["v1_0", "v1_1"])
def test_save_writes_the_tensors_that_transformers_wrote(name, tmp_path):
    weights.save(tmp_path, *weights.load(GOLDEN / f"t5_{name}"))
    theirs = load_file(GOLDEN / f"t5_{name}" / weights.WEIGHTS)
    ours = load_file(tmp_path / weights.WEIGHTS)
    assert ours.keys() == theirs.keys()
    for tensor, value in theirs.items():
        np.testing.assert_array_equal(ours[tensor], value)


def test_either_name_of_the_embedding_table_is_read(folder):
    before = weights.load(folder)[1]["embedding"]
    change(folder, lambda t: t.update({weights.EMBEDDINGS[1]: t.pop(weights.EMBEDDINGS[0])}))
    np.testing.assert_array_equal(weights.load(folder)[1]["embedding"], before)
    change(folder, lambda t: t.update({weights.EMBEDDINGS[0]: t[weights.EMBEDDINGS[1]]}))
    np.testing.assert_array_equal(weights.load(folder)[1]["embedding"], before)


def test_two_different_embedding_tables_are_refused(folder):
    change(folder, lambda t: t.update({weights.EMBEDDINGS[1]: t[weights.EMBEDDINGS[0]] + 1}))
    with pytest.raises(
        ValueError, match=r"shared\.weight and encoder\.embed_tokens\.weight differ"
    ):
        weights.load(folder)


def test_decoder_and_head_are_ignored(folder):
    change(
        folder,
        lambda t: t.update(
            {
                "decoder.block.0.layer.0.SelfAttention.q.weight": np.ones(3),
                "lm_head.weight": np.ones(2),
            }
        ),
    )
    weights.load(folder)


NAME = "encoder.block.1.layer.1.DenseReluDense.wi_0.weight"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop(NAME), f"tensor {NAME} is missing"),
        (lambda t: t.pop("shared.weight"), r"shared.weight \(or encoder.embed_tokens.weight\)"),
        (lambda t: t.update(extra=np.ones(1)), r"\['extra'\] are not of a T5 encoder"),
        (lambda t: t.update({NAME: t[NAME].T.copy()}), rf"{NAME} has shape \(12, 18\).*\(18, 12\)"),
        (lambda t: t.update({NAME: t[NAME][0].copy()}), rf"{NAME} has shape \(12,\)"),
        (
            lambda t: t.update({"encoder.final_layer_norm.weight": np.ones(5)}),
            r"final_layer_norm.weight has shape \(5,\), config.json says \(12,\)",
        ),
    ],
)
def test_a_missing_extra_or_misshapen_tensor_is_named_in_the_error(folder, edit, message):
    change(folder, edit)
    with pytest.raises(ValueError, match=message) as caught:
        weights.load(folder)
    assert "\n" not in str(caught.value)


def test_shards_are_read_through_their_index(folder):
    whole = weights.load(folder)[1]
    tensors = load_file(folder / weights.WEIGHTS)
    (folder / weights.WEIGHTS).unlink()
    shard = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for file in set(shard.values()):
        save_file({n: t for n, t in tensors.items() if shard[n] == file}, folder / file)
    (folder / weights.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": shard}))
    jax.tree.map(np.testing.assert_array_equal, weights.load(folder)[1], whole)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"00002-of-00002.*missing"):
        weights.load(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"feed_forward_proj": "gated-relu"}, "feed_forward_proj='gated-relu', want"),
        ({"d_model": None}, "no d_model"),
        ({"num_heads": "2"}, "num_heads='2', want a whole number"),
        ({"num_layers": 0}, "num_layers=0, want a whole number"),
    ],
)
def test_a_config_that_cannot_be_run_is_refused(folder, edit, message):
    raw = json.loads((folder / weights.CONFIG).read_text()) | edit
    raw = {key: value for key, value in raw.items() if value is not None}
    (folder / weights.CONFIG).write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=message):
        weights.load(folder)


def test_a_config_without_feed_forward_is_read_as_v1_0(tmp_path):
    config = CONFIGS["relu"]
    weights.save(tmp_path, config, random_params(config))
    raw = json.loads((tmp_path / weights.CONFIG).read_text())
    del raw["feed_forward_proj"]
    (tmp_path / weights.CONFIG).write_text(json.dumps(raw))
    assert weights.load(tmp_path)[0].feed_forward == "relu"


def test_a_config_of_mt5_without_feed_forward_is_read_as_gated(folder):
    raw = json.loads((folder / weights.CONFIG).read_text()) | {"model_type": "mt5"}
    del raw["feed_forward_proj"]
    (folder / weights.CONFIG).write_text(json.dumps(raw))
    assert weights.load(folder)[0].feed_forward == "gated-gelu"


@pytest.mark.parametrize("name", [weights.CONFIG, weights.WEIGHTS])
def test_a_missing_or_damaged_file_is_named_in_the_error(folder, name):
    (folder / name).write_text("{")
    with pytest.raises(ValueError, match=name):
        weights.load(folder)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=name):
        weights.load(folder)


def test_a_path_that_is_not_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        weights.load(tmp_path / "nowhere")


EIGHT = T5Config(48, 16, 8, 24, 1, 2)  # its axes are multiples of the 8 devices


def by_rows(name, leaf):
    spec = P("x") if leaf.ndim == 2 and leaf.shape[0] % 8 == 0 else P()
    return NamedSharding(jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,)), spec)


def by_columns(name, leaf):
    mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
    return NamedSharding(mesh, P(None, "y") if leaf.ndim == 2 and leaf.shape[1] % 4 == 0 else P())


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
@pytest.mark.parametrize("place", [by_rows, by_columns, "one for all"])
def test_sharded_parameters_equal_those_loaded_on_the_host(place, dtype, tmp_path):
    place = by_columns("", jnp.zeros(3)) if place == "one for all" else place
    params = random_params(EIGHT)
    weights.save(tmp_path, EIGHT, params)
    placed = weights.load(tmp_path, place, dtype)[1]
    assert jax.tree.structure(placed) == jax.tree.structure(params)
    for name, leaf in trees.named_leaves(placed).items():
        want = np.asarray(trees.named_leaves(params)[name]).astype(dtype or np.float32)
        assert leaf.sharding == (place(name, leaf) if callable(place) else place)
        assert leaf.dtype == want.dtype
        np.testing.assert_array_equal(np.asarray(leaf), want)


def test_shardings_may_be_a_tree_and_a_missing_one_is_named(tmp_path):
    weights.save(tmp_path, EIGHT, random_params(EIGHT))
    tree = trees.map_named(by_rows, shapes(EIGHT))
    placed = weights.load(tmp_path, tree)[1]
    assert jax.tree.map(lambda leaf: leaf.sharding, placed) == tree
    del tree["block_0"]["attention"]["o"]
    with pytest.raises(ValueError, match="sharding: none for block_0/attention/o/kernel"):
        weights.load(tmp_path, tree)


def test_each_part_of_a_sharded_tensor_is_read_once(tmp_path, monkeypatch):
    weights.save(tmp_path, EIGHT, random_params(EIGHT))
    read, parts = weights.Stored.read, []

    def spy(self, *args):
        parts.append((self.name, read(self, *args).nbytes))
        return read(self, *args)

    monkeypatch.setattr(weights.Stored, "read", spy)
    weights.load(tmp_path, by_rows)
    embedding = [nbytes for name, nbytes in parts if name == "shared.weight"]
    assert embedding == [6 * 16 * 4] * 8
    norm = [nbytes for name, nbytes in parts if name == "encoder.final_layer_norm.weight"]
    assert norm == [16 * 4]


def test_save_refuses_parameters_of_another_config(tmp_path):
    params = random_params(CONFIGS["gated"])
    with pytest.raises(ValueError, match=r"params: .* the config says"):
        weights.save(tmp_path, CONFIGS["relu"], params)
    with pytest.raises(ValueError, match=r"params: \['more'\]"):
        weights.save(tmp_path, CONFIGS["gated"], params | {"more": np.ones(1)})


def test_bfloat16_parameters_are_stored_as_bfloat16(tmp_path):
    config = CONFIGS["gated"]
    weights.save(tmp_path, config, random_params(config, dtype=jnp.bfloat16))
    assert {t.dtype for t in load_file(tmp_path / weights.WEIGHTS).values()} == {
        np.dtype(ml_dtypes.bfloat16)
    }
    params = weights.load(tmp_path)[1]
    output = run(config, params, np.ones((1, 3), np.int32), np.ones((1, 3), bool))
    assert output.dtype == np.float32


FAMILY = {  # what tells the family's checkpoints apart, in small
    "t5": ("T5ForConditionalGeneration", {"feed_forward_proj": "relu"}),
    "t5-v1_1": ("T5EncoderModel", {"feed_forward_proj": "gated-gelu"}),
    "mt5": ("MT5EncoderModel", {"feed_forward_proj": "gated-gelu"}),
    "byt5": ("T5ForConditionalGeneration", {"feed_forward_proj": "gated-gelu", "vocab_size": 384}),
    "ul2": ("T5ForConditionalGeneration", {"feed_forward_proj": "gated-silu", "d_kv": 16}),
}


@pytest.mark.peers
@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("layout", ["one file", "shards", "one pickle", "pickled shards"])
def test_checkpoints_written_by_transformers_are_loaded_in_every_layout(name, layout, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model_class, changes = FAMILY[name]
    sizes = {"vocab_size": 40, "d_model": 16, "d_kv": 6, "d_ff": 20, "num_layers": 2}
    model_class = getattr(transformers, model_class)
    config = model_class.config_class(**sizes | {"num_heads": 2} | changes)
    model = model_class(config).to(torch.bfloat16 if name == "ul2" else torch.float32)
    stored = {key: value.clone() for key, value in model.state_dict().items()}
    if "pickle" in layout:
        config.save_pretrained(tmp_path)
        files = {key: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, key in enumerate(stored)}
        if layout == "one pickle":
            torch.save(stored, tmp_path / "pytorch_model.bin")
        else:
            for file in set(files.values()):
                torch.save({k: v for k, v in stored.items() if files[k] == file}, tmp_path / file)
            index = tmp_path / "pytorch_model.bin.index.json"
            index.write_text(json.dumps({"weight_map": files}))
    else:
        model.save_pretrained(tmp_path, max_shard_size="3KB" if layout == "shards" else "1GB")
        assert (tmp_path / weights.INDEX).exists() == (layout == "shards")

    loaded, params = weights.load(tmp_path, by_rows)
    assert loaded.feed_forward == changes["feed_forward_proj"]
    for ours, theirs, _, transposed in weights._names(loaded):
        wanted = stored[theirs].float().numpy()
        leaf = trees.named_leaves(params)[ours]
        assert leaf.dtype == (jnp.bfloat16 if name == "ul2" else jnp.float32)
        np.testing.assert_array_equal(leaf.astype(jnp.float32), wanted.T if transposed else wanted)
