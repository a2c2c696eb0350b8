"""ADM's forward pass in PyTorch, and small DDPMs of diffusers. Needs requirements-peers.txt.

The forward pass is written for these tests from the paper and from the names of the tensors, as
functions of a dictionary of tensors: it shares no code and no structure with diffjax's network.
"""

import math
from pathlib import Path
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from diffusers.pipelines.ddpm import pipeline_ddpm
from diffusers.schedulers import scheduling_ddpm

from tools.inputs import random_tensors
from tools.inputs.ancestors_inputs import Net

WIDTH, LEVELS, GROUPS = 32, (1, 2), 32
# As google/ddpm-cifar10-32, at reduced width.
UNET: dict[str, Any] = dict(
    sample_size=8, block_out_channels=[32, 64], layers_per_block=1,
    down_block_types=["DownBlock2D", "AttnDownBlock2D"],
    up_block_types=["AttnUpBlock2D", "UpBlock2D"], attention_head_dim=None, norm_eps=1e-6,
    downsample_padding=0, flip_sin_to_cos=False, freq_shift=1,
)  # fmt: skip

Weights = dict[str, torch.Tensor]


def shapes_of(net: Net) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of OpenAI's layout, with one block a level."""
    shapes: dict[str, tuple[int, ...]] = {}
    emb = 4 * WIDTH

    def affine(name: str, *kernel: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = kernel, (kernel[0],)

    def res(name: str, c: int, d: int) -> None:
        affine(f"{name}.in_layers.0", c)
        affine(f"{name}.in_layers.2", d, c, 3, 3)
        affine(f"{name}.emb_layers.1", d * (1 + net.scale_shift), emb)
        affine(f"{name}.out_layers.0", d)
        affine(f"{name}.out_layers.3", d, d, 3, 3)
        if c != d:
            affine(f"{name}.skip_connection", d, c, 1, 1)

    def attention(name: str, c: int) -> None:
        affine(f"{name}.norm", c)
        affine(f"{name}.qkv", 3 * c, c, 1)
        affine(f"{name}.proj_out", c, c, 1)

    affine("time_embed.0", emb, WIDTH)
    affine("time_embed.2", emb, emb)
    if net.classes:
        shapes["label_emb.weight"] = (net.classes, emb)
    first, second = (WIDTH * mult for mult in LEVELS)
    affine("input_blocks.0.0", first, net.inputs, 3, 3)
    res("input_blocks.1.0", first, first)
    if net.in_blocks:
        res("input_blocks.2.0", first, first)
        res("output_blocks.1.2", second, second)
    else:
        affine("input_blocks.2.0.op", first, first, 3, 3)
        affine("output_blocks.1.2.conv", second, second, 3, 3)
    res("input_blocks.3.0", first, second)
    attention("input_blocks.3.1", second)
    res("middle_block.0", second, second)
    attention("middle_block.1", second)
    res("middle_block.2", second, second)
    for n, (c, d) in enumerate([(second + second, second), (second + first, second),
                                (second + first, first), (first + first, first)]):  # fmt: skip
        res(f"output_blocks.{n}.0", c, d)
        if n < 2:
            attention(f"output_blocks.{n}.1", d)
    affine("out.0", first)
    affine("out.2", net.outputs, first, 3, 3)
    return shapes


def weights_of(net: Net) -> dict[str, np.ndarray]:
    """Random numbers for each of them."""
    return random_tensors.transformer(0, shapes_of(net))


def answer(net: Net, given: dict[str, np.ndarray]) -> np.ndarray:
    """What the network predicts [b h w c]."""
    weights = {name: torch.from_numpy(x) for name, x in weights_of(net).items()}
    x = torch.from_numpy(given["x"].transpose(0, 3, 1, 2).copy())
    if net.inputs == 6:
        small = torch.from_numpy(given["small"].transpose(0, 3, 1, 2).copy())
        x = torch.cat([x, F.interpolate(small, x.shape[2:], mode="bilinear")], 1)
    label = torch.from_numpy(given["label"]) if net.classes else None
    with torch.inference_mode():
        made = predict(weights, net, x, torch.from_numpy(given["step"]), label)
    return np.ascontiguousarray(made.numpy().transpose(0, 2, 3, 1))


def predict(
    w: Weights, net: Net, x: torch.Tensor, step: torch.Tensor, label: torch.Tensor | None
) -> torch.Tensor:
    """The network of ADM: [b c h w] -> [b c' h w]."""
    emb = embed(w, step, label)
    h = conv(w, "input_blocks.0.0", x)
    kept = [h]
    h = residual(w, net, "input_blocks.1.0", h, emb)
    kept.append(h)
    if net.in_blocks:
        h = residual(w, net, "input_blocks.2.0", h, emb, lambda y: F.avg_pool2d(y, 2))
    else:
        h = conv(w, "input_blocks.2.0.op", h, stride=2)
    kept.append(h)
    h = attend(w, net, "input_blocks.3.1", residual(w, net, "input_blocks.3.0", h, emb))
    kept.append(h)
    h = residual(w, net, "middle_block.0", h, emb)
    h = residual(w, net, "middle_block.2", attend(w, net, "middle_block.1", h), emb)
    for n in range(4):
        h = torch.cat([h, kept.pop()], 1)
        h = residual(w, net, f"output_blocks.{n}.0", h, emb)
        if n < 2:
            h = attend(w, net, f"output_blocks.{n}.1", h)
        if n == 1 and net.in_blocks:
            h = residual(w, net, "output_blocks.1.2", h, emb, doubled)
        elif n == 1:
            h = conv(w, "output_blocks.1.2.conv", doubled(h))
    return conv(w, "out.2", F.silu(norm(w, "out.0", h)))


def embed(w: Weights, step: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
    """The step's cosines and sines through two layers, and the class."""
    half = WIDTH // 2
    angles = step[:, None].float() * torch.exp(-math.log(10000) * torch.arange(half) / half)
    waves = torch.cat([torch.cos(angles), torch.sin(angles)], 1)
    h = F.silu(F.linear(waves, w["time_embed.0.weight"], w["time_embed.0.bias"]))
    h = F.linear(h, w["time_embed.2.weight"], w["time_embed.2.bias"])
    return h if label is None else h + w["label_emb.weight"][label]


def residual(w: Weights, net: Net, name: str, x, emb, move=lambda y: y):
    """A residual block, which may change the resolution of both its branches."""
    h = conv(w, f"{name}.in_layers.2", move(F.silu(norm(w, f"{name}.in_layers.0", x))))
    said = F.linear(F.silu(emb), w[f"{name}.emb_layers.1.weight"], w[f"{name}.emb_layers.1.bias"])
    said = said[:, :, None, None]
    if net.scale_shift:
        scale, shift = said[:, : h.shape[1]], said[:, h.shape[1] :]
        h = norm(w, f"{name}.out_layers.0", h) * (1 + scale) + shift
    else:
        h = norm(w, f"{name}.out_layers.0", h + said)
    h = conv(w, f"{name}.out_layers.3", F.silu(h))
    x = move(x)
    skip = f"{name}.skip_connection"
    if f"{skip}.weight" in w:
        x = F.conv2d(x, w[f"{skip}.weight"], w[f"{skip}.bias"])
    return x + h


def attend(w: Weights, net: Net, name: str, x: torch.Tensor) -> torch.Tensor:
    """Attention of pixels to each other, head by head."""
    b, c, height, width = x.shape
    heads = net.heads or c // 16
    flat = norm(w, f"{name}.norm", x).reshape(b, c, height * width)
    qkv = F.conv1d(flat, w[f"{name}.qkv.weight"], w[f"{name}.qkv.bias"])
    d, made = c // heads, []
    for i in range(heads):
        if net.split_first:
            parts = [qkv[:, j * c + i * d : j * c + (i + 1) * d] for j in range(3)]
        else:
            parts = [qkv[:, (3 * i + j) * d : (3 * i + j + 1) * d] for j in range(3)]
        query, key, value = parts
        seen = torch.softmax(query.transpose(1, 2) @ key / math.sqrt(d), -1)
        made.append(value @ seen.transpose(1, 2))
    out = F.conv1d(torch.cat(made, 1), w[f"{name}.proj_out.weight"], w[f"{name}.proj_out.bias"])
    return x + out.reshape(x.shape)


def norm(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """The norm of 32 groups of channels."""
    return F.group_norm(x, GROUPS, w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)


def conv(w: Weights, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """A 3 x 3 convolution with zeros around."""
    return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride, 1)


def doubled(x: torch.Tensor) -> torch.Tensor:
    """Each pixel four times."""
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def shapes_of_classifier(classes: int, side: int) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a classifier of pictures of this side: the way down of `Net`."""
    shapes = {
        name: shape
        for name, shape in shapes_of(Net(classes=0)).items()
        if not name.startswith(("output_blocks", "out."))
    }
    last, places = WIDTH * LEVELS[-1], (side // 2) ** 2 + 1
    shapes |= {f"out.0.{kind}": (last,) for kind in ("weight", "bias")}
    shapes["out.2.positional_embedding"] = (last, places)
    for name, width in (("qkv_proj", 3 * last), ("c_proj", classes)):
        shapes[f"out.2.{name}.weight"], shapes[f"out.2.{name}.bias"] = (width, last, 1), (width,)
    return shapes


def classified(given: dict[str, np.ndarray], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """A classifier's logits [b k], and the gradient [b h w c] of the labels' log-probabilities."""
    shapes = shapes_of_classifier(classes, given["x"].shape[1])
    w = {k: torch.from_numpy(x) for k, x in random_tensors.transformer(0, shapes).items()}
    x = torch.from_numpy(given["x"].transpose(0, 3, 1, 2).copy()).requires_grad_()
    label = torch.from_numpy(given["label"])
    logits = classify(w, x, torch.from_numpy(given["step"]))
    torch.log_softmax(logits, 1).gather(1, label[:, None]).sum().backward()
    assert x.grad is not None
    gradient = x.grad.numpy().transpose(0, 2, 3, 1)
    return np.ascontiguousarray(logits.detach().numpy()), np.ascontiguousarray(gradient)


def classify(w: Weights, x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """The classifier of ADM: [b c h w] -> logits [b k]."""
    net, emb = Net(classes=0), embed(w, step, None)
    h = residual(w, net, "input_blocks.1.0", conv(w, "input_blocks.0.0", x), emb)
    h = residual(w, net, "input_blocks.2.0", h, emb, lambda y: F.avg_pool2d(y, 2))
    h = attend(w, net, "input_blocks.3.1", residual(w, net, "input_blocks.3.0", h, emb))
    h = attend(w, net, "middle_block.1", residual(w, net, "middle_block.0", h, emb))
    h = F.silu(norm(w, "out.0", residual(w, net, "middle_block.2", h, emb))).flatten(2)
    h = torch.cat([h.mean(2, keepdim=True), h], 2) + w["out.2.positional_embedding"]
    qkv = F.conv1d(h, w["out.2.qkv_proj.weight"], w["out.2.qkv_proj.bias"])
    query, key, value = (part.unflatten(1, (-1, 16)) for part in qkv.chunk(3, 1))
    weight = torch.softmax(torch.einsum("bkdt,bkds->bkts", query, key) / 4, -1)
    seen = torch.einsum("bkts,bkds->bkdt", weight, value).flatten(1, 2)
    return F.conv1d(seen, w["out.2.c_proj.weight"], w["out.2.c_proj.bias"])[:, :, 0]


def pipeline(folder: Path, **sizes: Any) -> Any:
    """A DDPMPipeline with random weights, saved to a folder."""
    net = diffusers.UNet2DModel(**{**UNET, **sizes})
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    made = random_tensors.transformer(0, shapes)
    net.load_state_dict({name: torch.from_numpy(x) for name, x in made.items()})
    pipe = diffusers.DDPMPipeline(net.eval(), diffusers.DDPMScheduler(variance_type="fixed_large"))
    pipe.save_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def predicted(pipe: Any, given: dict[str, np.ndarray]) -> np.ndarray:
    """What its U-Net predicts [b h w c]."""
    x = torch.from_numpy(given["x"].transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        made = pipe.unet(x, torch.from_numpy(given["step"])).sample
    return np.ascontiguousarray(made.numpy().transpose(0, 2, 3, 1))


def drawn(pipe: Any, x_T: np.ndarray, noises: np.ndarray) -> np.ndarray:
    """The picture [b h w c] in [0, 1] of the pipeline from this noise, one for each step."""
    left = [torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in (x_T, *noises)]
    draw = lambda *args, **kwargs: left.pop(0)  # noqa: E731
    with (
        mock.patch.object(pipeline_ddpm, "randn_tensor", draw),
        mock.patch.object(scheduling_ddpm, "randn_tensor", draw),
    ):
        made = pipe(num_inference_steps=len(noises), output_type="np").images
    return np.ascontiguousarray(made)
