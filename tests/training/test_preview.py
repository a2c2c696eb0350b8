import numpy as np
import pytest
from PIL import ImageFont

from diffjax.images.sheet import contact_sheet, wrap_text
from diffjax.training.preview import tile_of


@pytest.mark.parametrize("side_px", [4, 8, 12])
def test_a_small_picture_is_enlarged_by_a_whole_number_until_its_caption_fits(side_px):
    tile_px = tile_of(side_px)
    assert tile_px % side_px == 0
    font = ImageFont.load_default(size=max(11, tile_px // 12))
    lines = wrap_text("an openmoji drawing of a woman astronaut", font, tile_px).split("\n")
    assert max(font.getlength(line) for line in lines) <= tile_px
    assert not lines[-1].endswith("...")
    sheet = contact_sheet([[np.zeros((side_px, side_px, 3), np.uint8)]], ["7"], tile_px=tile_px)
    assert sheet.width >= tile_px


@pytest.mark.parametrize(("side_px", "tile_px"), [(16, 32), (64, 128), (256, 256), (1024, 256)])
def test_a_larger_picture_is_shown_at_twice_its_size_up_to_256_px(side_px, tile_px):
    assert tile_of(side_px) == tile_px
