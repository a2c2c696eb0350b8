"""Small Stable Diffusions of diffusers with random weights. Needs requirements-peers.txt."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers

from tools.inputs import random_tensors, sd_inputs
from tools.inputs.sd_inputs import GUIDANCE, LENGTH, PROMPT, STEPS

# Of both versions at reduced width: as many levels as it takes to have each kind of block.
UNETS: dict[str, dict[str, Any]] = {
    "sd1": dict(
        block_out_channels=[32, 64], down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"], layers_per_block=1,
        attention_head_dim=8, cross_attention_dim=24, sample_size=8,
    ),
    "sd2": dict(
        block_out_channels=[32, 64], down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"], layers_per_block=1,
        attention_head_dim=[2, 4], cross_attention_dim=32, sample_size=8,
        use_linear_projection=True, upcast_attention=True,
    ),
}  # fmt: skip
TEXTS: dict[str, dict[str, Any]] = {
    "sd1": dict(hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=3),
    "sd2": dict(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        hidden_act="gelu",
    ),
}  # fmt: skip
VAE: dict[str, Any] = dict(
    block_out_channels=[32, 32], down_block_types=["DownEncoderBlock2D"] * 2,
    up_block_types=["UpDecoderBlock2D"] * 2, layers_per_block=1, latent_channels=4,
    norm_num_groups=32, sample_size=16,
)  # fmt: skip
SCHEDULER: dict[str, Any] = dict(
    beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1,
    set_alpha_to_one=False, clip_sample=False,
)  # fmt: skip
KINDS = {"sd1": "epsilon", "sd2": "v_prediction"}


def filled(net: Any, seed: int = 0) -> Any:
    """The network with the random weights of a seed."""
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    made = random_tensors.transformer(seed, shapes)
    net.load_state_dict({name: torch.from_numpy(x) for name, x in made.items()})
    return net.eval()


def unet(version: str, **sizes: Any) -> Any:
    """A U-Net."""
    return filled(diffusers.UNet2DConditionModel(**{**UNETS[version], **sizes}))


def vae(**sizes: Any) -> Any:
    """An autoencoder."""
    return filled(diffusers.AutoencoderKL(**{**VAE, **sizes}))


def text(version: str, vocab_size: int, **sizes: Any) -> Any:
    """A text encoder."""
    end = vocab_size - 1
    config = transformers.CLIPTextConfig(
        vocab_size=vocab_size, max_position_embeddings=LENGTH, bos_token_id=end - 1,
        eos_token_id=end, **{**TEXTS[version], **sizes},
    )  # fmt: skip
    return filled(transformers.CLIPTextModel(config), sd_inputs.SEEDS["text_encoder"])


def tokenizer(version: str, folder: Path) -> Any:
    """The tokenizer with the merges of the emoji captions, whose files are written to `folder`."""
    files = [str(file) for file in sd_inputs.write_vocabulary(folder)]
    pad = {"sd1": "<|endoftext|>", "sd2": "!"}[version]
    return transformers.CLIPTokenizer(*files, model_max_length=LENGTH, pad_token=pad)


def pipeline(version: str, folder: Path) -> Any:
    """The whole, saved to `folder` as diffusers saves it."""
    tokens = tokenizer(version, folder / "tokenizer")
    pipe = diffusers.StableDiffusionPipeline(
        vae=vae(), text_encoder=text(version, len(tokens)), tokenizer=tokens, unet=unet(version),
        scheduler=diffusers.DDIMScheduler(prediction_type=KINDS[version], **SCHEDULER),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def predicted(net: Any, given: dict[str, np.ndarray]) -> np.ndarray:
    """What the U-Net predicts [b h w c]."""
    with torch.inference_mode():
        x = torch.from_numpy(given["x"].transpose(0, 3, 1, 2).copy())
        step, text = torch.from_numpy(given["step"]), torch.from_numpy(given["text"])
        made = net(x, step, encoder_hidden_states=text).sample
    return np.ascontiguousarray(made.numpy().transpose(0, 2, 3, 1))


def states(tokens: Any, net: Any, prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(ids [b l], the states [b l d] that the U-Net reads) as the pipeline computes them."""
    found = tokens(prompts, padding="max_length", max_length=LENGTH, truncation=True,
                   return_tensors="pt").input_ids  # fmt: skip
    with torch.inference_mode():
        return found.numpy(), net(found)[0].numpy()


def drawn(pipe: Any, sampler: str, x_T: np.ndarray, negative: str | None = None) -> np.ndarray:
    """The latents [b h w c] after STEPS of a sampler from noise x_T [b h w c]."""
    classes = {
        "ddim": diffusers.DDIMScheduler,
        "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
        "pndm": diffusers.PNDMScheduler,
    }
    config = {**SCHEDULER, "prediction_type": pipe.scheduler.config.prediction_type}
    if sampler == "dpmpp_2m":
        for name in ("set_alpha_to_one", "clip_sample"):
            config.pop(name)
        config["timestep_spacing"] = "leading"
    if sampler == "pndm":
        config.pop("clip_sample")
        config["skip_prk_steps"] = True
    pipe.scheduler = classes[sampler](**config)
    noise = torch.from_numpy(x_T.transpose(0, 3, 1, 2).copy())
    made = pipe(
        PROMPT, negative_prompt=negative, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        latents=noise, output_type="latent",
    ).images  # fmt: skip
    return np.ascontiguousarray(made.numpy().transpose(0, 2, 3, 1))
