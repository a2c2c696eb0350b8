"""diffusers in `benchmarks.latent`: python -m benchmarks.latent_peer_worker WORK FOLDER [weights].

With `weights` it only writes random weights to the folder.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from benchmarks.latent import Program, Work, config_of, inputs
from benchmarks.protocol import serve

CLASSES = {"vae": "AutoencoderKL", "unet": "UNet2DConditionModel", "dit": "DiTTransformer2DModel"}


def write_weights(work: Work, folder: Path) -> None:
    """Random weights in the layout of diffusers; no layer is left at zero."""
    torch.manual_seed(0)
    net = getattr(diffusers, CLASSES[work.network])(**config_of(work))
    if work.network == "dit":
        first = net.transformer_blocks[0].norm1.emb.state_dict()
        for block in net.transformer_blocks:
            block.norm1.emb.load_state_dict(first)
    net.save_pretrained(folder)


def program(work: Work, folder: Path) -> Program:
    """The step that is timed, and what the network answers."""
    net = getattr(diffusers, CLASSES[work.network]).from_pretrained(folder).eval()
    given = inputs(work)
    x = torch.from_numpy(given["x"].transpose(0, 3, 1, 2).copy())
    step, label, text = (torch.from_numpy(given[name]) for name in ("step", "label", "text"))

    def predict(x: Any, step: Any) -> Any:
        if work.network == "unet":
            return net(x, step, encoder_hidden_states=text).sample
        return net(x, timestep=step, class_labels=label).sample

    @torch.inference_mode()
    def forward() -> Any:
        return net.decode(x).sample if work.network == "vae" else predict(x, step)

    with as_ours(work, net):
        answer = np.ascontiguousarray(forward().numpy().transpose(0, 2, 3, 1))
    return (training(work, net.train(), x, predict) if work.trains else forward), answer


@contextlib.contextmanager
def as_ours(work: Work, net: Any) -> Iterator[None]:
    """While it is open, a transformer is told our sines and cosines of the levels."""
    parts = [b.norm1.emb for b in net.transformer_blocks] if work.network == "dit" else []
    own = [part.time_proj for part in parts]
    if parts:
        from benchmarks.latent_worker import LOGSNRS
        from diffjax.models.layers.embedding import sinusoids

        level = LOGSNRS[inputs(work)["step"]].astype(np.float32)
        told = Told(torch.from_numpy(np.array(sinusoids(level, 256))))
        for part in parts:
            part.time_proj = told
    yield
    for part, theirs in zip(parts, own, strict=True):
        part.time_proj = theirs


class Told(torch.nn.Module):
    """Says the same of any step."""

    def __init__(self, features: torch.Tensor):
        super().__init__()
        self.features = features

    def forward(self, step: torch.Tensor) -> torch.Tensor:
        """[b] -> [b e]."""
        return self.features


def training(work: Work, net: Any, x: Any, predict: Callable[..., Any]) -> Callable[[], object]:
    """A step of training as diffusers' examples do it."""
    scheduler = diffusers.DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
    )
    tx = torch.optim.AdamW(net.parameters(), 1e-4, weight_decay=0.01)

    def one() -> float:
        noise, step = torch.randn_like(x), torch.randint(0, 1000, (work.rows,))
        said = predict(scheduler.add_noise(x, noise, step), step)
        loss = torch.nn.functional.mse_loss(said, noise)
        tx.zero_grad(set_to_none=True)
        loss.backward()
        tx.step()
        return loss.item()

    return one


def main() -> None:
    work, folder = Work(*json.loads(sys.argv[1])), Path(sys.argv[2])
    if sys.argv[3:] == ["weights"]:
        write_weights(work, folder)
        return
    run, answer = program(work, folder)
    np.save(folder / "theirs.npy", answer)
    framework = f"torch {torch.__version__}, diffusers {diffusers.__version__}"
    serve(lambda _: run(), warmup=2, framework=framework)


if __name__ == "__main__":
    main()
