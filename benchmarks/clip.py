"""How fast is a training step of a CLIP, ours and open_clip's, on equal networks and batches?

    PEERS/bin/python -m benchmarks.clip --size emoji --batch 64      (requirements-peers.txt)

Both have the same sizes, random pictures and ids, the symmetric loss and AdamW in float32. They
take turns in one process, a round of `--steps` steps each, so that whatever else the machine does
meets both; the ratio is the median over the rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch

from diffjax.models.clip.clip import CLIP
from diffjax.models.clip.sizes import SIZES, CLIPConfig, tower
from diffjax.tasks.contrastive import Contrastive
from diffjax.training import averages, optim, state, step
from tools import clip_peers

WORKS = {
    "tiny": CLIPConfig(tower(32, 1, 2), tower(32, 1, 2), 16, 8, 16, vocabulary=64, length=8),
    "emoji": CLIPConfig(tower(128, 6, 4), tower(128, 4, 4), 64, 8, 128, 1538, length=24),
    "B/32": SIZES["B/32"],
}


def batch_of(config: CLIPConfig, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pictures in bytes, and ids that end a text in the last place."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (rows, config.size_px, config.size_px, 3), np.uint8)
    ids = random.integers(1, config.vocabulary - 2, (rows, config.length)).astype(np.int32)
    ids[:, -1] = config.vocabulary - 1
    return image, ids


def ours(config: CLIPConfig, rows: int) -> Callable[[], None]:
    """A step of diffjax's training, without averages."""
    task = Contrastive("clip", CLIP(config))
    rate = optim.learning_rate(1e-4, warmup_steps=0, num_steps=1000)
    tx = optim.optimiser("adamw", rate, weight_decay=0.1)
    image, ids = batch_of(config, rows)
    batch = {"image": jnp.asarray(image), "tokens": jnp.asarray(ids)}
    key, none = jax.random.key(0), averages.parse(())
    held = [jax.jit(lambda key: state.create(task.init, tx, (), key))(key)]
    run = jax.jit(
        lambda now, batch: step.train_step(
            now, batch, task=task, tx=tx, root_key=key, averages=none
        ),
        donate_argnums=0,
    )

    def one() -> None:
        held[0], metrics = run(held[0], batch)
        jax.block_until_ready(metrics["loss"])

    return one


def theirs(config: CLIPConfig, rows: int) -> Callable[[], None]:
    """A step of PyTorch's on open_clip's network."""
    size = dict(
        size=config.size_px, patch=config.patch, width=config.image.width,
        layers=config.image.layers, heads=config.image.heads, text_width=config.text.width,
        text_layers=config.text.layers, text_heads=config.text.heads, embed=config.embed,
        length=config.length, vocabulary=config.vocabulary,
    )  # fmt: skip
    package = clip_peers.open_clip()
    model = package.model.CLIP(**clip_peers.model_cfg(size, quick_gelu=True)).train()
    tx = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=0.1)
    loss_of = package.loss.ClipLoss()
    image, ids = batch_of(config, rows)
    pixels = clip_peers.as_pixels(image / 127.5 - 1.0, config.mean, config.std)
    tokens = torch.tensor(ids.astype(np.int64))

    def one() -> None:
        tx.zero_grad(set_to_none=True)
        loss = loss_of(*model(pixels, tokens)[:3])
        loss.backward()
        tx.step()
        loss.item()

    return one


def seconds(one: Callable[[], None], steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        one()
    return (time.perf_counter() - start) / steps


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--size", choices=WORKS, default="emoji")
    flags.add_argument("--batch", type=int, default=64)
    flags.add_argument("--steps", type=int, default=3)
    flags.add_argument("--rounds", type=int, default=5)
    given = flags.parse_args()
    programs = {make.__name__: make(WORKS[given.size], given.batch) for make in (ours, theirs)}
    for one in programs.values():  # compile and warm up
        seconds(one, 2)
    rounds = []
    for turn in range(given.rounds):
        order = list(programs) if turn % 2 else list(programs)[::-1]
        rounds.append({name: seconds(programs[name], given.steps) for name in order})
    for name in programs:
        step_s = statistics.median(took[name] for took in rounds)
        print(f"{name:<7} {step_s:.4g} s a step, {given.batch / step_s:.4g} pairs/s")
    ratio = statistics.median(took["theirs"] / took["ours"] for took in rounds)
    print(f"ours is {ratio:.3g} times as fast as open_clip on {given.size}, batch {given.batch}")


if __name__ == "__main__":
    main()
