"""The notebook: what it is without being run, and that all of it runs."""

import ast
import base64
import importlib
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diffjax
from tests import runs, test_unclip
from tests.encoders.clip import small
from tests.tiny_t5 import save_tiny

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks/sample.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
CODE = {cell["id"]: "".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"}


def python_of(source):
    """A cell without IPython's own lines, each of which does nothing here."""
    return re.sub(r"^(\s*)[!%].*$", r"\1pass", source, flags=re.M)


def names_of(source):
    """What a cell asks of diffjax: (module, attribute or None)."""
    tree, asked = ast.parse(python_of(source)), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "diffjax":
            asked |= {(node.module, alias.name) for alias in node.names}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            asked.add((node.value.id, node.attr))
    return asked


def test_it_is_a_notebook_without_outputs():
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in CELLS]
    assert len(set(ids)) == len(ids)
    for cell in CELLS:
        assert cell["cell_type"] in ("code", "markdown")
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


def test_every_code_cell_is_python_and_follows_a_line_that_says_what_it_does():
    before = None
    for cell in CELLS:
        if cell["cell_type"] == "code":
            ast.parse(python_of("".join(cell["source"])))
            assert before == "markdown"
        before = cell["cell_type"]


def test_what_it_installs_is_this_version_with_a_jax_that_fits():
    install = CODE["install"]
    assert f'VERSION = "v{diffjax.__version__}"' in install
    assert "--branch {VERSION}" in install
    requirements = (ROOT / "requirements.txt").read_text()
    wanted = re.search(r"^jax(.*)$", requirements, re.M)[1].strip()
    assert f'SpecifierSet("{wanted}")' in install


def test_every_name_of_diffjax_that_it_uses_is_there():
    modules = {"diffjax": diffjax}
    seen = 0
    for source in CODE.values():
        asked = names_of(source)
        for module, name in asked:
            if module.startswith("diffjax"):
                found = getattr(importlib.import_module(module), name, None)
                modules[name] = found or importlib.import_module(f"{module}.{name}")
        for module, name in asked:
            if module in modules:
                assert hasattr(modules[module], name), f"{module}.{name}"
                seen += 1
    assert seen > 30


def test_the_readme_leads_to_the_notebook():
    badge = re.search(r"https://colab\.research\.google\.com/github/[\w-]+/[\w-]+/blob/\w+/(\S+?)\)",
                      (ROOT / "README.md").read_text())  # fmt: skip
    assert ROOT / badge[1] == NOTEBOOK
    assert badge[0] in "".join(CELLS[0]["source"])


def with_parameters(notebook, **values):
    """Replace the assignments of form fields; each of them must be there just once."""
    for name, value in values.items():
        field = re.compile(rf"^({name} = ).*(  # @param .*)$", re.M)
        [cell] = [cell for cell in notebook.cells if field.search(cell.source)]
        cell.source = field.sub(lambda m, value=value: f"{m[1]}{value!r}{m[2]}", cell.source)


def execute(notebook, folder, timeout_s=600):
    """Run the cells in `folder` by this Python, from the working tree; the pictures of each."""
    from nbclient import NotebookClient

    client = NotebookClient(
        notebook, timeout=timeout_s, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    client.execute(env={**os.environ, "PYTHONPATH": str(ROOT)})
    return {
        cell.id: [
            Image.open(io.BytesIO(base64.b64decode(data)))
            for output in cell.outputs
            for mime, data in output.get("data", {}).items()
            if mime in ("image/png", "image/gif")
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


def test_without_a_chain_of_a_decoder_its_cells_say_so_and_show_nothing(tmp_path, capsys):
    from diffjax.build.stages import loading

    here = {"Path": Path, "loading": loading}
    cells = [CODE[name] for name in ("unclip", "variations", "ways")]
    exec(cells[0].replace("runs/unclip", str(tmp_path / "none")), here)
    said = capsys.readouterr().out
    assert said.startswith(f"There is no chain in {tmp_path}/none. `docs/unclip.md`")
    assert (ROOT / "docs/unclip.md").is_file()
    for cell in cells[1:]:
        exec(cell, here)
        assert here["cells"] == []


@pytest.mark.slow
def test_every_cell_runs_and_the_pictures_are_there(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    from diffjax import main

    monkeypatch.setenv("DIFFJAX_CACHE_DIR", str(tmp_path / "cache"))
    tiny = ["--config", f"{ROOT}/configs/cascade.py:tiny", "--workdir", str(tmp_path / "tiny")]
    assert main.main(tiny) == 0
    encoder, clip = save_tiny(tmp_path / "t5"), small.write(tmp_path / "clip")
    test_unclip.train_prior(tmp_path / "unclip/prior", encoder, clip)
    flags = test_unclip.flags_of(clip, "train.num_steps=2", "train.ema=()")
    place = tmp_path / "unclip/decoder"
    assert runs.run(place, encoder, *flags, config=test_unclip.DECODER) == 0
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    with_parameters(
        notebook, WORKDIR=str(tmp_path / "tiny"), PICTURES=2, STEPS=3, THINGS="a frog, a dog",
        STRENGTHS=(0.5, 1.0), FRAMES=4, CONFIG="configs/base64.py:tiny", NAMES="",
        TRAIN_STEPS=20, UNCLIP=str(tmp_path / "unclip"),
    )  # fmt: skip
    pictures = execute(notebook, tmp_path)
    shown = {name for name, found in pictures.items() if found}
    assert shown == {
        "show", "contact", "film", "inpaint", "img2img", "morph", "morph-stills",
        "variations", "ways", "again", "loss", "mine",
    }  # fmt: skip
    for name in shown:
        for picture in pictures[name]:
            assert np.asarray(picture.convert("L")).std() > 1, f"{name} is of one grey"
    # one of each step; a frame that is the same as the one before it is left out
    assert 3 < pictures["film"][0].n_frames <= (3 + 1) + (2 + 1)
    assert pictures["morph"][0].n_frames == 4 + 2
    [outputs] = [cell.outputs for cell in notebook.cells if cell.id == "again"]
    said = "".join(output.get("text", "") for output in outputs)
    assert "'an openmoji drawing of a woman astronaut', seed 0: 0 of " in said
    lines = (tmp_path / "runs/mine/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10, 20]
