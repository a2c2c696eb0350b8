"""Small DDPMs of others: their weights, files of PyTorch written without it, and our networks."""

import json
import pickle
import struct
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from diffjax.diffusion import table
from diffjax.models.unet import UNet
from tools.inputs import random_tensors
from tools.inputs.ancestors_inputs import NETS

GOLDEN = Path(__file__).parents[2] / "golden/ancestors"
LOGSNRS = table.logsnr_table(table.linear_betas())


def weights(name):
    """The random tensors of a network of NETS, or of "diffusers"."""
    shapes = json.loads((GOLDEN / "shapes.json").read_text())[name]
    return random_tensors.transformer(0, {key: tuple(shape) for key, shape in shapes.items()})


def answers():
    """What the others make of the inputs."""
    return load_file(GOLDEN / "answers.safetensors")


def network(name):
    """Our network for one of NETS."""
    net = NETS[name]
    return UNet(
        width=32, mults=(1, 2), num_blocks=1, attention_levels=(1,), num_heads=net.heads,
        head_width=0 if net.heads else 16, num_classes=net.classes, null_class=False,
        out_channels=net.outputs, norm_groups=32, scale_shift=net.scale_shift, attention_bias=True,
        heads_first=not net.split_first, resample="block" if net.in_blocks else "conv",
        steps=table.steps_of(LOGSNRS),
    )  # fmt: skip


def told(name, given):
    """What it is told beside x_t and the level."""
    net, made = NETS[name], {}
    if net.classes:
        made["label"] = jnp.asarray(given["label"], jnp.int32)
    if net.inputs == 6:
        small = given["small"]
        shape = (len(small), 2 * small.shape[1], 2 * small.shape[2], 3)
        made["low_res"] = jax.image.resize(jnp.asarray(small), shape, "linear")
    return made


def shapes_of(model, made):
    """The shapes of our network's parameters."""
    x = jnp.zeros((2, 8, 8, 3))
    return jax.eval_shape(model.init, jax.random.key(0), x, jnp.zeros(2), **made)["params"]


def write_pt(path, tensors):
    """A file as PyTorch's, its pickle written opcode by opcode."""

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def ints(values):
        return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"

    parts = [b"\x80\x02ccollections\nOrderedDict\n)R("]
    for key, (name, x) in enumerate(tensors.items()):
        strides = [int(np.prod(x.shape[i + 1 :])) for i in range(x.ndim)]
        storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(str(key))
        storage += text("cpu") + b"J" + struct.pack("<i", x.size) + b"tQ"
        arguments = b"(" + storage + b"J" + struct.pack("<i", 0) + ints(x.shape) + ints(strides)
        arguments += b"\x89ccollections\nOrderedDict\n)Rt"
        parts.append(text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"".join(parts) + b"u.")
        for key, x in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{key}", x.astype("<f4").tobytes())
    return path


def folder(to, **said):
    """The small pipeline as diffusers saves it; said: other values of the network's config."""
    for name in ("unet/config.json", "scheduler/scheduler_config.json", "model_index.json"):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes((GOLDEN / name.rpartition("/")[2]).read_bytes())
    config = {**json.loads((to / "unet/config.json").read_text()), **said}
    (to / "unet/config.json").write_text(json.dumps(config))
    save_file(weights("diffusers"), to / "unet/diffusion_pytorch_model.safetensors")
    return to


def config_file(path, name):
    """A config of a network of NETS, as a person writes it."""
    net = NETS[name]
    path.write_text(f"""
from configs import adm, pieces

def get_config():
    config = adm.get_config("tiny_upsampler" if {net.inputs} == 6 else "tiny")
    del config.classes
    if {net.classes}:
        config.classes = pieces.classes({net.classes})
        config.classes.drop = 0.0
    config.model.update(
        width=32, mults=(1, 2), num_blocks=1, attention_levels=(1,), num_heads={net.heads},
        head_width={0 if net.heads else 16}, null_class=False, norm_groups=32,
        scale_shift={net.scale_shift}, heads_first={not net.split_first},
        resample={"block" if net.in_blocks else "conv"!r},
    )
    config.diffusion.update(
        objective={"hybrid" if net.outputs == 6 else "simple"!r}, schedule="linear",
        num_levels=1000,
    )
    if {net.outputs} == 3:
        config.sample.sampler = "ddpm"
    return config
""")
    return path


def pickled(path):
    """A file that would run code."""
    path.write_bytes(pickle.dumps({"a": print}))
    return path
