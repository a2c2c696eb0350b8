"""Stable Diffusions of others: the same answers, the same tensors back, and refusals in a line."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffjax.diffusion import table
from diffjax.encoders.stable_diffusion import checkpoint, encoder, tokens
from tests.encoders.stable_diffusion import made
from tools.inputs import sd_inputs

PROMPTS = [sd_inputs.PROMPT, "", sd_inputs.NEGATIVE]
LOGSNRS = table.logsnr_table(table.quadratic_betas())


@pytest.fixture(scope="module", params=["sd1", "sd2"])
def saved(request, tmp_path_factory):
    """(version, its folder as diffusers saves it)."""
    return request.param, made.folder(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def sd1(tmp_path_factory):
    return made.folder("sd1", tmp_path_factory.mktemp("sd1"))


@pytest.fixture
def emoji(monkeypatch):
    """Single files have no vocabulary; the small ones have the emoji's, and not OpenAI's."""
    known = checkpoint.vocabulary.load("emoji")
    monkeypatch.setattr(checkpoint.vocabulary, "load", lambda name: known)


def test_the_network_predicts_what_that_of_diffusers_does(saved):
    version, folder = saved
    one = checkpoint.load(folder)
    net, given = (
        one.unet.model.clone(steps=table.steps_of(LOGSNRS)),
        sd_inputs.of_unet(one.unet.text),
    )
    levels = jnp.asarray(LOGSNRS[given["step"]], jnp.float32)
    run = jax.jit(lambda p, x, levels, text: net.apply({"params": p}, x, levels, text))
    found = run(one.unet.params, given["x"], levels, given["text"])
    made.near(found, made.answers(version)["predicted"])


def test_texts_have_the_ids_and_the_states_of_transformers(saved):
    version, folder = saved
    texts = encoder.text_encoder(checkpoint.load(folder), "it", jnp.float32)
    wanted = made.answers(version)
    ids, mask = texts.tokenize(PROMPTS, 77)
    np.testing.assert_array_equal(ids, wanted["ids"])
    assert mask.all()
    states, _ = texts.encode(PROMPTS, 77)
    made.near(states[:, np.array([0, 1, 2, 8, 76])], wanted["states"])


def test_what_is_loaded_is_saved_with_the_same_bytes(saved, tmp_path):
    _, folder = saved
    checkpoint.save(tmp_path, checkpoint.load(folder))
    for name in (made.UNET, made.VAE, made.TEXT):
        assert made.same(folder / name, tmp_path / name), name
    for name in ("unet/config.json", "scheduler/scheduler_config.json"):
        assert json.loads((folder / name).read_text()) == json.loads((tmp_path / name).read_text())
    again = checkpoint.load(tmp_path)
    assert again.tokens == checkpoint.load(folder).tokens


def test_a_single_file_of_version_1_holds_the_same_and_is_saved_with_the_same_bytes(
    sd1, tmp_path, emoji
):
    one = checkpoint.load(sd1)
    checkpoint.save_single(tmp_path / "one.safetensors", one)
    stored = load_file(tmp_path / "one.safetensors")
    assert stored["model.diffusion_model.middle_block.1.proj_in.weight"].ndim == 4
    assert "model.diffusion_model.output_blocks.1.1.conv.weight" in stored
    first = "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
    assert first in stored
    assert "first_stage_model.decoder.up.1.upsample.conv.weight" in stored
    stored["betas"] = np.zeros(3, np.float32)  # beside the networks; kept
    save_file(stored, tmp_path / "one.safetensors")
    again = checkpoint.load(tmp_path / "one.safetensors")
    for was, now in ((one.unet, again.unet), (one.autoencoder, again.autoencoder)):
        assert jax.tree.all(jax.tree.map(np.array_equal, was.params, now.params))
    assert jax.tree.all(jax.tree.map(np.array_equal, one.text.params, again.text.params))
    assert again.unet.model.clone(num_heads=8) == one.unet.model
    checkpoint.save_single(tmp_path / "two.safetensors", again)
    assert made.same(tmp_path / "one.safetensors", tmp_path / "two.safetensors")


def test_a_single_file_of_version_2_keeps_the_layer_that_is_not_read(saved, tmp_path, emoji):
    version, folder = saved
    if version != "sd2":
        pytest.skip("of version 2")
    one = checkpoint.load(folder)
    whole = one.text._replace(layout="open_clip")
    checkpoint.save_single(tmp_path / "short.safetensors", one._replace(text=whole))
    stored = load_file(tmp_path / "short.safetensors")
    block = "cond_stage_model.model.transformer.resblocks."
    last = {k: 2 * x for k, x in stored.items() if k.startswith(f"{block}1.")}
    stored |= {k.replace(f"{block}1.", f"{block}2."): x for k, x in last.items()}
    stored["cond_stage_model.model.text_projection"] = np.eye(32, dtype=np.float32)
    save_file(stored, tmp_path / "two.safetensors")
    again = checkpoint.load(tmp_path / "two.safetensors")
    assert (again.text.model.skip, again.scheduler.predict, again.tokens.pad) == (1, "v", 0)
    assert jax.tree.all(jax.tree.map(np.array_equal, one.text.params, again.text.params))
    checkpoint.save_single(tmp_path / "again.safetensors", again)
    assert made.same(tmp_path / "two.safetensors", tmp_path / "again.safetensors")
    (tmp_path / "two.yaml").write_text("model:\n  params:\n    linear_start: 0.00085\n")
    assert checkpoint.load(tmp_path / "two.safetensors").scheduler.predict == "eps"


def test_half_precision_is_kept_and_shards_are_joined(sd1, tmp_path):
    shutil.copytree(sd1, tmp_path / "a")
    half = {name: x.astype(np.float16) for name, x in load_file(sd1 / made.UNET).items()}
    names = sorted(half)
    parts = {f"p-{i}.safetensors": names[i::2] for i in range(2)}
    for file, some in parts.items():
        save_file({name: half[name] for name in some}, tmp_path / "a/unet" / file)
    index = {"weight_map": {name: file for file, some in parts.items() for name in some}}
    (tmp_path / "a" / made.UNET).unlink()
    (tmp_path / "a" / f"{made.UNET}.index.json").write_text(json.dumps(index))
    checkpoint.save(tmp_path / "b", checkpoint.load(tmp_path / "a"))
    found = load_file(tmp_path / "b" / made.UNET)
    assert all(found[name].tobytes() == x.tobytes() for name, x in half.items())
    (tmp_path / "a/unet/p-1.safetensors").unlink()
    with pytest.raises(ValueError, match=r"p-1\.safetensors: named by .* but missing"):
        checkpoint.load(tmp_path / "a")


@pytest.mark.parametrize(
    ("file", "config", "said"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "Diffusion XL"),
        ("model_index.json", {"_class_name": "FluxPipeline"}, "'FluxPipeline', want"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "is Stable Diffusion XL"),
        ("unet/config.json", {"in_channels": 9}, "it is the version for inpainting"),
        ("unet/config.json", {"block_out_channels": [32, 48]}, "want multiples of the first"),
        ("unet/config.json", {"block_out_channels": [2**20] * 2}, "not this U-Net|no network"),
        ("unet/config.json", {"layers_per_block": 10**6}, "fewer than such a U-Net has"),
        ("unet/config.json", {"layers_per_block": 2}, "missing, want"),
        ("unet/config.json", {"norm_num_groups": 7}, "sizes that make no network"),
        ("unet/config.json", {"cross_attention_dim": 32}, "want .* not this U-Net"),
        ("unet/config.json", {"act_fn": "gelu"}, "act_fn is 'gelu', want 'silu'"),
        ("vae/config.json", {"scaling_factor": 0.13025}, "scaling_factor .* is 0.13025"),
        ("text_encoder/config.json", {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ("text_encoder/config.json", {"num_hidden_layers": 2**19}, "524288 layers"),
        ("scheduler/scheduler_config.json", {"beta_end": 2.0}, "beta_end is 2.0"),
        ("scheduler/scheduler_config.json", {"prediction_type": "x"}, "want one of epsilon"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 50}, "is 50, want 1000"),
        ("tokenizer/tokenizer_config.json", {"pad_token": "<pad>"}, "pad_token '<pad>' is not"),
    ],
)
def test_a_folder_of_something_else_is_one_line(sd1, tmp_path, file, config, said):
    with pytest.raises(ValueError, match=said) as caught:
        checkpoint.load(made.changed(sd1, tmp_path, file, **config))
    assert "\n" not in str(caught.value)


def test_nan_missing_parts_pickles_and_parts_of_another_version_are_one_line(sd1, tmp_path):
    def refused(match):
        with pytest.raises(ValueError, match=match) as caught:
            checkpoint.load(tmp_path / "a")
        assert "\n" not in str(caught.value)

    shutil.copytree(sd1, tmp_path / "a")
    stored = load_file(sd1 / made.UNET)
    stored["conv_in.bias"][1] = np.nan
    save_file(stored, tmp_path / "a" / made.UNET)
    refused(r"conv_in\.bias holds NaN")
    (tmp_path / "a" / made.UNET).rename(tmp_path / "a/unet/diffusion_pytorch_model.bin")
    refused(r"diffusion_pytorch_model\.bin is a pickle")
    shutil.copytree(made.folder("sd2", tmp_path / "b") / "unet", tmp_path / "c")
    shutil.rmtree(tmp_path / "a/unet")
    shutil.copytree(tmp_path / "c", tmp_path / "a/unet")
    refused("reads texts of width 32, its text encoder gives 24")
    shutil.rmtree(tmp_path / "a/tokenizer")
    refused("download the tokenizer too")


def test_a_single_file_of_something_else_is_one_line(tmp_path):
    file = tmp_path / "x.safetensors"
    for name, said in (
        ("conditioner.embedders.0.x", "is Stable Diffusion XL"),
        ("first_stage_model.x", "no U-Net of Stable Diffusion is in it"),
    ):
        save_file({name: np.zeros(3, np.float32)}, file)
        with pytest.raises(ValueError, match=said):
            checkpoint.load(file)
    file.write_bytes(b"\x80\x02}q\x00(X\x05" + bytes(40))
    with pytest.raises(ValueError, match="pickle"):
        checkpoint.load(file)


def test_a_tokenizer_json_alone_is_enough(sd1, tmp_path):
    units = json.loads((sd1 / "tokenizer/vocab.json").read_text())
    lines = (sd1 / "tokenizer/merges.txt").read_text().splitlines()[1:]
    pairs = [line.split() for line in lines if line]
    whole = {"model": {"type": "BPE", "vocab": units, "merges": pairs}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": {"content": "!"}}')
    found = tokens.load(tmp_path)
    assert found.tokens == tokens.load(sd1 / "tokenizer").tokens
    assert (found.pad, len(found.ids("a red apple", 77))) == (0, 77)
    whole["model"]["vocab"] = {**units, "a": 5, "b": 3}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    with pytest.raises(ValueError, match="its ids are not those"):
        tokens.load(tmp_path)


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("version", ["sd1", "sd2"])
def test_blocks_of_full_width_have_the_answers_of_diffusers(version, tmp_path):
    from tools.peers import sd_peers

    sizes = {
        "sd1": dict(block_out_channels=[320], attention_head_dim=8, cross_attention_dim=768),
        "sd2": dict(block_out_channels=[320], attention_head_dim=[5], cross_attention_dim=1024),
    }[version]
    net = sd_peers.unet(
        version, down_block_types=["CrossAttnDownBlock2D"], up_block_types=["CrossAttnUpBlock2D"],
        **sizes,
    )  # fmt: skip
    net.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    stored = checkpoint.tensors.open_safetensors(tmp_path, checkpoint.autoencoder.WEIGHTS)
    one = checkpoint.unet.of_config(json.loads(file.read_text()), stored, file, tmp_path)
    given = sd_inputs.of_unet(one.text, 16, 77)
    model = one.model.clone(steps=table.steps_of(LOGSNRS))
    levels = jnp.asarray(LOGSNRS[given["step"]], jnp.float32)
    found = jax.jit(model.apply)({"params": one.params}, given["x"], levels, given["text"])
    made.near(found, sd_peers.predicted(net, given), 1e-4)
