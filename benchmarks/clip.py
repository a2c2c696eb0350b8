"""How fast is a training step of a CLIP, ours and open_clip's, on equal networks and weights?

    PEERS/bin/python -m benchmarks.clip --size emoji --batch 64      (requirements-peers.txt)

PEERS is an environment with PyTorch and with JAX; --ours and --peers may name two. A step is the
symmetric loss of random pictures and ids, its gradients, and AdamW, in float32. open_clip writes
its initial weights to a folder, which both read, and the features of both towers are compared
before the race. Both take turns, each in a process of its own, and a ratio is formed within a round
(benchmarks/peers.py). The peak of memory is that of the steps.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import duel, protocol
from benchmarks.peers import ROOT
from diffjax.models.clip.sizes import SIZES, CLIPConfig, tower

WORKS = {
    "tiny": CLIPConfig(tower(32, 1, 2), tower(32, 1, 2), 16, 8, 16, vocabulary=64, length=8),
    "emoji": CLIPConfig(tower(128, 6, 4), tower(128, 4, 4), 64, 8, 128, 1538, length=24),
    "B/32": SIZES["B/32"],
}


class Program(NamedTuple):
    """A step to be timed, the unit features [2 b e] of a batch, and the framework's version."""

    step: Callable[[], float]
    answer: np.ndarray
    framework: str


def batch_of(config: CLIPConfig, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pictures in bytes, and ids that end a text in the last place."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (rows, config.size_px, config.size_px, 3), np.uint8)
    ids = random.integers(1, config.vocabulary - 2, (rows, config.length)).astype(np.int32)
    ids[:, -1] = config.vocabulary - 1
    return image, ids


def ours(name: str, rows: int, folder: Path) -> Program:
    """A step of diffjax's training, without averages."""
    import jax
    import jax.numpy as jnp

    from diffjax.encoders.clip import weights
    from diffjax.models.clip.clip import CLIP
    from diffjax.tasks.contrastive import Contrastive
    from diffjax.training import averages, optim, state, step

    config, params = weights.load(folder)
    task = Contrastive("clip", CLIP(config))
    rate = optim.learning_rate(1e-4, warmup_steps=0, num_steps=1000)
    tx = optim.optimiser("adamw", rate, weight_decay=0.1)
    image, ids = batch_of(config, rows)
    batch = {"image": jnp.asarray(image), "tokens": jnp.asarray(ids)}
    key, none = jax.random.key(0), averages.parse(())
    held = [jax.jit(lambda key, own: state.create(lambda _: own, tx, (), key))(key, params)]
    run = jax.jit(
        lambda now, batch: step.train_step(
            now, batch, task=task, tx=tx, root_key=key, averages=none
        ),
        donate_argnums=0,
    )

    def one() -> float:
        held[0], metrics = run(held[0], batch)
        return float(metrics["loss"])

    pair = jax.jit(task.pair)(held[0].params, batch)
    return Program(one, np.stack([pair.image, pair.text]), f"jax {jax.__version__}")


def peer(name: str) -> tuple[Any, dict[str, Any]]:
    """open_clip's network, and its sizes by the names of `tools.peers.clip_peers`."""
    from tools.peers import clip_peers

    config = WORKS[name]
    size = dict(
        size=config.size_px, patch=config.patch, width=config.image.width,
        layers=config.image.layers, heads=config.image.heads, text_width=config.text.width,
        text_layers=config.text.layers, text_heads=config.text.heads, embed=config.embed,
        length=config.length, vocabulary=config.vocabulary,
    )  # fmt: skip
    cfg = clip_peers.model_cfg(size, quick_gelu=True)
    return clip_peers.open_clip().model.CLIP(**cfg), size


def write_weights(name: str, rows: int, folder: Path) -> None:
    """open_clip's initial weights."""
    import torch

    from tools.peers import clip_peers

    torch.manual_seed(0)
    clip_peers.save_open_clip(*peer(name), quick_gelu=True, folder=folder)


def theirs(name: str, rows: int, folder: Path) -> Program:
    """A step of PyTorch's on open_clip's network."""
    import torch
    from safetensors.torch import load_file

    from diffjax.encoders.clip import weights
    from tools.peers import clip_peers

    model, _ = peer(name)
    model.load_state_dict(load_file(folder / weights.OPEN_FILES[0]))
    model.train()
    tx = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=0.1)
    loss_of = clip_peers.open_clip().loss.ClipLoss()
    config = weights.check(folder)
    image, ids = batch_of(config, rows)
    pixels = clip_peers.as_pixels(image / 127.5 - 1.0, config.mean, config.std)
    tokens = torch.tensor(ids.astype(np.int64))

    def one() -> float:
        tx.zero_grad(set_to_none=True)
        loss = loss_of(*model(pixels, tokens)[:3])
        loss.backward()
        tx.step()
        return loss.item()

    features = clip_peers.answers(model, pixels, ids.astype(np.int64))
    answer = np.stack([features["image"], features["text"]])
    return Program(one, answer, f"torch {torch.__version__}")


def serve(side: str, name: str, rows: int, folder: Path) -> None:
    """Follows the protocol as one of the programs."""
    program = {duel.OURS: ours, duel.THEIRS: theirs}[side](name, rows, folder)
    np.save(folder / f"{side}.npy", program.answer)
    protocol.serve(lambda _: program.step(), warmup=2, framework=program.framework)


def compare(flags: argparse.Namespace) -> dict[str, Any]:
    """Runs both programs; everything that is printed."""

    def command(python: str, side: str, folder: str) -> list[str]:
        work = ["--size", flags.size, "--batch", str(flags.batch)]
        return [python, "-m", "benchmarks.clip", "--program", side, "--folder", folder, *work]

    with tempfile.TemporaryDirectory() as folder:
        write = command(flags.peers, "weights", folder)
        subprocess.run(write, cwd=ROOT, env=duel.environment(), check=True)
        found = duel.duel(
            {duel.OURS: command(flags.ours, duel.OURS, folder),
             duel.THEIRS: command(flags.peers, duel.THEIRS, folder)},
            Path(folder), rounds=flags.rounds, seconds=flags.seconds, steps=flags.steps,
        )  # fmt: skip
    return {"size": flags.size, "batch": flags.batch, **found}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=WORKS, default="emoji")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2, help="steps that count in each turn")
    parser.add_argument("--rounds", type=int, default=5, help="quiet turns wanted of each program")
    parser.add_argument("--seconds", type=float, default=300, help="time for further rounds")
    parser.add_argument("--ours", default=sys.executable, help="python with diffjax")
    parser.add_argument("--peers", default=sys.executable, help="python with open_clip")
    parser.add_argument("--out", type=Path, help="a file of JSON lines, to which results are added")
    parser.add_argument("--program", choices=["weights", "ours", "theirs"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.program == "weights":
        write_weights(flags.size, flags.batch, flags.folder)
    elif flags.program:
        serve(flags.program, flags.size, flags.batch, flags.folder)
    else:
        facts = compare(flags)
        print(f"{flags.size}, batch {flags.batch}: {duel.line(facts, 'open_clip')}")
        duel.keep(facts, flags.out)


if __name__ == "__main__":
    main()
