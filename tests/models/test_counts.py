"""Counts of a compiled step, without timing: traces, transfers, collectives, bytes, FLOPs."""

import collections
import dataclasses
import functools
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import main
from diffjax.data import pipeline
from diffjax.devices import mesh
from diffjax.encoders.t5 import load_encoder
from diffjax.logs import readings, writer
from diffjax.models.unet import UNet
from diffjax.planning import hlo, jaxprs
from diffjax.tasks import sampling
from diffjax.training import loop, step
from tests.tasks.stages import BASE, KEY, batch_of
from tests.tiny_t5 import save_tiny
from tests.training.steps import create, placed, step_of

# Wide enough that vectors, which every device holds, are a few percent, as in large networks.
WIDE = dataclasses.replace(
    BASE,
    name="wide",
    model=UNet(
        64, (1, 2), num_blocks=1, attention_levels=(1,), head_width=32, token_width=64, patch=4
    ),
)


@functools.cache
def compiled(task, sizes, **options):
    """(the step compiled for a mesh, the shapes of the state, its shardings)."""
    step, shapes, place, _ = placed(task, mesh.make_mesh(*sizes), **options)
    batch = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, batch_of(task.size_px, 16)))
    return step.lower(shapes, batch).compile(), shapes, place


def num_bytes(tree, sharding=None):
    """The bytes of a tree of shapes, or of one device's part of it."""
    leaves = jax.tree.leaves(tree)
    shapes = [leaf.shape for leaf in leaves]
    if sharding is not None:
        shapes = [
            s.shard_shape(x.shape) for x, s in zip(leaves, jax.tree.leaves(sharding), strict=True)
        ]
    return sum(int(np.prod(s)) * x.dtype.itemsize for s, x in zip(shapes, leaves, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
def test_data_parallel_gradients_cross_the_mesh_once(parts):
    """With two micro-batches, only their sum crosses the mesh, and a few scalars."""
    compiled_step, shapes, _ = compiled(WIDE, (8, 1, 1), parts=parts)
    found = hlo.collectives(compiled_step.as_text())
    assert found.keys() == {"all-reduce"}
    assert found["all-reduce"].bytes == pytest.approx(num_bytes(shapes.params), rel=1e-3)


@pytest.mark.slow
def test_a_fully_sharded_state_takes_an_eighth_per_device_and_moves_by_gather_and_scatter():
    compiled_step, shapes, place = compiled(WIDE, (1, 8, 1))
    params = num_bytes(shapes.params)
    found = hlo.collectives(compiled_step.as_text())
    assert "all-to-all" not in found
    assert "collective-permute" not in found
    assert sum(one.bytes for one in found.values()) <= 3.0 * params
    assert found["reduce-scatter"].bytes <= params  # each gradient crosses once
    assert num_bytes(shapes, place) <= 1.05 / 8 * num_bytes(shapes)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(1, 8, 1), (2, 2, 2)])
def test_the_step_reuses_the_memory_of_the_whole_state(sizes):
    compiled_step, shapes, place = compiled(WIDE if sizes[1] == 8 else BASE, sizes)
    donated = compiled_step.memory_analysis().alias_size_in_bytes
    assert donated == num_bytes(shapes, place)


@pytest.mark.parametrize(
    ("sizes", "parts"), [(None, 1), pytest.param((2, 4, 1), 2, marks=pytest.mark.slow)]
)
def test_a_step_needs_only_the_flops_of_the_network(sizes, parts):
    """Forward and backward through the network, as bare as can be, over the step's own FLOPs."""
    batch = jax.tree.map(jnp.asarray, batch_of(16, 16))
    shapes = jax.eval_shape(create(BASE), KEY)

    def bare(params, x_t, text):
        told = {"text": text, "text_mask": jnp.ones(text.shape[:2], bool)}
        return BASE.bind(params, told)(x_t, jnp.zeros(x_t.shape[0])).sum()

    model = jax.make_jaxpr(jax.grad(bare))(shapes.params, jnp.zeros((16, 16, 16, 3)), batch["text"])
    step = placed(BASE, mesh.make_mesh(*sizes), parts=parts)[0] if sizes else step_of(BASE)
    ours = jax.make_jaxpr(step)(shapes, batch)
    assert jaxprs.flops(ours) / jaxprs.flops(model) == 1.0


def run(workdir, encoder, *more):
    flags = [f"--config.text.encoder={encoder}", "--config.text.max_tokens=32", *more]
    return main.main(["--config", "configs/base64.py:tiny", "--workdir", str(workdir), *flags])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("t5"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.mark.slow
def test_200_steps_transfer_their_batches_and_one_reading_per_line(tmp_path, encoder, monkeypatch):
    """The real loop, in which only explicit transfers are allowed; they are counted."""
    sent, read = [], []
    whole, put, get = loop.loop, mesh.to_devices, jax.device_get

    def guarded(run, state):
        with jax.transfer_guard("disallow"):
            return whole(run, state)

    def counted(batch, sharding):
        sent.append({name: (value.dtype.name, value.nbytes) for name, value in batch.items()})
        return put(batch, sharding)

    monkeypatch.setattr(loop, "loop", guarded)
    monkeypatch.setattr(mesh, "to_devices", counted)
    monkeypatch.setattr(jax, "device_get", lambda tree: read.append(tree.shape) or get(tree))
    flags = [f"--config.train.{key}" for key in
             ("num_steps=200", "log_every=50", "sample_every=0", "save_every=0")]  # fmt: skip
    assert run(tmp_path, encoder, *flags) == 0
    b, length, width = 8, 32, load_encoder(str(encoder), max_length=32).width
    exactly = {
        "image": ("uint8", b * 16 * 16 * 3),
        "text": ("bfloat16", b * length * width * 2),
        "text_length": ("int32", b * 4),
    }
    assert all(batch == exactly for batch in sent)
    assert len(sent) == 200 + 2  # two are being sent when the last step is done
    assert [shape[0] for shape in read] == [50] * 4


def test_batches_sent_ahead_do_not_change_the_position_to_resume_from():
    class Numbers:
        """0, 1, 2 and so on; the position is the next number."""

        def __init__(self):
            self.position = 0

        def __next__(self):
            self.position += 1
            return self.position - 1

        def get_state(self):
            return self.position

        def set_state(self, position):
            self.position = position

    numbers, sent = Numbers(), []
    ahead = pipeline.Ahead(numbers, lambda number: sent.append(number) or number)
    assert ahead.get_state() == 0
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    assert sent == [0, 1, 2, 3, 4]  # two are being sent
    assert ahead.get_state() == 3
    ahead.set_state(1)
    assert [next(ahead) for _ in range(2)] == [1, 2]
    assert ahead.get_state() == 3


@pytest.mark.slow
def test_training_sampling_and_resuming_are_each_traced_once(tmp_path, encoder, monkeypatch):
    traces = collections.Counter()

    def counted(module, name):
        function = getattr(module, name)

        @functools.wraps(function)
        def call(*args, **kwargs):
            traces[name] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    for module, name in ((step, "train_step"), (readings, "record"), (sampling, "sample")):
        counted(module, name)
    scalars = writer.Log.scalars

    def interrupted(self, step, values):
        scalars(self, step, values)
        if step == 4:
            signal.raise_signal(signal.SIGTERM)

    flags = [
        "--config.seed=77", "--config.train.num_steps=6", "--config.train.sample_every=2",
        "--config.sample.num_steps=3",
    ]  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(writer.Log, "scalars", interrupted)
        assert run(tmp_path, encoder, *flags) == 143
    assert run(tmp_path, encoder, *flags) == 0
    assert sorted(p.stem for p in (tmp_path / "samples").iterdir()) == ["0000002", "0000006"]
    assert traces == {"train_step": 1, "record": 1, "sample": 1}
