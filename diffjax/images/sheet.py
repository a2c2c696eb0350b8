"""Contact sheets: one picture with many pictures in rows, and a caption under each."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from diffjax.core.files import write_whole
from diffjax.images import letters

MARGIN_PX = 6


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    captions: Sequence[str],
    *,
    tile_px: int,
    columns: int = 4,
) -> Image.Image:
    """One cell per entry of `rows`: its pictures (uint8 [h w 3]) side by side, then its caption.

    Smaller pictures are enlarged to `tile_px` without smoothing, so that their pixels are seen.

    Raises:
      ValueError: there are no rows, or not one caption per row.
    """
    if len(rows) != len(captions) or not rows:
        raise ValueError(f"{len(rows)} cells and {len(captions)} captions: one each, at least one")
    font_px = max(11, tile_px // 12)
    font = letters.plain(font_px)
    line_px = int(font_px * 1.3)
    cell_width = max(len(row) for row in rows) * (tile_px + MARGIN_PX)
    texts = [wrap_text(caption, font, cell_width - MARGIN_PX) for caption in captions]
    cell_height = tile_px + line_px * max(text.count("\n") + 1 for text in texts) + 3 * MARGIN_PX
    columns = min(columns, len(rows))
    height = -(-len(rows) // columns) * cell_height
    sheet = Image.new("RGB", (columns * cell_width + MARGIN_PX, height + MARGIN_PX), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (row, text) in enumerate(zip(rows, texts, strict=True)):
        x = MARGIN_PX + i % columns * cell_width
        y = MARGIN_PX + i // columns * cell_height
        for j, picture in enumerate(row):
            tile = Image.fromarray(np.asarray(picture)).resize(
                (tile_px, tile_px), Image.Resampling.NEAREST
            )
            left = x + j * (tile_px + MARGIN_PX)
            sheet.paste(tile, (left, y))
            box = (left - 1, y - 1, left + tile_px, y + tile_px)
            draw.rectangle(box, outline=(225, 225, 225))
        letters.draw_lines(draw, (x, y + tile_px + MARGIN_PX // 2), text, font, (40, 40, 40))
    return sheet


def wrap_text(text: str, font: letters.Font, width_px: int, max_lines: int = 4) -> str:
    """`text` broken at spaces into lines of at most `width_px`; a text too long ends in dots.

    A word that is wider than that and the margin, as a sentence in Chinese may be, is broken too.
    """
    lines, most = [""], width_px + MARGIN_PX
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if letters.length(longer, font) <= width_px:
            lines[-1] = longer
            continue
        fits = letters.length(word, font) <= most
        first, *more = [word] if fits else _broken(word, font, width_px)
        lines = [*lines, first, *more] if lines[-1] else [first, *more]
    if len(lines) > max_lines:
        last = lines[max_lines - 1]
        while len(last) > 1 and letters.length(f"{last} ...", font) > most:
            last = last[:-1]
        lines = [*lines[: max_lines - 1], f"{last} ..."]
    return "\n".join(lines)


def _broken(word: str, font: letters.Font, width_px: int) -> list[str]:
    """A word in pieces of at most `width_px`, or of one character where that is wider."""
    pieces = [""]
    for char in word:
        if pieces[-1] and letters.length(pieces[-1] + char, font) > width_px:
            pieces.append(char)
        else:
            pieces[-1] += char
    return pieces


def save(sheet: Image.Image, path: Path) -> Path:
    """Write a PNG completely or not at all, and make its folder; returns `path`.

    Raises:
      StorageError: the disk is full or fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    write_whole(path, file.getvalue())
    return path
