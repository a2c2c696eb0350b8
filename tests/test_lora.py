"""The commands of LoRA, from training to a picture."""

import shutil

import jax
import numpy as np
import pytest

from diffjax import lora, main, sample
from diffjax.build.stages import loading, places
from diffjax.core import trees
from diffjax.images import png
from tests import lora_base


def train(base, folder, *flags):
    where = ["--config", f"configs/lora.py:tiny:{base}", "--workdir", str(folder)]
    return main.main([*where, "--config.train.sample_every=0", *flags])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(base, the workdir of a run, the line that it ended with)."""
    folder = tmp_path_factory.mktemp("lora")
    base = lora_base.write(folder / "base.safetensors")
    assert train(base, folder / "run") == 0
    return base, folder / "run"


def drawn(tmp_path, *flags):
    """The picture of a class."""
    out = tmp_path / str(len(list(tmp_path.iterdir())))
    asked = ["--class", "7", "--steps", "2", "--out", str(out)]
    code = sample.main([*asked, *map(str, flags)])
    return code, out / "0000_seed0_8px.png"


def test_a_run_changes_its_targets_alone_and_keeps_no_other_parameters(made):
    base, run = made
    was, now = (
        trees.named_leaves(jax.device_get(loading.load([place]).stages[0].params))
        for place in (base, run)
    )
    differ = {name for name in was if not np.array_equal(was[name], now[name])}
    assert differ == {name for name in was if "/attention/" in name and name.endswith("kernel")}
    step = max((run / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    kept = sum(path.stat().st_size for path in step.rglob("*") if path.is_file())
    assert kept < 3 * base.stat().st_size  # the state of all parameters would be four times as much


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_like_one_that_was_not(made, tmp_path, capsys):
    base, run = made
    assert train(base, tmp_path / "b", "--config.train.num_steps=2") == 0
    capsys.readouterr()
    assert train(base, tmp_path / "b") == 0
    again = capsys.readouterr().out
    assert train(base, run) == 0
    ends = [
        next(line for line in text.splitlines() if line.startswith("digest of step 4"))
        for text in (again, capsys.readouterr().out)
    ]
    assert ends[0] == ends[1]
    assert len(places.options_of(run).lora.checkpoint) == 64


def test_a_run_does_not_go_on_with_another_base(made, tmp_path, capsys):
    other = tmp_path / "base.safetensors"
    lora_base.write(other, change=lambda tree: jax.tree.map(lambda x: x + 1, tree))
    shutil.copytree(made[1], tmp_path / "run")
    capsys.readouterr()
    assert train(other, tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "is another one than the run began with" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("layout", ["diffusers", pytest.param("kohya", marks=pytest.mark.slow)])
def test_an_exported_file_draws_what_the_run_draws_and_the_picture_says_so(
    made, tmp_path, layout, capsys
):
    base, run = made
    file = tmp_path / "a.safetensors"
    assert lora.main(["export", str(run), "--out", str(file), "--layout", layout]) == 0
    assert "8 layers of digits, rank 2, step 4, decay_0.99" in capsys.readouterr().out
    code, ours = drawn(tmp_path, "--stages", base, "--lora", file)
    _, whole = drawn(tmp_path, "--stages", run)
    assert code == 0
    differ = np.abs(png.read(ours).astype(int) - png.read(whole))
    assert differ.max() <= 1
    ((digest, weight),) = png.read_metadata(ours)["stages"][0]["loras"]
    assert (len(digest), weight) == (64, 1.0)
    like = ["--stages", base, "--like", ours]
    _, again = drawn(tmp_path, *like, "--lora", file)
    np.testing.assert_array_equal(png.read(again), png.read(ours))
    capsys.readouterr()
    assert drawn(tmp_path, *like)[0] == 2
    assert "name the files in their order with --lora FILE" in capsys.readouterr().err


def test_what_is_in_a_file_is_shown(made, tmp_path, capsys):
    file = tmp_path / "a.safetensors"
    assert lora.main(["export", str(made[1]), "--out", str(file)]) == 0
    assert lora.main(["show", str(file)]) == 0
    said = capsys.readouterr().out
    assert "8 layers, rank 2" in said
    assert "down_0_0_attention_qkv: rank 2, alpha 2" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["export", "{base}", "--out", "x"], "trains no LoRA, but a whole network"),
        (["show", "{base}"], "is not of a LoRA"),
        (["show", "nowhere"], "there is no such file"),
        (["prior", "--prompt", "a", "--out", "{here}"], "is there already; name a new folder"),
        (["prior", "--prompt", "a", "--stages", "{base}", "--out", "{here}/new"], "takes no text"),
    ],
)
def test_a_mistake_is_one_line(made, tmp_path, capsys, words, said):
    (tmp_path / "file").write_text("")
    asked = [word.format(base=made[0], here=tmp_path) for word in words]
    assert lora.main(asked) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
