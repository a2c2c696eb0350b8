"""`benchmarks.works` for networks of others, in PyTorch.

    PEERS/bin/python -m benchmarks.peer_worker diffusers W1 train     (benchmarks/README.md)

diffusers: W1 and W2 a UNet2DConditionModel in DeepFloyd IF's form, W3 the UNet2DModel of
google/ddpm-cifar10-32. imagen: imagen-pytorch's Unet, W2 its memory-efficient form; its first
block of a level is made beside those asked for, so W1 asks for one. Networks differ between
peers: compare FLOP/s beside images/s. FLOPs are torch's own count.
"""

import argparse
import importlib.util
import sys
import types

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.protocol import serve
from benchmarks.works import MODES, WORKS, Work


def diffusers_net(name: str):
    """(module, (x, t, low_res, text) -> eps)."""
    from diffusers import UNet2DModel

    work = WORKS[name]
    channels, attends = work.channels, work.attends
    if name == "W3":
        net = UNet2DModel(
            sample_size=work.side, block_out_channels=channels, layers_per_block=2,
            attention_head_dim=None, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1,
            norm_eps=1e-6,
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]),
        )  # fmt: skip
        return net, lambda x, t, low_res, text: net(x, t, return_dict=False)[0]
    net = floyd_net(work)

    def call(x, t, low_res, text):
        labels = None
        if low_res is not None:
            x, labels = torch.cat([x, low_res], 1), torch.full_like(t, 200.0)
        out = net(x, t, encoder_hidden_states=text, class_labels=labels, return_dict=False)
        return out[0]

    return net, call


def floyd_net(work: Work, out_channels: int = 3):
    """A UNet2DConditionModel in DeepFloyd IF's form."""
    from diffusers import UNet2DConditionModel

    channels, attends = work.channels, work.attends
    down, up = "SimpleCrossAttnDownBlock2D", "SimpleCrossAttnUpBlock2D"
    return UNet2DConditionModel(
        sample_size=work.side, in_channels=6 if work.low_res else 3, out_channels=out_channels,
        layers_per_block=work.blocks, block_out_channels=channels,
        down_block_types=tuple(down if a else "ResnetDownsampleBlock2D" for a in attends),
        up_block_types=tuple(up if a else "ResnetUpsampleBlock2D" for a in attends[::-1]),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", cross_attention_dim=channels[-1],
        encoder_hid_dim=work.text[1], encoder_hid_dim_type="text_proj", attention_head_dim=64,
        resnet_time_scale_shift="scale_shift", addition_embed_type="text",
        addition_embed_type_num_heads=8, cross_attention_norm="group_norm",
        class_embed_type="timestep" if work.low_res else None,
    )  # fmt: skip


def imagen_net(name: str):
    """(module, (x, t, low_res, text) -> eps), from the one file of the package with networks."""
    work = WORKS[name]
    net = imagen_unet(work)

    def call(x, t, low_res, text):
        options = {}
        if low_res is not None:
            options = dict(lowres_cond_img=low_res, lowres_noise_times=torch.full_like(t, 0.2))
        return net(x, t / 1000, text_embeds=text, **options)

    return net, call


def imagen_unet(work: Work):
    """imagen-pytorch's Unet of that shape."""
    efficient = work.low_res
    length, text_width = work.text
    return imagen_package().Unet(
        dim=work.width, dim_mults=work.mults,
        layer_attns=work.attends, layer_cross_attns=work.attends,
        num_resnet_blocks=work.blocks if efficient else tuple(b - 1 for b in work.blocks),
        text_embed_dim=text_width, max_text_len=length, cond_dim=text_width, attn_heads=8,
        memory_efficient=efficient, lowres_cond=efficient,
    )  # fmt: skip


def imagen_package():
    """The file of imagen-pytorch that holds Unet and Imagen, without trainers and data loaders."""
    if "imagen_pytorch" in sys.modules:
        return sys.modules["imagen_pytorch.imagen_pytorch"]
    spec = importlib.util.find_spec("imagen_pytorch")
    package = types.ModuleType("imagen_pytorch")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["imagen_pytorch"] = package  # its __init__ would import trainers and data loaders
    anything = lambda *args, **kwargs: None  # noqa: E731

    def absent(name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return anything

    for missing, names in {
        "imagen_pytorch.t5": ("DEFAULT_T5_NAME", "get_encoded_dim", "t5_encode_text"),
        "torchvision": (), "torchvision.transforms": (), "torchvision.utils": (),
        "kornia": (), "kornia.augmentation": (),
    }.items():  # fmt: skip
        stub = types.ModuleType(missing)
        stub.__path__ = []
        stub.__getattr__ = absent
        for attribute in names:
            setattr(stub, attribute, anything)
        sys.modules[missing] = stub
    from imagen_pytorch import imagen_pytorch

    return imagen_pytorch


def step_of(net, call, name: str, mode: str):
    """A function that runs one step of the work."""
    work = WORKS[name]
    batch, rows = work.batch, work.rows("denoise") // work.batch
    image = torch.randn(batch, 3, work.side, work.side).clamp(-1, 1)
    low_res = torch.randn_like(image) if work.low_res else None
    text = torch.randn(batch, *work.text) if work.text else None
    alpha_bar = torch.cos(torch.linspace(0, 1, 1001) * 1.56) ** 2
    adam = torch.optim.Adam(net.parameters(), lr=1e-4)

    def train():
        adam.zero_grad(set_to_none=True)
        t = torch.randint(1, 1000, (batch,))
        eps = torch.randn_like(image)
        level = alpha_bar[t].view(-1, 1, 1, 1)
        x_t = level.sqrt() * image + (1 - level).sqrt() * eps
        torch.nn.functional.mse_loss(call(x_t, t.float(), low_res, text), eps).backward()
        adam.step()

    @torch.no_grad()
    def denoise():
        twice = lambda x: None if x is None else torch.cat([x] * rows)  # noqa: E731
        told = None if text is None else torch.cat([text, torch.zeros_like(text)])
        eps = call(twice(image), torch.full((batch * rows,), 500.0), twice(low_res), told)
        if rows == 2:
            conditional, unconditional = eps.chunk(2)
            eps = unconditional + 7.5 * (conditional - unconditional)
        here, there = alpha_bar[500], alpha_bar[480]
        x_0 = ((image - (1 - here).sqrt() * eps) / here.sqrt()).clamp(-1, 1)
        eps = (image - here.sqrt() * x_0) / (1 - here).sqrt()
        return there.sqrt() * x_0 + (1 - there).sqrt() * eps

    return train if mode == "train" else denoise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("peer", choices=("diffusers", "imagen"))
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--warmup", type=int, default=3)
    flags = parser.parse_args()
    torch.manual_seed(0)
    net, call = {"diffusers": diffusers_net, "imagen": imagen_net}[flags.peer](flags.work)
    net.train(flags.mode == "train").requires_grad_(flags.mode == "train")
    step = step_of(net, call, flags.work, flags.mode)
    with FlopCounterMode(display=False) as counter:
        step()
    serve(
        lambda i: step(), warmup=flags.warmup, name=flags.peer, work=flags.work, mode=flags.mode,
        dtype="fp32", framework=f"torch {torch.__version__}",
        images_step=WORKS[flags.work].batch, flops_step=counter.get_total_flops(),
        params=sum(p.numel() for p in net.parameters()),
    )  # fmt: skip


if __name__ == "__main__":
    main()
