"""GLIDE's forward passes in PyTorch, written for these tests. Needs requirements-peers.txt.

They follow the paper and the names and shapes of the tensors, as functions of a dictionary of
tensors, and share no code with diffjax's network.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from tools.inputs import random_tensors
from tools.inputs.ancestors_inputs import Net
from tools.inputs.glide_inputs import HEADS, LAYERS, PLACES, VOCABULARY, WIDTH, NoisedCLIP
from tools.peers import ancestors_peers
from tools.peers.ancestors_peers import Weights, conv, embed, norm, residual


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


def shapes_of_clip(net: NoisedCLIP) -> dict[str, dict[str, tuple[int, ...]]]:
    """The shape of each tensor of the two files of the noised CLIP."""

    def blocks(width: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for i in range(net.layers):
            stem = f"blocks.block_{i}"
            for layer in ("f_attn.ln", "f_mlp.ln"):
                shapes |= {f"{stem}.{layer}.{one}": (width,) for one in "gb"}
            for name, sides in (("f_attn.f_q", (width, width)), ("f_attn.f_k", (width, width)),
                                ("f_attn.f_v", (width, width)), ("f_attn.f_c", (width, width)),
                                ("f_mlp.f_1", (4 * width, width)),
                                ("f_mlp.f_2", (width, 4 * width))):  # fmt: skip
                shapes[f"{stem}.{name}.w"] = sides
                if name != "f_attn.f_k":
                    shapes[f"{stem}.{name}.b"] = sides[:1]
        shapes |= {f"blocks.output.ln.{one}": (width,) for one in "gb"}
        return shapes | {"blocks.output.f.w": (net.embed, width)}

    image, text = net.image_width, net.text_width
    places = (net.side // net.patch) ** 2 + 1
    return {
        "image": {
            "blocks.input.w_t": (net.steps, image),
            "blocks.input.patch_proj": (image, 3, net.patch, net.patch),
            "blocks.input.w_pos": (places, image),
            **{f"blocks.input.ln.{one}": (image,) for one in "gb"},
            **blocks(image),
        },
        "text": {
            "blocks.input.w_voc": (net.vocabulary, text),
            "blocks.input.w_pos": (net.length, text),
            **blocks(text),
        },
    }


def vectors(net: NoisedCLIP, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The vectors [b e] of noised pictures and of texts, not normalised."""
    shapes = shapes_of_clip(net)
    weights = {
        name: {k: torch.from_numpy(x) for k, x in random_tensors.transformer(0, own).items()}
        for name, own in shapes.items()
    }
    with torch.inference_mode():
        w = weights["image"]
        mean = torch.tensor([122.77093945, 116.74601272, 104.09373519])[:, None, None]
        std = torch.tensor([68.50053285, 66.63215831, 70.32316309])[:, None, None]
        x = ((picture(given["x"]) + 1) * 127.5 - mean) / std
        h = F.conv2d(x, w["blocks.input.patch_proj"], stride=net.patch).flatten(2).transpose(1, 2)
        first = w["blocks.input.w_t"][torch.from_numpy(given["step"])][:, None]
        h = torch.cat([first, h], 1) + w["blocks.input.w_pos"]
        h = clip_blocks(w, net.layers, affine_norm(w, "blocks.input.ln", h), causal=False)
        image = affine_norm(w, "blocks.output.ln", h[:, 0]) @ w["blocks.output.f.w"].T
        w, ids = weights["text"], torch.from_numpy(given["ids"])
        h = w["blocks.input.w_voc"][ids] + w["blocks.input.w_pos"]
        h = clip_blocks(w, net.layers, h, causal=True)
        last = h[torch.arange(len(ids)), torch.from_numpy(given["lengths"]) - 1]
        text = affine_norm(w, "blocks.output.ln", last) @ w["blocks.output.f.w"].T
    return {"clip_image": image.numpy(), "clip_text": text.numpy()}


def clip_blocks(w: Weights, layers: int, h: torch.Tensor, causal: bool) -> torch.Tensor:
    """The blocks of a tower, whose heads are 64 wide."""
    for i in range(layers):
        stem = f"blocks.block_{i}"
        r = affine_norm(w, f"{stem}.f_attn.ln", h)
        query = r @ w[f"{stem}.f_attn.f_q.w"].T + w[f"{stem}.f_attn.f_q.b"]
        key = r @ w[f"{stem}.f_attn.f_k.w"].T
        value = r @ w[f"{stem}.f_attn.f_v.w"].T + w[f"{stem}.f_attn.f_v.b"]
        heads = [one.unflatten(-1, (-1, 64)).transpose(1, 2) for one in (query, key, value)]
        seen = F.scaled_dot_product_attention(*heads, is_causal=causal)
        seen = seen.transpose(1, 2).flatten(2)
        h = h + seen @ w[f"{stem}.f_attn.f_c.w"].T + w[f"{stem}.f_attn.f_c.b"]
        r = affine_norm(w, f"{stem}.f_mlp.ln", h)
        r = F.gelu(r @ w[f"{stem}.f_mlp.f_1.w"].T + w[f"{stem}.f_mlp.f_1.b"])
        h = h + r @ w[f"{stem}.f_mlp.f_2.w"].T + w[f"{stem}.f_mlp.f_2.b"]
    return h


def affine_norm(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """The norm of the last axis, with the names of the noised CLIP."""
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.g"], w[f"{name}.b"], 1e-5)
