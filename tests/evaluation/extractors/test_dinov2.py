"""DINOv2 equals transformers' on random weights, from both layouts of its files."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from diffjax.core import trees
from diffjax.encoders import foreign
from diffjax.evaluation.extractors import dinov2
from diffjax.evaluation.extractors import extractor as extractors
from diffjax.evaluation.extractors.open import open_extractor
from diffjax.models import dinov2 as model
from diffjax.models.dinov2 import L14, Dinov2
from tools.inputs import random_tensors

GOLDEN = Path(__file__).parents[2] / "golden" / "dinov2"
STORED = GOLDEN / "model.safetensors"


def answers():
    return load_file(GOLDEN / "answers.safetensors")


def as_transformers_does(found):
    """(config, parameters) of an extractor, with positions interpolated as transformers does."""
    config = dinov2.config_of(found.params, heads=2)
    return dataclasses.replace(config, offset=0.0), found.params


@pytest.mark.parametrize(
    ("name", "side"), [("same_grid", 84), ("smaller_grid", 56), ("larger_grid", 112)]
)
def test_the_class_token_equals_transformers(name, side):
    config, params = as_transformers_does(dinov2.load(GOLDEN))
    x = jnp.asarray(random_tensors.pictures(0)[:, :side, :side])
    found = jax.jit(Dinov2(config).apply)({"params": params}, x)
    np.testing.assert_allclose(found, answers()[name], atol=3e-5)


@pytest.mark.peers
@pytest.mark.parametrize("seed", [1, 2])
def test_the_class_token_equals_that_of_transformers(tmp_path, seed):
    pytest.importorskip("transformers")
    from tools.peers import dinov2_peers

    net = dinov2_peers.network(seed)
    net.save_pretrained(tmp_path)
    config, params = as_transformers_does(dinov2.load(tmp_path))
    x = random_tensors.pictures(seed)[:, :70, :70]
    found = jax.jit(Dinov2(config).apply)({"params": params}, jnp.asarray(x))
    np.testing.assert_allclose(found, dinov2_peers.answer(net, x), atol=3e-5)


@pytest.mark.parametrize("side", [4, 16])
def test_positions_are_interpolated_as_facebooks_code_does(side):
    grid = jnp.asarray(random_tensors.pictures(0)[0, :7, :7])
    found = model.interpolated(grid, side, 0.1)
    np.testing.assert_allclose(found, answers()[f"grid_of_{side}"], atol=1e-5)


def test_the_large_network_has_the_published_number_of_parameters():
    """Hugging Face's 304,368,640 without the 1,024 of the token that masks patches."""
    shapes = jax.eval_shape(Dinov2(L14).init, jax.random.key(0), jnp.zeros((1, 28, 28, 3)))
    assert trees.num_values(shapes) == 304_367_616


def facebooks():
    """The golden network's tensors by Facebook's names, written out by hand."""
    found = {}
    for name, tensor in load_file(STORED).items():
        name = re.sub(r"^encoder\.layer\.", "blocks.", name)
        name = name.replace("attention.output.dense", "attn.proj").replace("layernorm", "norm")
        name = re.sub(r"layer_scale(\d)\.lambda1", r"ls\1.gamma", name)
        name = name.replace("embeddings.patch_embeddings.projection", "patch_embed.proj")
        name = name.replace("embeddings.position_embeddings", "pos_embed")
        found[name.removeprefix("embeddings.")] = tensor
    for block in range(2):
        for kind in ("weight", "bias"):
            parts = [found.pop(f"blocks.{block}.attention.attention.{one}.{kind}")
                     for one in ("query", "key", "value")]  # fmt: skip
            found[f"blocks.{block}.attn.qkv.{kind}"] = np.concatenate(parts)
    return found


def test_facebooks_file_is_the_same_network_as_hugging_faces_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(foreign, "read_torch", lambda path: facebooks())
    file = tmp_path / "dinov2.pth"
    file.write_bytes(b"weights")
    ours, theirs = dinov2.load(file), dinov2.load(GOLDEN)
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
    assert ours.name == "dinov2 16 x 2, patch 14, class token, weights 9a129038d9a00aed"


def test_the_extractor_sees_pictures_of_any_size_at_224_px():
    found = open_extractor(f"dinov2:{GOLDEN}")
    assert (found.label, found.width, found.resize) == ("fd_dinov2", 16, "bicubic 224 px")
    assert re.fullmatch(r"dinov2 16 x 2, patch 14, class token, weights [0-9a-f]{16}", found.name)
    pictures = random_tensors.blocks(0, 2, 20, 30)
    config = dinov2.config_of(found.params, heads=2)
    want = jax.jit(Dinov2(config).apply)(
        {"params": found.params}, dinov2.prepared(jnp.asarray(pictures))
    )
    np.testing.assert_allclose(extractors.features(found, pictures, batch=2), want, atol=3e-5)


def test_pictures_are_resized_as_pillow_does_and_scaled_by_imagenets_numbers():
    picture = random_tensors.blocks(1, 1, 300, 260)
    resized = Image.fromarray(picture[0]).resize((224, 224), Image.Resampling.BICUBIC)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    want = (np.asarray(resized) / 255 - mean) / std
    found = np.asarray(dinov2.prepared(jnp.asarray(picture)))[0]
    # Pillow rounds to bytes twice, and a byte is 1 / 255 / 0.224 of these units
    np.testing.assert_allclose(found, want, atol=2 / 255 / 0.224)


def changed(folder, config=None, **tensors):
    shutil.copytree(GOLDEN, folder)
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(said | (config or {})))
    stored = load_file(STORED) | {name.replace("__", "."): x for name, x in tensors.items()}
    save_file({name: x for name, x in stored.items() if x is not None},
              folder / "model.safetensors")  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(config={"model_type": "vit"}), "'vit': want a 'dinov2'"),
        (dict(config={"use_swiglu_ffn": True}), "SwiGLU: want a 'dinov2' without SwiGLU"),
        (dict(config={"num_attention_heads": None}), "num_attention_heads = None"),
        (dict(layernorm__weight=None), r"norm/scale is missing, want \(16,\)"),
        (dict(embeddings__cls_token=np.zeros((1, 1, 15), np.float32)), "class_token is"),
        (dict(embeddings__register_tokens=np.zeros((1, 4, 16), np.float32)),
         "embeddings.register_tokens is not of a DINOv2 without registers"),
        (dict(embeddings__patch_embeddings__projection__weight=None), "not the weights of DINOv2"),
    ],
)  # fmt: skip
def test_a_folder_of_another_network_is_refused(tmp_path, change, said):
    folder = changed(tmp_path / "folder", **change)
    with pytest.raises(ValueError, match=said) as caught:
        open_extractor(f"dinov2:{folder}")
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def test_a_place_without_weights_is_refused(tmp_path):
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match=r"no config.json|no such file"):
            open_extractor(f"dinov2:{place}")
