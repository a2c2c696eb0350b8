"""The PyTorch cascades of `benchmarks.cascades`, sampled by their libraries' own samplers.

    PEERS/bin/python -m benchmarks.sampling_peer_worker imagen     (benchmarks/README.md)

diffusers: IFPipeline, then IFSuperResolutionPipeline, with text embeddings given and no safety
checker. imagen: imagen-pytorch's Imagen.sample. n pictures are one batch, as both make them.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import peer_worker
from benchmarks.cascades import AUG_LEVEL, GUIDANCE, NAMES, SIZES, Cascade, serve

Sample = Callable[[torch.Tensor], torch.Tensor]


def diffusers_cascade(shape: Cascade) -> tuple[list[torch.nn.Module], Sample]:
    """(networks, text embeddings -> pictures)."""
    from diffusers import DDPMScheduler, IFPipeline, IFSuperResolutionPipeline

    nets = [peer_worker.floyd_net(work, out_channels=6) for work in (shape.base, shape.sr)]
    scheduler = lambda: DDPMScheduler(  # noqa: E731  as IF's own are set
        beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True,
        dynamic_thresholding_ratio=0.95, sample_max_value=1.5,
    )  # fmt: skip
    nothing = dict.fromkeys(
        ("tokenizer", "text_encoder", "safety_checker", "feature_extractor", "watermarker")
    )
    base = IFPipeline(unet=nets[0], scheduler=scheduler(), requires_safety_checker=False, **nothing)
    sr = IFSuperResolutionPipeline(
        unet=nets[1], scheduler=scheduler(), image_noising_scheduler=scheduler(),
        requires_safety_checker=False, **nothing,
    )  # fmt: skip
    for pipeline in (base, sr):
        pipeline.set_progress_bar_config(disable=True)

    def sample(text: torch.Tensor) -> torch.Tensor:
        told: dict[str, Any] = dict(
            prompt_embeds=text, negative_prompt_embeds=torch.zeros_like(text),
            guidance_scale=GUIDANCE, output_type="pt",
        )  # fmt: skip
        small = base(num_inference_steps=shape.steps[0], **told).images
        return sr(
            image=small, num_inference_steps=shape.steps[1], noise_level=int(1000 * AUG_LEVEL),
            **told,
        ).images  # fmt: skip

    return nets, sample


def imagen_cascade(shape: Cascade) -> tuple[list[torch.nn.Module], Sample]:
    """(networks, text embeddings -> pictures)."""
    nets = [peer_worker.imagen_unet(work) for work in (shape.base, shape.sr)]
    imagen = peer_worker.imagen_package().Imagen(
        nets, image_sizes=(shape.base.side, shape.sr.side), timesteps=shape.steps,
        text_embed_dim=shape.base.text[1], lowres_sample_noise_level=AUG_LEVEL,
    )  # fmt: skip

    def sample(text: torch.Tensor) -> torch.Tensor:
        return imagen.sample(text_embeds=text, cond_scale=GUIDANCE, use_tqdm=False)

    return list(imagen.unets), sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=NAMES[1:])
    parser.add_argument("--size", choices=SIZES, default="race")
    parser.add_argument("--started", type=float, default=time.time())
    flags = parser.parse_args()
    torch.manual_seed(0)
    shape = SIZES[flags.size][flags.name]
    build = {"diffusers": diffusers_cascade, "imagen": imagen_cascade}[flags.name]
    nets, sample = build(shape)
    for net in nets:
        net.eval().requires_grad_(False)
    text = torch.randn(1, *shape.base.text)
    side = shape.sr.side

    @torch.no_grad()
    def make(count: int):
        pictures = sample(text.expand(count, -1, -1).contiguous())
        assert pictures.shape == (count, 3, side, side), pictures.shape
        assert pictures.isfinite().all()
        return (pictures * 255).byte().numpy()

    def facts() -> dict[str, Any]:
        # attention as plain products, because PyTorch does not count its fused kernel for CPUs
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            make(1)
        return {
            "flops_picture": counter.get_total_flops(),
            "params": sum(p.numel() for net in nets for p in net.parameters()),
            "framework": f"torch {torch.__version__}",
        }

    serve(make, facts, started=flags.started)


if __name__ == "__main__":
    main()
