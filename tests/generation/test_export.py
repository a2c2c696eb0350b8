"""A cascade as one program: it gives the cascade's pictures, also where this code is not."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffjax.generation import chain, export
from diffjax.generation.chain import TrainedStage
from diffjax.images import pixels
from diffjax.models.efficient_unet import EfficientUNet
from diffjax.models.unet import UNet
from diffjax.tasks.conditions import LowRes, Text
from diffjax.tasks.denoising import Denoising
from diffjax.tasks.settings import SampleSettings

TOKENS, WIDTH = 4, 8


def trained(name, model, size_px, *conditions, **settings):
    """A stage with random parameters; their head is not zero, so that they paint something."""
    task = Denoising(name, model, (size_px, size_px, 3), (Text(WIDTH, TOKENS), *conditions))
    params = jax.jit(task.init)(jax.random.key(1))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    leaves = [x + 0.05 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    params = jax.tree.unflatten(structure, leaves)
    return TrainedStage(task, params, SampleSettings(num_steps=2, **settings))


@pytest.fixture(scope="module")
def stages():
    common = dict(width=8, mults=(1,), token_width=8, head_width=8)
    base = UNet(num_blocks=1, attention_levels=(0,), **common)
    large = EfficientUNet(num_blocks=(1,), attention="cross", **common)
    return [trained("base", base, 8, guidance_weight=2.0), trained("sr", large, 16, LowRes(8, 2))]


@pytest.fixture(scope="module")
def folder(stages, tmp_path_factory):
    path = tmp_path_factory.mktemp("serve")
    export.save(path, stages, {"name": "none"}, batch=2)
    return path


def given():
    text = jax.random.normal(jax.random.key(3), (2, TOKENS, WIDTH))
    return text, jnp.array([[True] * 4, [True, True, False, False]]), jnp.array([5, 6], jnp.int32)


@pytest.mark.slow
def test_the_program_gives_the_cascades_pictures(stages, folder):
    text, mask, seeds = given()
    graph = jax.export.deserialize(bytearray((folder / export.GRAPH).read_bytes()))
    made = np.asarray(graph.call(load_file(folder / export.PARAMS), text, mask, seeds), int)
    *_, last = chain.generate(stages, chain.prompt_columns(text, mask), seeds=seeds)
    want = np.asarray(pixels.to_uint8(last), int)
    assert made.shape == want.shape == (2, 16, 16, 3)
    assert want.std() > 5
    assert np.abs(made - want).max() <= 1
    card = json.loads((folder / export.CARD).read_text())
    assert card["pictures"] == [2, 16, 16, 3]
    assert card["text"] == [2, TOKENS, WIDTH]
    assert card["stages"]["base"]["guidance_weight"] == 2.0
    with pytest.raises(ValueError, match="shape"):
        graph.call(load_file(folder / export.PARAMS), text[:1], mask[:1], seeds[:1])


@pytest.mark.slow
def test_the_program_needs_jax_and_safetensors_alone(stages, folder, tmp_path):
    names = ("text", "mask", "seeds")
    arrays = dict(zip(names, map(np.asarray, given()), strict=True))
    save_file(arrays, tmp_path / "given.safetensors")
    code = (
        "import sys, jax, numpy as np\n"
        "from pathlib import Path\n"
        "from safetensors.numpy import load_file, save_file\n"
        f"folder, own = Path({str(folder)!r}), Path({str(tmp_path)!r})\n"
        "graph = jax.export.deserialize(bytearray((folder / 'graph.bin').read_bytes()))\n"
        "given = load_file(own / 'given.safetensors')\n"
        "made = graph.call(load_file(folder / 'params.safetensors'), given['text'], "
        "given['mask'], given['seeds'])\n"
        "save_file({'made': np.asarray(made)}, own / 'made.safetensors')\n"
        "print([m for m in sys.modules if m.startswith(('diffjax', 'flax'))])\n"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert run.stdout.strip() == "[]"
    text, mask, seeds = given()
    *_, last = chain.generate(stages, chain.prompt_columns(text, mask), seeds=seeds)
    made = load_file(tmp_path / "made.safetensors")["made"].astype(int)
    assert np.abs(made - np.asarray(pixels.to_uint8(last), int)).max() <= 1


@pytest.mark.slow
def test_one_program_serves_several_kinds_of_device(stages):
    graph = export.exported(stages[:1], platforms=("cpu", "cuda", "tpu"))
    assert set(graph.platforms) == {"cpu", "cuda", "tpu"}
