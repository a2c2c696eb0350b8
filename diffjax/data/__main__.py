"""python -m diffjax.data check SOURCE | prepare SOURCE OUT

check says what a data set holds and what in it cannot be used, and draws a sheet of it.
prepare writes it as ArrayRecord, found by index and fast to read, with the embeddings of its
captions beside it; a run that was cut off goes on where it was. SOURCE is folder:DIR, tar:GLOB,
parquet:GLOB, tfds:NAME, hf:NAME, svg:DIR, iconify:DIR, or a mixture A*2+B; docs/data.md has all.
Exit codes: 0 done, 2 bad input, 5 the disk is full, 143 stopped; run again to go on.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from diffjax.core import command
from diffjax.core.errors import ConfigError, InputError
from diffjax.core.files import write_whole
from diffjax.data.prepare import Look, prepare
from diffjax.data.record import RecordSource, first_caption, image_of
from diffjax.data.report import report
from diffjax.data.sources.folder import CAPTIONS
from diffjax.data.sources.open import CAPTION_KEY, IMAGE_KEY, Wanted, open_source
from diffjax.data.transforms import ASPECTS, centre_square, decode
from diffjax.images.colour import WHITE
from diffjax.images.sheet import contact_sheet, save
from diffjax.logs.progress import Progress

ON_A_SHEET = 24
TILE_PX = 128
MAX_COUNTED = 10_000  # tokens of a caption
SAID = 20  # broken records that are named on the screen


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the flags, does the work, and returns the exit code."""
    return command.run_command(parser(), work, arguments)


def parser() -> argparse.ArgumentParser:
    """The flags of the two commands."""
    flags = command.parser("data", __doc__)
    commands = flags.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="say what is in a data set")
    _add_source(check)
    check.add_argument("--limit", type=int, default=0, help="look at so many records; 0: at all")
    check.add_argument("--sheet", type=command.path, default=Path("check.png"), help="a PNG")
    check.add_argument("--json", type=command.path, help="write the report here too")
    check.add_argument("--encoder", default="t5-nano", help="whose tokens captions are counted in")
    check.add_argument("--max-tokens", type=int, default=96, help="so many does training keep")
    write = commands.add_parser("prepare", help="write it as ArrayRecord")
    _add_source(write)
    write.add_argument("out", type=command.path, metavar="OUT", help="a new folder, or its own")
    write.add_argument("--size", type=int, default=0, help="squares of this side; 0: as they are")
    write.add_argument("--aspect", choices=ASPECTS, default="centre", help="what of no square")
    write.add_argument("--validation", type=float, default=0.0, help="share of a split of its own")
    write.add_argument("--encoder", default="", help="write embeddings by it too, such as t5-nano")
    write.add_argument("--max-tokens", type=int, default=96, help="of an embedding")
    for one in (check, write):
        one.add_argument("--workers", type=int, help="processes, 0: this one; as many as cores")
    return flags


def work(flags: argparse.Namespace) -> None:
    """Runs the command that the flags name."""
    if flags.workers is None:
        flags.workers = os.cpu_count() or 1
    try:
        {"check": run_check, "prepare": run_prepare}[flags.command](flags)
    except ConfigError:
        raise
    except ValueError as error:
        raise InputError(f"data: {error}") from None


def run_check(flags: argparse.Namespace) -> None:
    """Prints the report, and writes the sheet and the JSON."""
    source = open_source(flags.source, _wanted(flags))
    count_tokens = _tokens_of(flags.encoder)
    found = report(source, limit=flags.limit, workers=flags.workers, progress=_progress())
    print("\n".join(found.lines(count_tokens, flags.max_tokens)))
    for skipped in found.broken[:SAID]:
        print(f"  cannot be used: {skipped.name or skipped.record}: {skipped.reason}")
    if len(found.broken) > SAID:
        print(f"  and {len(found.broken) - SAID} more; --json FILE has all")
    if flags.json:
        write_whole(flags.json, json.dumps(found.as_json(), indent=1).encode())
        print(f"report: {flags.json}")
    sheet = sheet_of(source)
    if sheet is not None:
        save(sheet, flags.sheet)
        print(f"sheet: {flags.sheet}")


def run_prepare(flags: argparse.Namespace) -> None:
    """Writes the data set, and the embeddings if an encoder is named."""
    names = ("train", "validation") if flags.validation else (flags.split,)
    splits = {
        name.partition("[")[0]: open_source(flags.source, _wanted(flags, name)) for name in names
    }
    look = Look(flags.size, flags.aspect, flags.ground)
    made = prepare(splits, flags.out, look, workers=flags.workers, progress=_progress())
    for split, shards in made.items():
        records = sum(shard.records for shard in shards)
        left_out = sum(len(shard.left_out) for shard in shards)
        said = f", {left_out:,} left out, listed in left_out.jsonl" if left_out else ""
        print(f"{flags.out}: {split}: {records:,} records in {len(shards)} files{said}")
    wants = f"--config.data.name={flags.out}"
    if flags.encoder:
        place = _embed(flags.out, list(splits), flags.encoder, flags.max_tokens)
        wants += f" --config.data.embeddings={place}"
    print(f"train on it: {wants}")


def sheet_of(source: RecordSource) -> Image.Image | None:
    """A sheet of pictures spread over the data set, without broken ones; None if all are broken."""
    rows, captions = [], []
    count = min(ON_A_SHEET, len(source))
    for number in range(count):
        try:
            record = source[number * len(source) // count]
            rows.append([centre_square(decode(image_of(record)), TILE_PX)])
        except ValueError:
            continue
        captions.append(first_caption(record) or str(record.get("name", ""))[-40:])
    if not rows:
        return None
    return contact_sheet(rows, captions, tile_px=TILE_PX, columns=6)


def _add_source(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("source", metavar="SOURCE", help="such as folder:photos")
    flags.add_argument("--split", default="train", help="of the source, or a slice: train[:100]")
    flags.add_argument("--captions", choices=CAPTIONS, default=CAPTIONS[0], help="of a folder")
    flags.add_argument("--image-key", default=IMAGE_KEY, help="the field with the picture")
    flags.add_argument("--caption-key", default=CAPTION_KEY, help="the field with the captions")
    flags.add_argument("--ground", default=WHITE, help="shows where pictures are transparent")


def _wanted(flags: argparse.Namespace, split: str = "") -> Wanted:
    return Wanted(
        split=split or flags.split,
        size_px=getattr(flags, "size", 0) or 256,
        ground=flags.ground,
        image_key=flags.image_key,
        caption_key=flags.caption_key,
        captions=flags.captions,
        validation=getattr(flags, "validation", 0.0),
    )


def _tokens_of(encoder: str) -> Callable[[str], int]:
    from diffjax.encoders.text import load_encoder

    tokens = load_encoder(encoder).tokens
    return lambda text: len(tokens.ids(text, MAX_COUNTED))


def _embed(out: Path, splits: Sequence[str], name: str, max_tokens: int) -> Path:
    """Writes the embeddings of all captions below the folder of the data set."""
    from diffjax.data.captions import from_source
    from diffjax.encoders.cache import cache
    from diffjax.encoders.text import load_encoder

    encoder = load_encoder(name, max_tokens)
    place = out / "embeddings"
    for split in splits:
        captions = from_source(open_source(str(out), Wanted(split=split)))
        cache.extend(place, encoder, captions)
    print(f"{place}: {len(cache.open_cache(place, encoder)):,} captions")
    return place


def _progress() -> Callable[[int, int], None]:
    """Shows on stderr how far it is; the report alone is on stdout."""
    shown: list[Progress] = []
    before = 0

    def tell(done: int, total: int) -> None:
        nonlocal before
        if not shown:
            shown.append(Progress(total, "records"))
        shown[0].tick(done - before)
        before = done
        if done == total and sys.stderr.isatty():
            print(file=sys.stderr)

    return tell


if __name__ == "__main__":
    command.start(main)
