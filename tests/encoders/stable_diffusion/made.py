"""Small Stable Diffusions as diffusers saves them, from the golden configs and random weights."""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from tools.inputs import random_tensors, sd_inputs

GOLDEN = Path(__file__).parents[2] / "golden/stable_diffusion"
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


def folder(version, to):
    """A folder of diffusers of a version, "sd1" or "sd2"."""
    shutil.copytree(GOLDEN / version, to, dirs_exist_ok=True)
    shapes = json.loads((to / "shapes.json").read_text())
    for name, of in shapes.items():
        seed = sd_inputs.SEEDS.get(name.split("/")[0], 0)
        save_file(random_tensors.transformer(seed, {k: tuple(s) for k, s in of.items()}), to / name)
    sd_inputs.write_vocabulary(to / "tokenizer")
    return to


def answers(version):
    """What diffusers makes of it."""
    return load_file(GOLDEN / version / "answers.safetensors")


def changed(where, to, file, **said):
    """A copy whose JSON file says something else; None takes a key away."""
    shutil.copytree(where, to, dirs_exist_ok=True)
    config = {**json.loads((where / file).read_text()), **said}
    (to / file).write_text(json.dumps(config))
    return to


def same(a, b):
    """Whether two files have the same tensors, byte for byte."""
    a, b = load_file(a), load_file(b)
    alike = lambda x, y: x.shape == y.shape and x.tobytes() == y.tobytes()  # noqa: E731
    return a.keys() == b.keys() and all(alike(a[name], b[name]) for name in a)


def near(found, wanted, rtol=3e-5):
    """Checks numbers, relative to the largest."""
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(found, wanted, atol=rtol * np.abs(wanted).max(), rtol=0)
