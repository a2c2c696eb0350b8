"""Autoencoders of others: the same latents and pictures, the same tensors back, and refusals."""

import functools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffjax.core.trees import named_leaves
from diffjax.encoders.autoencoder import weights
from diffjax.encoders.autoencoder.names import OLD, source_of
from diffjax.models.autoencoder.network import Autoencoder, Sizes
from tests.models.parameters import anywhere
from tools.inputs import random_tensors

GOLDEN = Path(__file__).parents[1] / "golden/vae"
KINDS = ("AutoencoderKL", "VQModel")


def tensors_of(kind):
    shapes = json.loads((GOLDEN / kind / "shapes.json").read_text())
    return random_tensors.transformer(0, {name: tuple(s) for name, s in shapes.items()})


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    """A folder as diffusers saves it."""
    made = tmp_path_factory.mktemp(request.param)
    shutil.copy(GOLDEN / request.param / weights.CONFIG, made)
    save_file(tensors_of(request.param), made / weights.WEIGHTS)
    return made


def changed(folder, to, **config):
    """A copy of the folder whose config says something else."""
    shutil.copytree(folder, to, dirs_exist_ok=True)
    said = json.loads((folder / weights.CONFIG).read_text())
    (to / weights.CONFIG).write_text(json.dumps({**said, **config}))
    return to


def compare(net, loaded, x, wanted, rtol=1e-5):
    """Checks encoder and decoder against answers, relative to the largest number."""
    encode = jax.jit(lambda p, x: net.apply({"params": p}, x, method="encode"))
    encoded = encode(loaded.params, x)
    near(encoded, wanted["encoded"], rtol)
    z = encoded[..., : loaded.sizes.latent]
    if loaded.sizes.codes:
        z = jax.jit(lambda p, z: net.apply({"params": p}, z, method="quantise").vector)(
            loaded.params, z
        )
    decode = jax.jit(lambda p, z: net.apply({"params": p}, z, method="decode"))
    near(decode(loaded.params, z), wanted["decoded"], rtol)


def near(found, wanted, rtol):
    np.testing.assert_allclose(found, wanted, atol=rtol * np.abs(wanted).max(), rtol=0)


def test_latents_and_pictures_are_those_of_diffusers(folder):
    loaded = weights.load(folder)
    kind = "VQModel" if loaded.sizes.codes else "AutoencoderKL"
    wanted = load_file(GOLDEN / kind / "answers.safetensors")
    x = random_tensors.pictures(0)[:, :16, :16]
    compare(Autoencoder(loaded.sizes), loaded, x, wanted)
    assert loaded.scale == 0.18215


def test_what_is_loaded_is_saved_with_the_same_bytes(folder, tmp_path):
    loaded = weights.load(folder)
    weights.save(tmp_path, loaded)
    before, after = (load_file(place / weights.WEIGHTS) for place in (folder, tmp_path))
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    again = weights.load(tmp_path)
    assert (again.sizes, again.scale) == (loaded.sizes, loaded.scale)


@pytest.mark.slow
def test_patches_are_channels_of_the_stem_and_of_the_last_convolution(tmp_path):
    sizes = Sizes(channels=4, mults=(1, 2), num_blocks=1, latent=3, groups=2, patch=2)
    net, x = Autoencoder(sizes), np.asarray(random_tensors.pictures(0)[:1, :16, :16])
    params = anywhere(net, x=x)
    weights.save(tmp_path, weights.Loaded(sizes, params, 1.0))
    again = weights.load(tmp_path)
    assert again.sizes == sizes
    assert json.loads((tmp_path / weights.CONFIG).read_text())["_class_name"] not in KINDS
    # a convolution over patches sees the pixels of row p and column q as channels 3 (2 p + q) to +3
    split = x.reshape(1, 8, 2, 8, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(1, 8, 8, 12)
    stem = params["encoder"]["stem"]
    wanted = np.asarray(jax.lax.conv_general_dilated(
        split, stem["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ))  # fmt: skip
    seen = functools.partial(net.apply, capture_intermediates=True, mutable=["intermediates"])
    _, kept = jax.jit(seen)({"params": again.params}, x)
    (found,) = kept["intermediates"]["encoder"]["stem"]["__call__"]
    np.testing.assert_allclose(found, wanted + stem["bias"], atol=1e-5)
    (last,) = kept["intermediates"]["last"]["__call__"]
    (picture,) = kept["intermediates"]["__call__"]
    assert picture.shape == x.shape
    np.testing.assert_array_equal(picture[0, 1::2, 0::2], last[0, :, :, 6:9])


def test_the_part_of_a_single_file_is_found_and_its_sizes_follow_from_the_shapes(folder, tmp_path):
    loaded = weights.load(folder)
    num_levels, stored = len(loaded.sizes.mults), {}
    for ours, leaf in named_leaves(loaded.params).items():
        source = source_of("compvis", ours, num_levels)
        parts = np.split(source.theirs(leaf), len(source.names))
        stored |= {
            weights.PREFIX + name: part.copy()
            for name, part in zip(source.names, parts, strict=True)
        }
    assert any("mid.attn_1.q.weight" in name and x.ndim == 4 for name, x in stored.items())
    other = {"model.diffusion_model.out.weight": np.zeros(3, np.float32)}
    save_file({**stored, **other}, tmp_path / "whole.safetensors")
    found = weights.sizes_of_tensors(
        {name.removeprefix(weights.PREFIX): x.shape for name, x in stored.items()}, tmp_path
    )
    assert (found.channels, tuple(found.mults), found.num_blocks, found.latent, found.codes) == (
        loaded.sizes.channels, tuple(loaded.sizes.mults), loaded.sizes.num_blocks,
        loaded.sizes.latent, loaded.sizes.codes,
    )  # fmt: skip
    assert tuple(found.attention) == tuple(loaded.sizes.attention)
    again = weights.load(tmp_path / "whole.safetensors")
    same = jax.tree.map(np.array_equal, again.params, loaded.params)
    assert jax.tree.all(same)


def test_older_names_of_attention_are_known(folder, tmp_path):
    changed(folder, tmp_path)
    stored = load_file(tmp_path / weights.WEIGHTS)
    for old, new in OLD.items():
        stored = {name.replace(new, old): x for name, x in stored.items()}
    assert any(".proj_attn." in name for name in stored)
    save_file(stored, tmp_path / weights.WEIGHTS)
    same = jax.tree.map(np.array_equal, weights.load(tmp_path).params, weights.load(folder).params)
    assert jax.tree.all(same)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "want one of AutoencoderKL, VQModel"),
        ({"shift_factor": 0.1}, "shift_factor is 0.1, want None"),
        ({"block_out_channels": [32, 48]}, "down_block_types|multiples of the first"),
        ({"block_out_channels": "x"}, "want a list"),
        ({"layers_per_block": 10**9}, "layers_per_block is 1000000000, want a whole number"),
        ({"layers_per_block": 3}, "missing, want"),
        ({"latent_channels": 16}, "not this autoencoder"),
        ({"scaling_factor": 0}, "scaling_factor is 0"),
        ({"act_fn": "gelu"}, "act_fn is 'gelu'"),
    ],
)
def test_a_config_of_another_network_is_one_line(folder, tmp_path, config, said):
    with pytest.raises(ValueError, match=said) as caught:
        weights.load(changed(folder, tmp_path, **config))
    assert "\n" not in str(caught.value)


def test_what_is_no_autoencoder_is_one_line(folder, tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json"):
        weights.load(tmp_path)
    with pytest.raises(ValueError, match="no such file"):
        weights.load(tmp_path / "absent")
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="no autoencoder of latent diffusion's code"):
        weights.load(tmp_path / "x.safetensors")
    changed(folder, tmp_path)
    (tmp_path / weights.WEIGHTS).unlink()
    with pytest.raises(ValueError, match="download it too"):
        weights.load(tmp_path)
    stored = load_file(folder / weights.WEIGHTS)
    save_file({**stored, "more": np.zeros(1, np.float32)}, tmp_path / weights.WEIGHTS)
    with pytest.raises(ValueError, match="more is not of this autoencoder"):
        weights.load(tmp_path)


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_full_width_have_the_answers_of_diffusers(kind, tmp_path):
    from tools.peers import vae_peers

    widths = [128, 256] if kind == "AutoencoderKL" else [128, 128, 256]
    net = vae_peers.network(kind, block_out_channels=widths, norm_num_groups=32)
    net.save_pretrained(tmp_path)
    loaded, x = weights.load(tmp_path), vae_peers.pictures(32)
    compare(Autoencoder(loaded.sizes), loaded, x, vae_peers.answers(kind, net, x), 1e-4)
