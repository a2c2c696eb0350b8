"""A whole small Karlo as diffusers saves it: the golden networks at one width, random weights."""

import json
from pathlib import Path

from safetensors.numpy import save_file

from diffjax.encoders.tensors import WEIGHTS as WHOLE
from diffjax.encoders.unclip import prior, texts
from tools.inputs import karlo_inputs, prior_inputs, sd_inputs

GOLDEN = Path(__file__).parents[2] / "golden"
WIDTH, LENGTH = karlo_inputs.TEXT["hidden_size"], karlo_inputs.TEXT["max_position_embeddings"]
WEIGHTS = "diffusion_pytorch_model.safetensors"


def folder(path):
    """Writes one to a new folder; its pictures have 8 and 32 px."""
    shapes = json.loads((GOLDEN / "karlo/shapes.json").read_text())
    wider = {name: [WIDTH if n == karlo_inputs.WIDTH else n for n in shape]
             for name, shape in shapes["text_proj"].items()}  # fmt: skip
    projection = {**karlo_inputs.PROJECTION, "clip_embeddings_dim": WIDTH}
    large = {"_class_name": "UNet2DModel", **karlo_inputs.UPSAMPLER, "sample_size": 32}
    decoder = {"_class_name": "UNet2DConditionModel", **karlo_inputs.DECODER}
    of_prior = json.loads((GOLDEN / "prior/shapes.json").read_text())
    of_prior["positional_embedding"][1] = LENGTH + 4
    for part, config, tensors in (
        ("decoder", decoder, karlo_inputs.tensors("decoder", shapes["decoder"])),
        ("text_proj", {"_class_name": "UnCLIPTextProjModel", **projection},
         karlo_inputs.tensors("text_proj", wider)),
        ("super_res_first", large,
         karlo_inputs.tensors("super_res_first", shapes["super_res_first"])),
        ("super_res_last", large,
         karlo_inputs.tensors("super_res_last", shapes["super_res_first"])),
        ("prior", {"_class_name": prior.CLASS, **prior_inputs.SMALL, "num_embeddings": LENGTH},
         prior_inputs.tensors(of_prior)),
    ):  # fmt: skip
        _json(path / part / "config.json", config)
        save_file(tensors, path / part / WEIGHTS)
    tower(path)
    _json(path / prior.SCHEDULER_FILE, prior.NOISE)
    for name, said in texts.NOISE.items():
        _json(path / name / "scheduler_config.json", said)
    _json(path / texts.INDEX, {"_class_name": texts.CLASS})
    return path


def tower(path):
    """Writes its tokenizer and its text tower alone."""
    shapes = json.loads((GOLDEN / "karlo/shapes.json").read_text())["text_encoder"]
    sd_inputs.write_vocabulary(path / texts.TOKENIZER)
    vocabulary = len(json.loads((path / texts.TOKENIZER / "vocab.json").read_text()))
    _json(path / texts.FOLDER / "config.json", {
        "architectures": ["CLIPTextModelWithProjection"], "model_type": "clip_text_model",
        "vocab_size": vocabulary, **karlo_inputs.TEXT,
    })  # fmt: skip
    save_file(karlo_inputs.tensors("text_encoder", shapes), path / texts.FOLDER / WHOLE)
    return path


def _json(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
