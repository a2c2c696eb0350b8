"""What can be counted, and no noise can hide: traces, transfers, collectives, bytes, FLOPs."""

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
from diffjax.planning import hlo
from diffjax.tasks import sampling
from diffjax.training import loop, step
from tests.tasks.test_denoising import BASE, KEY, batch_of
from tests.tiny_t5 import save_tiny
from tests.training.test_step import create, placed, step_of

# Wide enough that vectors, which every device holds whole, are the few percent they are at scale.
WIDE = dataclasses.replace(
    BASE,
    name="wide",
    model=UNet(
        64, (1, 2), num_blocks=1, attention_levels=(1,), head_width=32, token_width=64, patch=4
    ),
)


@functools.cache
def compiled(task, sizes, **options):
    """The step compiled for a mesh, the state's shapes, and where it lies."""
    step, shapes, place, _ = placed(task, mesh.make_mesh(*sizes), **options)
    batch = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, batch_of(task.size_px, 16)))
    return step.lower(shapes, batch).compile(), shapes, place


def num_bytes(tree, sharding=None):
    """Bytes of a tree of shapes, or of one device's share of it."""
    leaves = jax.tree.leaves(tree)
    shapes = [leaf.shape for leaf in leaves]
    if sharding is not None:
        shapes = [
            s.shard_shape(x.shape) for x, s in zip(leaves, jax.tree.leaves(sharding), strict=True)
        ]
    return sum(int(np.prod(s)) * x.dtype.itemsize for s, x in zip(shapes, leaves, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2])
def test_data_parallel_gradients_cross_once(parts):
    """Though there are two micro-batches: their sum crosses. Beside it, a few scalars."""
    compiled_step, shapes, _ = compiled(WIDE, (8, 1, 1), parts=parts)
    found = hlo.collectives(compiled_step.as_text())
    assert found.keys() == {"all-reduce"}
    assert found["all-reduce"].bytes == pytest.approx(num_bytes(shapes.params), rel=1e-3)


@pytest.mark.slow
def test_fully_sharded_states_are_an_eighth_each_and_cross_by_gather_and_scatter_alone():
    compiled_step, shapes, place = compiled(WIDE, (1, 8, 1))
    params = num_bytes(shapes.params)
    found = hlo.collectives(compiled_step.as_text())
    assert "all-to-all" not in found
    assert "collective-permute" not in found
    assert sum(one.bytes for one in found.values()) <= 3.0 * params
    assert found["reduce-scatter"].bytes <= params  # each gradient once
    assert num_bytes(shapes, place) <= 1.05 / 8 * num_bytes(shapes)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(1, 8, 1), (2, 2, 2)])
def test_donated_bytes_are_state_bytes(sizes):
    compiled_step, shapes, place = compiled(WIDE if sizes[1] == 8 else BASE, sizes)
    donated = compiled_step.memory_analysis().alias_size_in_bytes
    assert donated == num_bytes(shapes, place)


@pytest.mark.parametrize(("sizes", "parts"), [(None, 1), ((2, 4, 1), 2)])
def test_a_step_computes_the_networks_products_and_no_more(sizes, parts):
    """Forward and backward through the network, as bare as can be, over the step's own FLOPs."""
    batch = jax.tree.map(jnp.asarray, batch_of(16, 16))
    shapes = jax.eval_shape(create(BASE), KEY)

    def bare(params, x_t, text):
        told = {"text": text, "text_mask": jnp.ones(text.shape[:2], bool)}
        return BASE.bind(params, told)(x_t, jnp.zeros(x_t.shape[0])).sum()

    model = jax.make_jaxpr(jax.grad(bare))(shapes.params, jnp.zeros((16, 16, 16, 3)), batch["text"])
    step = placed(BASE, mesh.make_mesh(*sizes), parts=parts)[0] if sizes else step_of(BASE)
    ours = jax.make_jaxpr(step)(shapes, batch)
    assert hlo.flops(ours) / hlo.flops(model) == 1.0


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
def test_200_steps_move_their_batches_to_the_device_and_one_reading_per_log_back(
    tmp_path, encoder, monkeypatch
):
    """The real loop, where only what is moved explicitly may move; and that is counted."""
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
    assert len(sent) == 200 + 2  # two are on their way when the last step is done
    assert [shape[0] for shape in read] == [50] * 4


def test_what_was_sent_ahead_does_not_move_the_position_to_resume_from():
    class Numbers:
        """0, 1, 2 ...: the position is the number that comes next."""

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
    assert sent == [0, 1, 2, 3, 4]  # two are on their way
    assert ahead.get_state() == 3
    ahead.set_state(1)
    assert [next(ahead) for _ in range(2)] == [1, 2]
    assert ahead.get_state() == 3


def test_training_sampling_and_resuming_trace_once_each(tmp_path, encoder, monkeypatch):
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
