"""PyTorch in `benchmarks.t5`: PEERS/bin/python -m benchmarks.t5_peer_worker FOLDER WAY ANSWER."""

import sys

import numpy as np
import torch
import transformers

from benchmarks import t5
from benchmarks.protocol import serve


def main() -> None:
    folder, way, answer = sys.argv[1:]
    model = transformers.T5EncoderModel.from_pretrained(folder).eval()
    given = []
    for rows in t5.batches(way):
        length = t5.PADDED if way == "padded" else max(map(len, rows))
        ids, mask = (torch.from_numpy(x).long() for x in t5.filled(rows, length))
        given.append((ids, mask))

    @torch.inference_mode()
    def encode(ids, mask):
        return model(input_ids=ids, attention_mask=mask).last_hidden_state

    np.save(answer, encode(*given[0])[:, : min(map(len, t5.batches(way)[0]))].numpy())
    serve(
        lambda _: [encode(*part) for part in given], warmup=2, name="pytorch", way=way,
        framework=f"torch {torch.__version__}, transformers {transformers.__version__}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
