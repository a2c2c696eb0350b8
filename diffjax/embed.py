"""python -m diffjax.embed --captions FILE --out PATH [--encoder NAME]: captions -> embeddings.

FILE has one caption a line. PATH is made, or extended if it is this encoder's already.
Exit codes: 0 done, 2 bad input.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from diffjax import text


def main(argv: Sequence[str] | None = None) -> int:
    """Parses `argv`, writes the cache, and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m diffjax.embed", description=__doc__)
    parser.add_argument("--captions", type=Path, required=True, help="text file, one per line")
    parser.add_argument("--out", type=Path, required=True, help="the cache to write (.safetensors)")
    parser.add_argument("--encoder", default="t5-nano", help="a name or a folder")
    parser.add_argument("--max-length", type=int, default=96, help="tokens per caption, with eos")
    parser.add_argument("--batch-size", type=int, default=64, help="captions encoded at a time")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    args = parser.parse_args(argv)
    try:
        captions = read_captions(args.captions)
        if args.batch_size < 1:
            raise ValueError(f"--batch-size {args.batch_size}, want at least 1")
        encoder = text.load_encoder(args.encoder, args.max_length, args.dtype)
        if args.out.exists():
            text.cache.open_cache(args.out, encoder)  # another encoder's is not overwritten
        with tqdm(desc="embed", unit="caption", disable=not sys.stderr.isatty()) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            made = text.cache.ensure(args.out, encoder, captions, args.batch_size, progress)
    except (ValueError, OSError) as error:
        print(f"embed: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {len(made)} captions, {len(made.tokens)} tokens of {made.header}")
    return 0


def read_captions(path: Path) -> list[str]:
    """The lines of `path` that are not blank; none at all is a ValueError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None
    captions = [line.strip() for line in lines if line.strip()]
    if not captions:
        raise ValueError(f"{path}: no captions in it")
    return captions


if __name__ == "__main__":
    sys.exit(main())
