import numpy as np
import pytest

from diffjax.images import letters
from diffjax.images.sheet import MARGIN_PX, contact_sheet, wrap_text


def tile(value, px=8):
    return np.full((px, px, 3), value, np.uint8)


def test_pictures_of_a_row_are_enlarged_to_one_size_and_set_side_by_side():
    rows = [[tile(0, 8), tile(50, 32)], [tile(100, 8), tile(150, 32)], [tile(200, 8), tile(90, 32)]]
    sheet = np.asarray(contact_sheet(rows, ["one", "two", "three"], tile_px=32, columns=2))
    step = 32 + MARGIN_PX
    at = lambda row, column: sheet[  # noqa: E731
        MARGIN_PX + 16 + row, MARGIN_PX + 16 + column * step, 0
    ]
    assert [at(0, i) for i in range(4)] == [0, 50, 100, 150]
    assert 200 in sheet[sheet.shape[0] // 2 :]


def test_a_caption_is_drawn_under_the_picture():
    sheet = np.asarray(contact_sheet([[tile(255, 64)]], ["a red apple"], tile_px=64))
    assert (sheet[64 + MARGIN_PX + 2 :] < 100).any()


def test_long_captions_are_wrapped_and_end_in_dots():
    from PIL import ImageFont

    font = ImageFont.load_default(size=11)
    text = wrap_text("word " * 100, font, 60)
    lines = text.split("\n")
    assert len(lines) == 4
    assert lines[-1].endswith("...")
    assert all(font.getlength(line) <= 60 for line in lines[:-1])


def test_captions_of_small_cells_stay_in_them_and_a_word_that_nearly_fits_stays_whole():
    font = letters.plain(11)
    width = int(letters.length("green", font)) - 1
    lines = wrap_text("a green pentagon on white", font, width, max_lines=3).split("\n")
    assert lines[:2] == ["a", "green"]
    assert lines[2].endswith(" ...")
    assert all(letters.length(line, font) <= width + MARGIN_PX for line in lines)


def test_a_missing_caption_is_refused():
    with pytest.raises(ValueError, match="1 cells and 0 captions"):
        contact_sheet([[tile(0)]], [], tile_px=8)
