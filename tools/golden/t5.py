"""Writes tests/golden/t5_*: random T5 encoders as transformers saves them, and their outputs.

    PEERS/bin/python -m tools.golden.t5      (an environment with PyTorch and transformers)

t5_NAME/ is a checkpoint folder; t5_NAME.safetensors holds ids, mask and the reference's output.
t5_family.safetensors holds the outputs alone for the configs of `tests.encoders.family`, whose
weights and ids are drawn again where they are needed.
t5_buckets.safetensors holds the reference's relative-position buckets.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import T5Config, T5EncoderModel
from transformers.models.t5.modeling_t5 import T5Attention

from tests.encoders import family

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
# Odd sizes, all different, so that a test notices if two axes are confused.
SIZES = {
    "v1_0": {
        "feed_forward_proj": "relu", "vocab_size": 40, "d_model": 18, "d_kv": 5, "d_ff": 22,
        "num_layers": 3, "num_heads": 3,
    },
    "v1_1": {
        "feed_forward_proj": "gated-gelu", "vocab_size": 37, "d_model": 20, "d_kv": 7, "d_ff": 26,
        "num_layers": 2, "num_heads": 4, "relative_attention_num_buckets": 12,
        "relative_attention_max_distance": 40, "tie_word_embeddings": False,
    },
}  # fmt: skip
LENGTHS = {"v1_0": (150, 97, 1), "v1_1": (33, 30, 7)}
BUCKETS = ((32, 128), (12, 40), (16, 200))


def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name, sizes in SIZES.items():
        torch.manual_seed(0)
        model = T5EncoderModel(T5Config(**sizes)).eval()
        for (
            parameter
        ) in model.parameters():  # norms start at 1, and an error in them would not show there
            if parameter.ndim == 1:
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
        lengths = torch.tensor(LENGTHS[name])
        mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
        ids = torch.randint(2, sizes["vocab_size"], mask.shape) * mask
        with torch.inference_mode():
            output = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        model.save_pretrained(GOLDEN / f"t5_{name}")
        tensors = {"ids": ids.int(), "mask": mask, "output": output.contiguous()}
        save_file(tensors, GOLDEN / f"t5_{name}.safetensors")
    outputs = {name: answer(name) for name in family.FAMILY}
    save_file(outputs, GOLDEN / "t5_family.safetensors")
    distance = torch.arange(-600, 601)
    tables = {
        f"{count}_{far}": T5Attention._relative_position_bucket(
            distance, bidirectional=True, num_buckets=count, max_distance=far
        )
        .to(torch.uint8)
        .contiguous()
        for count, far in BUCKETS
    }
    save_file(tables, GOLDEN / "t5_buckets.safetensors")


def answer(name: str) -> torch.Tensor:
    """The output of the reference for a config of the family, with its random weights."""
    model = T5EncoderModel(T5Config(**family.FAMILY[name])).eval()
    drawn = {tensor: torch.from_numpy(value) for tensor, value in family.weights(name).items()}
    missing, unknown = model.load_state_dict(drawn, strict=False)
    assert not unknown, unknown
    assert all(tensor == "encoder.embed_tokens.weight" for tensor in missing), missing
    ids, mask = (torch.from_numpy(x) for x in family.tokens(name))
    with torch.inference_mode():
        return model(input_ids=ids.long(), attention_mask=mask.long()).last_hidden_state


if __name__ == "__main__":
    main()
