"""No file can make diffjax run code: the package has no such call and refuses such files."""

import ast
import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest

import diffjax
from diffjax import checkpoint
from diffjax.build.options import config
from diffjax.checkpoint import portable
from diffjax.core import tensorfile
from diffjax.core.errors import ConfigError, StorageError
from diffjax.encoders import tensors
from tests.checkpoint.states import fill, like

PACKAGE = Path(diffjax.__file__).parent
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
# These read PyTorch's files by unpicklers of their own, which make arrays and dictionaries alone.
RESTRICTED = {"torch_archive.py", "torch_legacy.py"}
OF_PICKLE = {"Unpickler", "UnpicklingError"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}


def dangerous_calls(tree):
    """(line, name) of every import and call that could run code from a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [getattr(node, "module", None) or "", *(a.name for a in node.names)]
            for module in FORBIDDEN_MODULES & {m.split(".")[0] for m in modules}:
                yield node.lineno, module
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name in FORBIDDEN_CALLS:
                yield node.lineno, name
            if given.get("shell", "False") != "False":
                yield node.lineno, "shell=True"
            if given.get("allow_pickle", "False") != "False":
                yield node.lineno, "allow_pickle=True"
            if name == "torch.load" and given.get("weights_only") != "True":
                yield node.lineno, "torch.load without weights_only=True"
            if name.startswith("yaml.") and name.endswith("load") and "safe" not in name:
                yield node.lineno, name


def test_no_call_in_the_package_can_run_code_from_a_file():
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 50
    found = [(f.name, *x) for f in files for x in dangerous_calls(ast.parse(f.read_text()))]
    assert [x for x in found if not (x[0] in RESTRICTED and x[2] == "pickle")] == []


def test_every_unpickler_of_the_package_chooses_what_a_file_may_name():
    """They use nothing else of pickle, and look up no class by its name in a file."""
    files = [path for path in PACKAGE.rglob("*.py") if path.name in RESTRICTED]
    assert {path.name for path in files} == RESTRICTED
    for path in files:
        tree = ast.parse(path.read_text())
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle"
        }
        assert used <= OF_PICKLE, path
        for one in ast.walk(tree):
            if isinstance(one, ast.ClassDef) and "Unpickler" in "".join(
                map(ast.unparse, one.bases)
            ):
                (find,) = (f for f in one.body if getattr(f, "name", "") == "find_class")
                assert "super()" not in ast.unparse(find), path
                assert "import_module" not in ast.unparse(find), path


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from cloudpickle import load", "import marshal as m", "eval(x)",
        "exec(x)", "subprocess.run(x, shell=True)", "np.load(f, allow_pickle=True)",
        "torch.load(f)", "torch.load(f, weights_only=False)", "yaml.load(f)", "os.system(x)",
    ],
)  # fmt: skip
def test_the_search_finds_dangerous_lines(line):
    assert list(dangerous_calls(ast.parse(line)))


class Bomb:
    """Unpickling it makes the folder `path`."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def bomb(tmp_path):
    """(a pickle that runs code, a function that says whether it ran)."""
    mark = tmp_path / "went_off"
    raw = pickle.dumps(Bomb(mark))
    pickle.loads(raw)
    assert mark.exists()  # this pickle does run code
    mark.rmdir()
    return raw, mark.exists


def in_zip(raw):
    """A pickle in a zip archive, as PyTorch writes it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", raw)
    return out.getvalue()


@pytest.mark.parametrize("pack", [lambda raw: raw, in_zip])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json"])
def test_a_pickle_under_the_name_of_weights_or_config_is_refused(name, pack, bomb, tmp_path):
    raw, went_off = bomb
    file = tmp_path / name
    file.write_bytes(pack(raw))
    if name == "config.json":
        with pytest.raises((ConfigError, StorageError), match=r"config\.json"):
            config.restore(file)
    else:
        with pytest.raises(ValueError, match=name):
            tensors.open_folder(tmp_path)
    if file.suffix == ".safetensors":
        with pytest.raises(ValueError, match="not safetensors"):
            tensorfile.verify(file)
        with pytest.raises(ConfigError, match="not safetensors"):
            portable.load(file)
    assert not went_off()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    fill(path, 1)
    return path


@pytest.mark.parametrize(
    "name", ["manifest.json", "_CHECKPOINT_METADATA", "state/_METADATA", "data/metadata"]
)
def test_a_pickle_in_a_checkpoint_does_not_run_even_without_verification(name, bomb, saved):
    raw, went_off = bomb
    file = saved / "1" / name
    before = file.read_bytes()
    file.write_bytes(raw)
    checkpoints = checkpoint.open_to_read(saved)
    try:
        with pytest.raises(OSError, match=f"{name}|none|no checkpoint"):
            checkpoint.restore(checkpoints, like())
        if name in ("state/_METADATA", "data/metadata"):
            with pytest.raises(Exception):  # noqa: B017, PT011  orbax raises several types
                checkpoint.read(saved / "1")
    finally:
        file.write_bytes(before)
    assert not went_off()
