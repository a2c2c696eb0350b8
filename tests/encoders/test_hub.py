import http.server
import json
import sys
import threading

import pytest

from diffjax.encoders import hub, tensors, weights
from diffjax.encoders.clip import encoder as clip
from diffjax.encoders.clip import vocabulary
from diffjax.encoders.t5 import load_encoder
from diffjax.models.t5 import T5Config
from tests.encoders.clip import small
from tests.models.random_t5 import random_params

CONFIG = T5Config(384, 8, 4, 8, 1, 2)
COMMITS = {"main": "a" * 40, "v2": "b" * 40}


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers the requests of a download: the list of a model's files, their headers and contents.

    The server has `models`, {name: {commit: {path: bytes}}}, and `gone`, {name: error code}.
    """

    def do_GET(self):
        path = self.path.split("?")[0].strip("/").split("/")
        self.server.asked.append(self.path)
        if path[:2] == ["api", "models"]:
            name, what = "/".join(path[2:4]), path[4:]
            if name not in self.server.models:
                return self.refuse(self.server.gone.get(name, "RepoNotFound"))
            revision = what[1] if what else "main"
            commit = COMMITS.get(revision, revision)
            if commit not in self.server.models[name]:
                return self.refuse("RevisionNotFound")
            files = self.server.models[name][commit]
            if what[:1] == ["tree"]:
                return self.answer([dict(type="file", path=p, size=len(b), oid=str(abs(hash(b))))
                                    for p, b in files.items()])  # fmt: skip
            siblings = [{"rfilename": file} for file in files]
            return self.answer({"id": name, "sha": commit, "siblings": siblings})
        name, commit, file = "/".join(path[:2]), path[3], "/".join(path[4:])
        commit = COMMITS.get(commit, commit)
        self.body(self.server.models[name][commit][file], {"X-Repo-Commit": commit})

    do_HEAD = do_GET

    def answer(self, value):
        self.body(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def body(self, content, headers):
        self.send_response(200)
        length = {"Content-Length": str(len(content)), "ETag": f'"{abs(hash(content)):x}"'}
        for key, value in (headers | length).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def refuse(self, code):
        self.send_response(403 if code == "GatedRepo" else 404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """{path: bytes} of a small ByT5, with many other files that are not needed."""
    folder = tmp_path_factory.mktemp("model")
    weights.save(folder, CONFIG, random_params(CONFIG))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    other = ("README.md", "tf_model.h5", "pytorch_model.bin", "onnx/model.safetensors")
    return files | dict.fromkeys(other, b"not wanted")


@pytest.fixture
def server(model, tmp_path, monkeypatch):
    """A hub on this machine, and an empty cache."""
    constants = pytest.importorskip("huggingface_hub.constants")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.models, server.asked = {"owner/t5": {COMMITS["main"]: model}}, []
    server.gone = {"owner/gated": "GatedRepo"}
    serve = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    serve.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    files = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()


def test_only_the_needed_files_of_a_model_are_downloaded(server, model):
    folder = hub.fetch("owner/t5")
    assert {f.name for f in folder.iterdir()} == {
        "config.json", "tokenizer_config.json", "model.safetensors"
    }  # fmt: skip
    assert (folder / "model.safetensors").read_bytes() == model["model.safetensors"]
    assert load_encoder("owner/t5").encode(["a"])[0].shape == (1, 16, 8)


def test_a_clip_comes_with_its_merges_and_the_scaling_of_its_pixels(server, tmp_path):
    folder = small.write(tmp_path / "small")
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    server.models["owner/clip"] = {COMMITS["main"]: files | {"flax_model.msgpack": b"not wanted"}}
    found = clip.load("owner/clip")
    assert {f.name for f in clip.resolve("owner/clip").iterdir()} == files.keys()
    assert (found.name, found.config) == ("owner/clip", small.CONFIG)
    assert found.fingerprint == clip.load(folder).fingerprint


def test_openais_merges_come_from_the_hub_without_open_clip(server, tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary.importlib.util, "find_spec", lambda name: None)
    server.models[vocabulary.ON_THE_HUB] = {COMMITS["main"]: {"merges.txt": b"#version\na b\n"}}
    assert vocabulary.load("openai").vocabulary == 512 + 1 + 2
    server.models.clear()
    monkeypatch.setattr(vocabulary, "ON_THE_HUB", "owner/nothing")
    with pytest.raises(ValueError, match="pip install open-clip-torch, which has it, or name a"):
        vocabulary.load("openai")


def test_a_revision_can_be_a_branch_or_a_commit(server, model):
    changed = dict(model) | {"README.md": b"2"}
    changed["config.json"] = model["config.json"] + b" "
    server.models["owner/t5"][COMMITS["v2"]] = changed
    for name in ("owner/t5@v2", "owner/t5@" + COMMITS["v2"]):
        assert hub.fetch(name).joinpath("config.json").read_bytes() == changed["config.json"]
    assert hub.fetch("owner/t5").joinpath("config.json").read_bytes() == model["config.json"]


def test_without_a_network_the_cache_is_used(server, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    folder = hub.fetch("owner/t5")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(server.asked)
    assert hub.fetch("owner/t5") == folder
    with pytest.raises(ValueError, match=r"'owner/t6' is not in the cache.*give its folder") as no:
        hub.fetch("owner/t6")
    assert "\n" not in str(no.value)
    assert len(server.asked) == asked


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owner/nothing", r"no model 'owner/nothing', or it is private.*hf auth login"),
        ("owner/gated", r"'owner/gated' is gated: accept its licence"),
        ("owner/t5@v9", r"'owner/t5' has no revision 'v9'"),
        ("owner/no--name", r"not a valid name of a model"),
    ],
)
def test_an_error_of_the_hub_becomes_one_line_with_a_remedy(server, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_encoder(name)
    assert "\n" not in str(caught.value)
    assert "is neither a folder nor one of ['t5-nano']" in str(caught.value)


def test_pickles_are_not_downloaded_without_pytorch(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    server.models["owner/t5"][COMMITS["main"]] = {"config.json": b"{}", "pytorch_model.bin": b""}
    with pytest.raises(ValueError, match="pip install torch"):
        hub.fetch("owner/t5")
    assert not [path for path in server.asked if "resolve" in path]


def test_the_error_for_a_missing_hub_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        hub.fetch("owner/t5")


@pytest.mark.parametrize("name", ["./t5", "/data/t5", "a/b/c", "", "..t5", "a b", "~/t5"])
def test_a_path_is_never_looked_up_on_the_hub(name, monkeypatch):
    monkeypatch.setattr(hub, "fetch", lambda name: pytest.fail("asked"))
    with pytest.raises(ValueError, match="is neither a folder"):
        load_encoder(name or "no/such/folder")
    assert not hub.is_name(name)


TOKENS = ["config.json", "spiece.model", "tokenizer_config.json"]
SHARDS = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
BINS = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]


@pytest.mark.parametrize(
    ("there", "needed"),
    [
        ([tensors.WEIGHTS, *SHARDS, *BINS], [tensors.WEIGHTS]),
        ([tensors.INDEX, *SHARDS, tensors.TORCH_WEIGHTS], [tensors.INDEX, *SHARDS]),
        ([tensors.TORCH_WEIGHTS, "model.fp16.safetensors"], [tensors.TORCH_WEIGHTS]),
        ([tensors.TORCH_INDEX, *BINS, "flax_model.msgpack"], [tensors.TORCH_INDEX, *BINS]),
    ],
)
def test_only_one_format_of_the_weights_is_needed(there, needed):
    others = ["README.md", "old/config.json", "old/model-00001-of-00002.safetensors"]
    assert sorted(hub.needed_files([*TOKENS, *there, *others])) == sorted([*TOKENS, *needed])


def test_a_model_without_a_known_format_is_refused():
    with pytest.raises(ValueError, match=r"none of model\.safetensors, "):
        hub.needed_files(["config.json", "flax_model.msgpack"])
    with pytest.raises(ValueError, match=r"no config\.json"):
        hub.needed_files([tensors.WEIGHTS])
