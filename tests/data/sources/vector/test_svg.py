"""Drawings of strangers: what they show, what they are called, and what they cannot reach."""

import pytest

from diffjax.data.broken import BrokenRecord
from diffjax.data.sources.vector import svg
from diffjax.data.transforms import decode
from tests.data.sources import made

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '


def test_a_drawing_fills_the_square_on_its_ground():
    wide = HEAD + 'viewBox="0 0 20 10"><rect width="20" height="10" fill="red"/></svg>'
    pixels = decode(svg.rasterise(wide, 16, "#0000ff"))
    assert pixels.shape == (16, 16, 3)
    assert pixels[8, 8].tolist() == [255, 0, 0]
    assert pixels[1, 8].tolist() == [0, 0, 255]
    assert (pixels[4:12] == [255, 0, 0]).all()


@pytest.mark.parametrize(
    ("title", "caption"),
    [
        ("<title>a  red\n apple &amp; leaf</title>", "a red apple & leaf"),
        ("<title/><dc:title>an apple</dc:title>", "an apple"),
        ("<title>untitled</title>", "my file 2"),
        (f"<title>{'x' * 400}</title>", "my file 2"),
        ("", "my file 2"),
    ],
)
def test_the_title_is_the_caption_or_else_the_name_of_the_file(tmp_path, title, caption):
    (tmp_path / "my_file-2.svg").write_text(f'{HEAD}viewBox="0 0 1 1">{title}</svg>')
    assert svg.open_svg(tmp_path, 8).captions(0) == (caption,)


def test_a_drawing_reads_nothing_from_the_disk(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(made.encoded(made.picture(0).resize((64, 64))))
    for reference in (str(secret), f"file://{secret}", "secret.png"):
        for attribute in ("href", "xlink:href"):
            image = f'<image {attribute}="{reference}" width="8" height="8"/>'
            drawing = f'{HEAD}viewBox="0 0 8 8">{image}</svg>'
            assert (decode(svg.rasterise(drawing, 8)) == 255).all(), reference


@pytest.mark.parametrize(
    "text", ["", "no drawing", "<svg>", "<svg xmlns='http://www.w3.org/2000/svg'/>x"]
)
def test_what_cannot_be_drawn_is_a_broken_record(tmp_path, text):
    with pytest.raises(BrokenRecord, match="cannot be drawn") as caught:
        svg.rasterise(text, 8)
    assert "\n" not in str(caught.value)


def test_a_huge_file_is_refused_before_it_is_drawn(tmp_path):
    with open(tmp_path / "x.svg", "wb") as stream:
        stream.truncate(svg.MAX_SVG_BYTES + 1)
    with pytest.raises(BrokenRecord, match="more than"):
        svg.open_svg(tmp_path, 8)[0]
