"""GLIDE's forward pass in PyTorch, written for these tests. Needs requirements-peers.txt.

It follows the paper and the names and shapes of the tensors, as functions of a dictionary of
tensors, and shares no code with diffjax's network.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from tools import ancestors_peers, random_tensors
from tools.ancestors_inputs import Net
from tools.ancestors_peers import Weights, conv, embed, norm, residual
from tools.glide_inputs import HEADS, LAYERS, PLACES, VOCABULARY, WIDTH


def shapes_of(net: Net) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of the released layout, with one block a level."""
    shapes = ancestors_peers.shapes_of(net)
    for name in [one for one in shapes if one.endswith(".qkv.weight")]:
        stem, channels = name.removesuffix(".qkv.weight"), shapes[name][1]
        shapes[f"{stem}.encoder_kv.weight"] = (2 * channels, WIDTH, 1)
        shapes[f"{stem}.encoder_kv.bias"] = (2 * channels,)
    shapes["token_embedding.weight"] = (VOCABULARY, WIDTH)
    shapes["positional_embedding"] = shapes["padding_embedding"] = (PLACES, WIDTH)
    affine = {"final_ln": (WIDTH,), "transformer_proj": (shapes["time_embed.2.bias"][0], WIDTH)}
    for i in range(LAYERS):
        stem = f"transformer.resblocks.{i}"
        affine |= {
            f"{stem}.ln_1": (WIDTH,),
            f"{stem}.ln_2": (WIDTH,),
            f"{stem}.attn.c_qkv": (3 * WIDTH, WIDTH),
            f"{stem}.attn.c_proj": (WIDTH, WIDTH),
            f"{stem}.mlp.c_fc": (4 * WIDTH, WIDTH),
            f"{stem}.mlp.c_proj": (WIDTH, 4 * WIDTH),
        }
    for name, kernel in affine.items():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = kernel, (kernel[0],)
    return shapes


def answer(net: Net, given: dict[str, np.ndarray]) -> np.ndarray:
    """What the network predicts [b h w c]."""
    made = random_tensors.transformer(0, shapes_of(net))
    w = {name: torch.from_numpy(x) for name, x in made.items()}
    inputs = [picture(given["x"])]
    if net.inputs in (7, 10):
        known = 1 - picture(given["hole"].astype(np.float32))
        inputs += [picture(given["picture"]) * known, known]
    if net.inputs in (6, 10):
        sides = given["x"].shape[1:3]
        inputs.append(F.interpolate(picture(given["small"]), sides, mode="bilinear"))
    tokens = torch.from_numpy(given["tokens"])
    with torch.inference_mode():
        made = predict(w, net, torch.cat(inputs, 1), torch.from_numpy(given["step"]), tokens)
    return np.ascontiguousarray(made.numpy().transpose(0, 2, 3, 1))


def picture(x: np.ndarray) -> torch.Tensor:
    """[b h w c] -> [b c h w]."""
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def predict(
    w: Weights, net: Net, x: torch.Tensor, step: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """GLIDE's network: [b c h w] -> [b c' h w]."""
    text = read(w, tokens)
    emb = embed(w, step, None) + linear(w, "transformer_proj", text[:, -1])
    h = conv(w, "input_blocks.0.0", x)
    kept = [h]
    h = residual(w, net, "input_blocks.1.0", h, emb)
    kept.append(h)
    h = residual(w, net, "input_blocks.2.0", h, emb, lambda y: F.avg_pool2d(y, 2))
    kept.append(h)
    h = attend(w, "input_blocks.3.1", residual(w, net, "input_blocks.3.0", h, emb), text)
    kept.append(h)
    h = attend(w, "middle_block.1", residual(w, net, "middle_block.0", h, emb), text)
    h = residual(w, net, "middle_block.2", h, emb)
    for n in range(4):
        h = residual(w, net, f"output_blocks.{n}.0", torch.cat([h, kept.pop()], 1), emb)
        if n < 2:
            h = attend(w, f"output_blocks.{n}.1", h, text)
        if n == 1:
            h = residual(w, net, "output_blocks.1.2", h, emb, ancestors_peers.doubled)
    return conv(w, "out.2", F.silu(norm(w, "out.0", h)))


def read(w: Weights, tokens: torch.Tensor) -> torch.Tensor:
    """The states [b l d] of the text transformer; a place without a token has its own vector."""
    there = tokens >= 0
    h = w["token_embedding.weight"][tokens.clamp(min=0)] + w["positional_embedding"]
    h = torch.where(there[..., None], h, w["padding_embedding"])
    for i in range(LAYERS):
        stem = f"transformer.resblocks.{i}"
        qkv = linear(w, f"{stem}.attn.c_qkv", layer_norm(w, f"{stem}.ln_1", h))
        made, d = [], WIDTH // HEADS
        for head in range(HEADS):  # the outputs of a head lie side by side
            query, key, value = qkv[..., 3 * d * head : 3 * d * (head + 1)].split(d, -1)
            made.append(torch.softmax(query @ key.transpose(1, 2) / math.sqrt(d), -1) @ value)
        h = h + linear(w, f"{stem}.attn.c_proj", torch.cat(made, -1))
        r = F.gelu(linear(w, f"{stem}.mlp.c_fc", layer_norm(w, f"{stem}.ln_2", h)))
        h = h + linear(w, f"{stem}.mlp.c_proj", r)
    return layer_norm(w, "final_ln", h)


def attend(w: Weights, name: str, x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Attention of pixels to each other and to the text, head by head."""
    b, c, height, width = x.shape
    flat = norm(w, f"{name}.norm", x).reshape(b, c, height * width)
    qkv = F.conv1d(flat, w[f"{name}.qkv.weight"], w[f"{name}.qkv.bias"])
    told = F.conv1d(
        text.transpose(1, 2), w[f"{name}.encoder_kv.weight"], w[f"{name}.encoder_kv.bias"]
    )
    d, made = 16, []
    for i in range(c // d):
        query, key, value = qkv[:, 3 * d * i : 3 * d * (i + 1)].split(d, 1)
        text_key, text_value = told[:, 2 * d * i : 2 * d * (i + 1)].split(d, 1)
        key, value = torch.cat([text_key, key], 2), torch.cat([text_value, value], 2)
        seen = torch.softmax(query.transpose(1, 2) @ key / math.sqrt(d), -1)
        made.append(value @ seen.transpose(1, 2))
    out = F.conv1d(torch.cat(made, 1), w[f"{name}.proj_out.weight"], w[f"{name}.proj_out.bias"])
    return x + out.reshape(x.shape)


def linear(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """A dense layer."""
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def layer_norm(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """The norm of the last axis."""
    return F.layer_norm(x, (WIDTH,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)
