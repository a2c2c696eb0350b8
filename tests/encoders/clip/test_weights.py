"""CLIPs of OpenAI, open_clip and Hugging Face: the same features, and what is refused."""

import functools
import os
import pickle
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffjax.core import trees
from diffjax.encoders import torch_archive
from diffjax.encoders.clip import weights
from diffjax.models.clip.clip import CLIP

GOLDEN = Path(__file__).parents[2] / "golden" / "clip"
# The forms of tests/golden/clip, and whose features each must have.
FORMS = {
    "hugging_face": "hugging_face",
    "open_clip": "open_clip",
    "open_clip_text": "open_clip_text",
    "openai.pt": "openai",
    "state.pt": "openai",
}


@functools.cache
def program(config):
    return jax.jit(CLIP(config).apply)


def features(path, image, tokens):
    config, params = weights.load(path)
    return program(config)({"params": params}, jnp.asarray(image), jnp.asarray(tokens, jnp.int32))


@pytest.mark.parametrize("form", FORMS)
def test_features_are_those_of_the_package_that_saved_the_weights(form):
    want = load_file(GOLDEN / "answers.safetensors")
    pair = features(GOLDEN / form, want["image"], want["tokens"])
    for part in ("image", "text"):
        np.testing.assert_allclose(getattr(pair, part), want[f"{FORMS[form]}/{part}"], atol=1e-5)
    assert float(pair.log_scale) == pytest.approx(2.0)


@pytest.mark.peers
@pytest.mark.parametrize("size", ["small", "tall", "wide"])
@pytest.mark.parametrize("form", ["hugging_face", "open_clip", "open_clip_text"])
def test_features_are_the_peers_at_three_sizes(tmp_path, size, form):
    from tools.peers import clip_peers

    sizes = clip_peers.SIZES[size]
    image, tokens = clip_peers.inputs(sizes)
    if form == "hugging_face":
        model = clip_peers.of_transformers(sizes)
        model.save_pretrained(tmp_path)
    else:
        custom = form == "open_clip_text"
        model = clip_peers.of_open_clip(sizes, quick_gelu=custom, custom_text=custom)
        clip_peers.save_open_clip(model, sizes, custom, tmp_path)
    config = weights.check(tmp_path)
    want = clip_peers.answers(model, clip_peers.as_pixels(image, config.mean, config.std), tokens)
    pair = features(tmp_path, image, tokens)
    for part in ("image", "text"):
        np.testing.assert_allclose(getattr(pair, part), want[part], atol=1e-5)


@pytest.mark.peers
def test_transformers_reads_what_is_saved(tmp_path):
    import transformers

    from tools.peers import clip_peers

    want = load_file(GOLDEN / "answers.safetensors")
    config, params = weights.load(GOLDEN / "open_clip_text")
    weights.save(tmp_path, config, params)
    model = transformers.CLIPModel.from_pretrained(tmp_path).eval()
    pixels = clip_peers.as_pixels(want["image"], config.mean, config.std)
    found = clip_peers.answers(model, pixels, want["tokens"])
    for part in ("image", "text"):
        np.testing.assert_allclose(found[part], want[f"open_clip_text/{part}"], atol=1e-5)


def test_what_is_saved_is_loaded_without_loss(tmp_path):
    config, params = weights.load(GOLDEN / "open_clip")
    weights.save(tmp_path, config, params)
    again, loaded = weights.load(tmp_path)
    assert again == config
    flat = trees.named_leaves(loaded)
    for name, leaf in trees.named_leaves(params).items():
        np.testing.assert_array_equal(flat[name], leaf)


def copied(folder, change):
    """The golden CLIP of Hugging Face with its tensors changed."""
    folder.mkdir()
    source = GOLDEN / "hugging_face"
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    found = load_file(source / "model.safetensors")
    change(found)
    save_file(found, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x.pop("logit_scale"), "tensor logit_scale is missing"),
        (lambda x: x.pop("visual_projection.weight"), "no tensor visual_projection.weight"),
        (lambda x: x.update(more=np.zeros(1)), r"tensors \['more'\] are not of a CLIP"),
        (
            lambda x: x.update({"text_model.final_layer_norm.bias": np.zeros(5)}),
            "final_layer_norm.bias has shape",
        ),
    ],
)
def test_other_tensors_are_refused_with_their_names(tmp_path, change, said):
    with pytest.raises(ValueError, match=said):
        weights.check(copied(tmp_path / "changed", change))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ('{"model_type": "t5"}', "model_type='t5', want 'clip'"),
        ('{"model_type": "clip", "vision_config": {"hidden_act": "relu"}}', "hidden_act"),
        ('{"model_type": "clip", "vision_config": {"num_attention_heads": -1}}', "vision heads"),
    ],
)
def test_configs_of_other_networks_are_refused(tmp_path, said, message):
    (tmp_path / "config.json").write_text(said)
    with pytest.raises(ValueError, match=message):
        weights.check(tmp_path)


def archive(file, root):
    """A zip with a pickle, as PyTorch writes it."""
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("x/data.pkl", pickle.dumps(root))
    return file


class Evil:
    """An object whose unpickling would run a command."""

    def __reduce__(self):
        return os.mkdir, ("must_not_exist",)


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = archive(tmp_path / "evil.pt", {"a": Evil()})
    with pytest.raises(ValueError, match="more than tensors in it"):
        torch_archive.read(file)
    assert not (tmp_path / "must_not_exist").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"PK\x03\x04" + bytes(100)])
def test_a_damaged_archive_is_refused_in_one_line(tmp_path, content):
    file = tmp_path / "x.pt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.pt: ") as error:
        torch_archive.read(file)
    assert "\n" not in str(error.value)


def test_a_tensor_that_leads_out_of_its_storage_is_refused():
    storage = np.arange(6, dtype=np.float32)
    rebuild = torch_archive.tensor_of
    np.testing.assert_array_equal(rebuild(storage, 1, (2, 2), (1, 2)), [[1, 3], [2, 4]])
    assert rebuild(storage, 3, (), ()).shape == ()
    for offset, size, stride in [
        (0, (7,), (1,)),
        (5, (2,), (1,)),
        (0, (2,), (-1,)),
        (-1, (1,), (1,)),
        (0, (10**6, 10**6), (0, 0)),
    ]:
        with pytest.raises(ValueError, match="a tensor"):
            rebuild(storage, offset, size, stride)
