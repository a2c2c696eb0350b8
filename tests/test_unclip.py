"""A tiny decoder of vectors, from its config to its pictures."""

import itertools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffjax import edit, evaluate, sample
from diffjax.build import tasks
from diffjax.build.options import config
from diffjax.build.stages import places
from diffjax.checkpoint import __main__ as checkpoint
from diffjax.core import rng
from diffjax.images import png
from diffjax.tasks import sampling
from diffjax.tasks.conditions import Embedding, Text
from diffjax.tasks.settings import SampleSettings
from tests import runs
from tests.encoders.clip import small
from tests.tiny_t5 import save_tiny
from tools.checks import unclip_check

DECODER = "configs/decoder.py:tiny"
KEYS = rng.per_example(jnp.arange(2))
SMALL = ("model.mults=(1,)", "model.attention_levels=(0,)")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return small.write(tmp_path_factory.mktemp("clip") / "small")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def told():
    """The task of a tiny decoder, and parameters that say something from the start."""
    options = config.load(DECODER).copy_and_resolve_references().unlock()
    options.text.max_tokens = 4
    options.vectors.width = options.embedding.width = 8
    options.model.update(mults=(1,), attention_levels=(0,))
    task = tasks.task_of(options, 16)
    random = np.random.default_rng(0)
    filled = lambda x: random.normal(0.0, 0.2, x.shape).astype(np.float32)  # noqa: E731
    return task, jax.tree.map(filled, jax.eval_shape(task.init, jax.random.key(0)))


def test_the_decoder_trains_without_its_vector_in_a_tenth_and_without_its_text_in_a_half():
    """Ramesh et al. 2022, sec. 2.1; each by a draw of its own."""
    options = config.load("configs/decoder.py:emoji")
    task = tasks.task_of(options, 8)
    vector, text = task.condition(Embedding), task.condition(Text)
    assert (vector.of, vector.width, vector.drop, text.drop) == ("image_vector", 128, 0.1, 0.5)
    batch = {"row": jnp.zeros(4000)}
    kept = [one.draw(jax.random.key(0), batch) for one in (vector, text)]
    vectors, texts = kept[0]["keep_image_vector"], kept[1]["keep_text"]
    assert float(vectors.mean()) == pytest.approx(0.9, abs=0.02)
    assert float(texts.mean()) == pytest.approx(0.5, abs=0.03)
    assert float((vectors & texts).mean()) == pytest.approx(0.45, abs=0.03)


def columns(vector=0, text=0):
    """The columns of two rows; other numbers are other vectors and texts."""
    random = lambda seed, *shape: jax.random.normal(jax.random.key(seed), (2, *shape))  # noqa: E731
    return {
        "image_vector": random(10 + vector, 8),
        "text": random(20 + text, 4, 16),
        "text_mask": jnp.ones((2, 4), bool),
    }


def test_another_vector_or_text_gives_another_picture_and_at_scale_0_neither_does(told):
    """Guidance's other half is told neither."""
    task, params = told
    run = {
        scale: sampling.compiled(
            sampling.sample,
            SampleSettings(num_steps=2, guidance_weight=scale, threshold="none", sampler="ddim"),
        )
        for scale in (1.0, 0.0)
    }

    def made(scale, **which):
        return np.asarray(run[scale](params, columns(**which), KEYS, task=task))

    plain = made(1.0)
    for other in (dict(vector=1), dict(text=1)):
        assert np.abs(made(1.0, **other) - plain).max() > 1e-2
        np.testing.assert_allclose(made(0.0, **other), made(0.0), atol=1e-5)


def flags_of(clip, *more):
    """Of a tiny run."""
    width = small.CONFIG.embed
    own = (f"vectors.clip=clip:{clip}", f"vectors.width={width}", f"embedding.width={width}")
    return (*SMALL, *own, "train.num_steps=4", "train.save_every=2", *more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, encoder, clip):
    """A run of four steps on one mesh of eight devices."""
    workdir = tmp_path_factory.mktemp("decoder")
    flags = flags_of(clip, "optim.decay=constant", "mesh.data=8")
    assert runs.run(workdir, encoder, *flags, config=DECODER) == 0
    return workdir


@pytest.mark.slow
def test_a_run_in_two_parts_ends_as_one_without_a_stop(whole, encoder, clip, tmp_path, capsys):
    for steps in (2, 4):
        flags = flags_of(clip, "optim.decay=constant", "mesh.data=8", f"train.num_steps={steps}")
        assert runs.run(tmp_path, encoder, *flags, config=DECODER) == 0
    digests = []
    for workdir in (tmp_path, whole):
        capsys.readouterr()
        assert checkpoint.main(["digest", str(workdir)]) == 0
        digests.append(capsys.readouterr().out)
    assert digests[0] == digests[1]
    assert len(json.loads((whole / "config.json").read_text())["vectors"]["mark"]) == 64


@pytest.mark.slow
def test_one_device_comes_to_the_parameters_of_eight(whole, encoder, clip, tmp_path, monkeypatch):
    def params_of(workdir):
        options = places.options_of(workdir)
        task = tasks.task_of(options, 16)
        return places.params_of(options, workdir, task, "live")[0]

    one = runs.start(
        tmp_path, encoder, *flags_of(clip, "optim.decay=constant"), config=DECODER,
        XLA_FLAGS="--xla_force_host_platform_device_count=1",
    )  # fmt: skip
    code, _, err = runs.finish(one)
    assert code == 0, err
    ours, theirs = (jax.tree.leaves(params_of(place)) for place in (whole, tmp_path))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.slow
def test_a_trained_decoder_makes_variations_of_a_picture(whole, tmp_path):
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(tmp_path / "a.png")
    asked = ["variations", "--picture", f"{tmp_path}/a.png", "--seeds", "0-1", "--steps", "2"]
    assert edit.main([*asked, "--workdir", str(whole), "--out", str(tmp_path / "out")]) == 0
    first, other = (png.read(tmp_path / f"out/variations_seed{i}_16px.png") for i in (0, 1))
    assert (first != other).any()
    flags = ["--num", "4", "--steps", "2", "--noise", "0", "--sheet", f"{tmp_path}/sheet.png"]
    unclip_check.main([str(whole), *flags, "--out", f"{tmp_path}/c.json"])
    assert png.read(tmp_path / "sheet.png").shape == (6 * 16, 4 * 16, 3)
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["distance"]["of ends of interpolations from reconstructions"] < 1
    assert found["distance"]["between variations"] == 0  # without noise of their own
    for judge, made in itertools.product(("clip", "pixels"), ("decoded", "variations")):
        these, every = (found[made][f"by {judge} among {among}"] for among in ("these", "all"))
        assert 0 <= every["very"] <= these["very"] <= these["name"] <= 1


def train_prior(workdir, encoder, clip):
    """Two steps of a tiny prior."""
    own = (f"vectors.clip=clip:{clip}", f"vectors.width={small.CONFIG.embed}")
    flags = (*own, "train.num_steps=2", "train.save_every=2", "train.ema=()")
    assert runs.run(workdir, encoder, *flags, config="configs/prior.py:tiny") == 0


@pytest.fixture(scope="module")
def chain(tmp_path_factory, encoder, clip, whole):
    """A folder of a prior and the decoder."""
    folder = tmp_path_factory.mktemp("chain")
    train_prior(folder / "prior", encoder, clip)
    shutil.copytree(whole, folder / "a_decoder")
    return folder


def sampled(out, *words):
    """The exit code of diffjax.sample, and the recipe of its picture if it made one."""
    code = sample.main([*words, "--steps", "2", "--out", str(out)])
    made = out / "0000_seed0_16px.png"
    return code, png.read_metadata(made) if made.exists() else None


@pytest.mark.slow
def test_a_folder_of_a_prior_and_a_decoder_makes_pictures_and_makes_them_again(
    chain, tmp_path, capsys
):
    code, said = sampled(tmp_path / "out", "--workdir", str(chain), "--prompt", "a red circle")
    assert code == 0
    assert said["told"]["by"] == "prior"
    assert [one["name"] for one in said["stages"]] == ["decoder"]
    capsys.readouterr()
    like = str(tmp_path / "out/0000_seed0_16px.png")
    again = ["--workdir", str(chain), "--like", like, "--out", str(tmp_path / "again")]
    assert sample.main(again) == 0
    assert "in every pixel" in capsys.readouterr().out
    code, said = sampled(
        tmp_path / "text", "--workdir", str(chain), "--prompt", "a red circle", "--vector", "text"
    )
    assert (code, said["told"]["by"]) == (0, "text")
    first, other = (png.read(tmp_path / one / "0000_seed0_16px.png") for one in ("out", "text"))
    assert (first != other).any()


@pytest.mark.slow
def test_stages_that_make_no_chain_are_refused_in_one_line(chain, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(chain / "prior", other)
    file = other / "config.json"
    options = json.loads(file.read_text())
    options["vectors"]["mark"] = "f" * 64
    file.write_text(json.dumps(options))
    decoder, prior = chain / "a_decoder", chain / "prior"
    for stages, words in (
        (decoder, "no prior makes its vectors: add one to --stages, or give --vector text, none"),
        (prior, "is a prior, which makes vectors of pictures: add a decoder"),
        (f"{other},{decoder}", "vectors of another CLIP"),
        (f"{prior},{other},{decoder}", "is another prior beside"),
    ):
        capsys.readouterr()
        asked = ("--stages", str(stages), "--prompt", "a red circle")
        code, _ = sampled(tmp_path / "out", *asked)
        err = capsys.readouterr().err
        assert code == 2
        assert words in err, err
        assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_a_folder_of_a_prior_and_a_decoder_is_evaluated_as_a_whole(chain, clip, tmp_path, capsys):
    """A prior beside another stage is no more alone, and by itself has a report of its own."""
    reports = {}
    for name, where in (("whole", chain), ("decoder", chain / "a_decoder")):
        out = tmp_path / f"{name}.json"
        flags = ["--parts", "stages,sets", "--extractor", f"clip:{clip}", "--num", "8"]
        assert evaluate.main([str(where), *flags, "--out", str(out)]) == 0
        reports[name] = json.loads(out.read_text())
    whole, alone = reports["whole"], reports["decoder"]
    assert [one["name"] for one in whole["of"]] == ["prior", "decoder"]
    assert whole["stages"] == alone["stages"]
    made = [one["sets"]["statistics"]["made"]["pictures"] for one in (whole, alone)]
    assert made[0] != made[1]
    capsys.readouterr()
    two = [str(chain / "prior"), str(chain / "prior"), "--out", str(tmp_path / "none.json")]
    assert evaluate.main(two) == 2
    assert "add a decoder" in (err := capsys.readouterr().err)
    assert len(err.splitlines()) == 1
