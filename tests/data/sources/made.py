"""Small data sets of every kind, with the same pictures and captions."""

import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

COUNT = 12
COLOURS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (30, 60, 200)}


def picture(index, size=(24, 20)):
    """A picture that tells its index: a plain colour, lighter from one index to the next."""
    colour = np.array(list(COLOURS.values())[index % 3]) + index
    return Image.fromarray(np.full((size[1], size[0], 3), colour, np.uint8))


def encoded(image, kind="PNG", **options):
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def caption(index):
    return f"picture {index} in {list(COLOURS)[index % 3]}"


def folder(root, captions="txt", count=COUNT, kind="png"):
    """Pictures with captions in one of five ways, or in none."""
    root.mkdir(parents=True)
    rows = []
    for index in range(count):
        sub = "" if captions == "classes" else "more/" * (index % 2)
        if captions == "classes":
            sub = f"{list(COLOURS)[index % 3]}_things/"
        path = root / f"{sub}p{index:03d}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(index).save(path)
        rows.append((f"{sub}{path.name}", caption(index)))
        if captions == "txt":
            path.with_suffix(".txt").write_text(caption(index) + "\n")
    if captions in ("metadata.jsonl", "captions.jsonl"):
        lines = [json.dumps({"file_name": name, "text": text}) for name, text in rows]
        (root / captions).write_text("\n".join(lines))
    if captions == "captions.json":
        (root / captions).write_text(json.dumps({name: [text] for name, text in rows}))
    if captions in ("captions.csv", "captions.tsv"):
        with open(root / captions, "w", newline="") as stream:
            table = csv.writer(stream, delimiter="\t" if captions.endswith("tsv") else ",")
            table.writerows([("image", "caption"), *rows])
    return root


def four_ways(root, count=200):
    """Captions in NAME.txt, metadata.jsonl, captions.csv and the folder's name, a quarter each."""
    each, columns = count // 4, {}
    for index in range(count):
        way = ("one", "two", "three", f"a_{list(COLOURS)[index % 3]}_thing")[index // each]
        path = root / way / f"p{index:03d}.{('png', 'jpg')[index % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(index % 20, (40 + index % 9, 36)).save(path)
        columns.setdefault(way, []).append((path.name, caption(index)))
    for name, text in columns["one"]:
        (root / "one" / name).with_suffix(".txt").write_text(text)
    lines = [json.dumps({"file_name": name, "text": text}) for name, text in columns["two"]]
    (root / "two/metadata.jsonl").write_text("\n".join(lines))
    with open(root / "three/captions.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([("image", "caption"), *columns["three"]])
    return root


def tar(path, members):
    """A tar of (name, bytes)."""
    with tarfile.open(path, "w") as stream:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            stream.addfile(info, io.BytesIO(data))
    return path


def tars(root, count=COUNT, shards=2):
    """WebDataset's layout."""
    root.mkdir(parents=True, exist_ok=True)
    each = count // shards
    for shard in range(shards):
        members = []
        for index in range(shard * each, (shard + 1) * each):
            members += [
                (f"{index:05d}.png", encoded(picture(index))),
                (f"{index:05d}.txt", caption(index).encode()),
                (f"{index:05d}.cls", str(index % 3).encode()),
            ]
        tar(root / f"set-{shard:03d}.tar", members)
    return f"{root}/set-{{000..{shards - 1:03d}}}.tar"


def parquet(root, count=COUNT, files=2, groups=3):
    """Hugging Face's layout: {bytes, path}, a text, and a class with names in the metadata."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    root.mkdir(parents=True, exist_ok=True)
    names = {"info": {"features": {"label": {"names": list(COLOURS), "_type": "ClassLabel"}}}}
    each = count // files
    for file in range(files):
        indices = range(file * each, (file + 1) * each)
        table = pa.table(
            {
                "image": [{"bytes": encoded(picture(i)), "path": f"{i}.png"} for i in indices],
                "text": [caption(i) for i in indices],
                "label": [i % 3 for i in indices],
            }
        ).replace_schema_metadata({"huggingface": json.dumps(names)})
        pq.write_table(table, root / f"part-{file}.parquet", row_group_size=-(-each // groups))
    return f"{root}/part-*.parquet"


def svgs(root, count=COUNT):
    root.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        red, green, blue = picture(index).getpixel((0, 0))
        (root / f"d{index:03d}.svg").write_text(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10">'
            f"<title>{caption(index)}</title>"
            f'<rect width="10" height="10" fill="rgb({red},{green},{blue})"/></svg>'
        )
    return root


def icons(root, count=COUNT):
    root.mkdir(parents=True, exist_ok=True)
    bodies = {}
    for index in range(count):
        red, green, blue = picture(index).getpixel((0, 0))
        body = f'<rect width="16" height="16" fill="rgb({red},{green},{blue})"/>'
        bodies[caption(index).replace(" ", "-")] = {"body": body}
    (root / "icons.json").write_text(json.dumps({"icons": bodies}))
    return root


def every(root: Path) -> dict[str, str]:
    """The names of all of them, by their kinds, as data.name takes them."""
    return {
        "folder": f"folder:{folder(root / 'folder')}",
        "tar": f"tar:{tars(root / 'tars')}",
        "parquet": f"parquet:{parquet(root / 'parquet')}",
        "svg": f"svg:{svgs(root / 'svgs')}",
        "iconify": f"iconify:{icons(root / 'icons')}",
    }
