"""A folder with a small encoder, as the hub has them."""

from diffjax.encoders import weights
from diffjax.models import t5
from tests.models.random_t5 import random_params

CONFIG = t5.T5Config(384, 16, 4, 24, 2, 3)


def write(folder, change=None):
    params = random_params(CONFIG)
    weights.save(folder, CONFIG, change(params) if change else params)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    return folder
