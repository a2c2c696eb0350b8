"""Captions in any script: drawn in a font that has them, or written as something legible."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, features

from diffjax.images import letters
from diffjax.images.sheet import contact_sheet, wrap_text

DEJAVU = Path(matplotlib.get_data_path(), "fonts/ttf")
FONT = letters.plain(11)
INK = (40, 40, 40)


@pytest.fixture
def fonts(monkeypatch):
    """fonts(folder, ...): the system has the fonts of these folders alone."""

    def use(*folders):
        monkeypatch.setattr(letters, "FOLDERS", tuple(map(str, folders)))
        for cached in (letters._system_fonts, letters._has):
            cached.cache_clear()

    yield use
    letters._system_fonts.cache_clear()


def drawn(text, size=(400, 60)):
    canvas = Image.new("RGB", size, "white")
    letters.draw_lines(ImageDraw.Draw(canvas), (4, 4), text, FONT, INK)
    return np.asarray(canvas)


@pytest.mark.parametrize("text", ["a red apple", "two\nlines (3)", "Ag,; {x} ~ 100%"])
def test_what_pillows_font_has_is_drawn_as_pillow_draws_it(text):
    canvas = Image.new("RGB", (400, 60), "white")
    ImageDraw.Draw(canvas).multiline_text((4, 4), text, fill=INK, font=FONT)
    np.testing.assert_array_equal(drawn(text), np.asarray(canvas))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("caf\xe9 cr\xe8me", "cafe creme"), ("cafe\u0301", "cafe"),
        ("\u4e2d", "\\u4e2d"), ("\U00020000", "\\U00020000"),
        ("\u0642\u0637\u0629", "\\u0642\\u0637\\u0629"), ("a\x07b", "a\\u0007b"),
        ("\uff21\uff11", "A1"), ("\u0e17\u0e34\u0e4c", "\\u0e17\\u0e34\\u0e4c"),
    ],
)  # fmt: skip
def test_without_a_font_accents_are_left_out_and_the_rest_is_written_as_escapes(
    fonts, text, written
):
    """An empty box would say nothing."""
    fonts()
    assert "".join(run.text for run in letters.runs(text, FONT)) == written
    np.testing.assert_array_equal(drawn(text), drawn(written))


def test_letters_of_other_scripts_are_drawn_in_a_font_of_the_system_that_has_them(fonts):
    fonts(DEJAVU)
    for text in ("caf\xe9", "\u043a\u043e\u0442", "\u03b3\u03ac\u03c4\u03b1",
                 "\u0642\u0637\u0629 \u0635\u063a\u064a\u0631\u0629!"):  # fmt: skip
        parts = letters.runs(text, FONT)
        assert "".join(run.text for run in parts) == text or not features.check_feature("raqm")
        assert {Path(run.font.path).name for run in parts if run.font is not FONT} == {
            "DejaVuSans.ttf"
        }
        assert not any("\\u" in run.text for run in parts)
    mixed = "a \u0642\u0637\u0629 and \u043a\u043e\u0442 too"
    assert [run.text for run in letters.runs(mixed, FONT)] == [
        "a ", "\u0642\u0637\u0629", " and ", "\u043a\u043e\u0442", " too"
    ]  # fmt: skip
    # a phrase from right to left is one part, so that its words keep their order
    assert len(letters.runs("\u0642\u0637\u0629 \u0635\u063a\u064a\u0631\u0629", FONT)) == 1


def test_an_emoji_is_drawn_in_colour_between_the_words(fonts):
    fonts()
    text = "a cat \U0001f431 and a frog"
    (before, face, after) = letters.runs(text, FONT)
    assert (before.text, face.text, after.text) == ("a cat ", "\U0001f431", " and a frog")
    assert before.font is after.font is FONT
    pixels = drawn(text).astype(int)
    assert (pixels.max(-1) - pixels.min(-1)).max() > 60  # its colours
    assert letters.length(text, FONT) > letters.length("a cat  and a frog", FONT)
    # its parts are one drawing
    for joined in ("\u2764\ufe0f", "\U0001f44b\U0001f3fd", "\U0001f468\u200d\U0001f469"):
        (run,) = letters.runs(joined, FONT)
        assert run.text == joined


def test_a_font_that_has_a_box_for_everything_is_passed_over(fonts):
    """Such as the last resort of macOS and of matplotlib."""
    fonts(DEJAVU)
    assert (DEJAVU / "LastResortHE-Regular.ttf").exists()
    assert letters.runs("\u4e2d", FONT)[0].text == "\\u4e2d"


def test_damaged_fonts_are_passed_over(fonts, tmp_path):
    (tmp_path / "a.ttf").write_bytes(b"no font")
    (tmp_path / "b.otf").write_bytes((DEJAVU / "DejaVuSans.ttf").read_bytes()[:9000])
    fonts(tmp_path, DEJAVU)
    (run,) = letters.runs("\u043a\u043e\u0442", FONT)
    assert Path(run.font.path).parent == DEJAVU


def test_a_sentence_without_blanks_is_broken_where_the_line_ends(fonts):
    fonts(DEJAVU)
    text = "\u043a" * 40
    lines = wrap_text(text, FONT, 100, max_lines=9).split("\n")
    assert "".join(lines) == text
    assert len(lines) > 2
    assert all(letters.length(line, FONT) <= 100 for line in lines)
    assert wrap_text("one " + text, FONT, 100, max_lines=9).split("\n")[0] == "one"


def test_a_sheet_shows_captions_of_all_kinds(fonts):
    fonts()
    grey = np.full((16, 16, 3), 128, np.uint8)
    captions = ["\u0642\u0637\u0629", "\u4e00\u53ea\u7ea2\u732b", "\U0001f600 \U0001f431", "a cat"]
    sheet = np.asarray(contact_sheet([[grey]] * 4, captions, tile_px=64))
    wide = sheet.shape[1] // 4
    for cell in range(4):
        below = sheet[64 + 10 :, cell * wide + 6 : (cell + 1) * wide]
        assert (below < 160).any(), captions[cell]
