"""Which pictures are read, with which pixels, and which are refused before they cost anything."""

import functools
import io
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from diffjax.data.transforms import decode
from diffjax.images import read, square

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)


def saved(path, image, *args, **options):
    image.save(path, *args, **options)
    return path


@pytest.mark.parametrize("kind", ["png", "bmp", "webp"])
def test_lossless_pictures_are_read_exactly(tmp_path, kind):
    options = {"lossless": True} if kind == "webp" else {}
    path = saved(tmp_path / f"x.{kind}", Image.fromarray(COLOURS), **options)
    np.testing.assert_array_equal(read.read(path), COLOURS)
    assert read.read_size(path) == (6, 5)


def test_transparent_pixels_become_white(tmp_path):
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = 0, 128, 255
    path = saved(tmp_path / "x.png", Image.fromarray(rgba))
    assert read.read(path)[0, :, 0].tolist() == [255, 127, 0]
    assert read.read_mask(path).tolist() == [[False, False, False]]
    rgba[..., :3] = 255
    path = saved(tmp_path / "x.png", Image.fromarray(rgba))
    assert (read.read(path) == 255).all()
    # 128 / 255 of white over black is just past mid grey
    assert read.read_mask(path).tolist() == [[False, True, True]]


def test_palette_grey_cmyk_and_one_bit_pictures_become_rgb(tmp_path):
    grey = np.arange(0, 240, 8, np.uint8).reshape(6, 5)
    as_grey = np.repeat(grey[:, :, None], 3, 2)
    path = saved(tmp_path / "l.png", Image.fromarray(grey))
    np.testing.assert_array_equal(read.read(path), as_grey)
    palette = Image.fromarray(as_grey).quantize(64)
    np.testing.assert_array_equal(read.read(saved(tmp_path / "p.png", palette)), as_grey)
    clear = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    clear.putpalette([255, 0, 0, 0, 0, 255])
    path = saved(tmp_path / "pt.png", clear, transparency=0)
    assert read.read(path)[0].tolist() == [[255, 255, 255], [0, 0, 255]]
    # no ink is white; full cyan, magenta and yellow are black
    cmyk = Image.fromarray(np.array([[[0] * 4] * 8, [[255, 255, 255, 0]] * 8], np.uint8), "CMYK")
    cmyk = cmyk.resize((16, 16), Image.Resampling.NEAREST)
    got = read.read(saved(tmp_path / "c.jpg", cmyk, quality=100)).astype(int)
    np.testing.assert_allclose(got[[0, -1], 0, 0], [255, 0], atol=2)
    one_bit = saved(tmp_path / "1.png", Image.fromarray(grey > 100))
    np.testing.assert_array_equal(read.read(one_bit)[:, :, 0], np.where(grey > 100, 255, 0))


def test_sixteen_bit_values_are_scaled_and_not_clipped(tmp_path):
    values = np.array([[0, 128, 257, 32768, 65407, 65535]], np.uint16)
    path = saved(tmp_path / "x.png", Image.fromarray(values))
    want = np.rint(values / 257.0).astype(int)
    np.testing.assert_array_equal(read.read(path)[:, :, 1], want)
    assert read.read_mask(path).tolist() == [[False, False, False, True, True, True]]


def test_a_photograph_is_rotated_as_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to show it
    path = saved(tmp_path / "x.png", Image.fromarray(COLOURS), exif=exif)
    np.testing.assert_array_equal(read.read(path), np.rot90(COLOURS, -1))


TURNED = {
    2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1), 7: lambda x: np.rot90(x.swapaxes(0, 1), 2), 8: np.rot90,
}  # fmt: skip


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_training_shows_a_picture_turned_as_its_exif_says_as_a_file_is_read(
    tmp_path, kind, orientation
):
    """By rotations of arrays, as the table of EXIF 2.32 has them."""
    stored = np.full((8, 24, 3), 250, np.uint8)
    stored[:, 16:] = 10, 120, 40
    stored[:4, :8] = 200, 20, 20
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    options |= {"lossless": True} if kind == "WEBP" else {}
    path = saved(tmp_path / "x", Image.fromarray(stored), kind, exif=exif, **options)
    got = decode(path.read_bytes())
    np.testing.assert_array_equal(got, read.read(path))
    np.testing.assert_allclose(got.astype(int), TURNED[orientation](stored), atol=30)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "I;16", "1"])
def test_training_reads_every_format_and_mode_as_edit_does(tmp_path, kind, mode):
    values = np.tile(np.linspace(0, 65_535, 24).astype(np.uint16), (16, 1))
    image = Image.fromarray(values)
    if mode != "I;16":
        image = Image.fromarray((values // 257).astype(np.uint8)).convert(mode)
    try:
        assert mode != "I;16" or kind in ("PNG", "TIFF"), "clipped as it is written"
        path = saved(tmp_path / "x", image, kind)
    except (AssertionError, OSError, ValueError):
        pytest.skip(f"Pillow writes no {kind} in {mode}")
    got = decode(path.read_bytes())
    np.testing.assert_array_equal(got, read.read(path))
    assert got.shape == (16, 24, 3)
    if mode != "1":
        np.testing.assert_allclose(got[8, :, 1].astype(int), values[0] // 257, atol=12)


@pytest.mark.parametrize("kind", ["tif", "avif"])
def test_tiff_and_avif_are_read(tmp_path, kind):
    plain = Image.new("RGB", (16, 16), (200, 30, 60))
    got = read.read(saved(tmp_path / f"x.{kind}", plain)).astype(int)
    np.testing.assert_allclose(got, np.array(plain), atol=4)


def swapped_profile():
    """A profile whose red is sRGB's blue and the other way round, of another name than sRGB."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132], "big")
    for i in range(count):
        at = 132 + 12 * i
        name = bytes(data[at : at + 4])
        data[at : at + 4] = {b"rXYZ": b"bXYZ", b"bXYZ": b"rXYZ"}.get(name, name)
    described = data.find(b"sRGB")
    while described >= 0:
        data[described : described + 4] = b"odd "
        described = data.find(b"sRGB")
    wide = data.find("sRGB".encode("utf-16-be"))
    if wide >= 0:
        data[wide : wide + 8] = "odd ".encode("utf-16-be")
    return bytes(data)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_taken_to_srgb_by_the_profile_that_the_picture_carries(tmp_path, mode):
    image = Image.new("RGB", (8, 8), (250, 120, 10))
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    path = saved(tmp_path / "x.png", image, icc_profile=swapped_profile())
    got = read.read(path)[4, 4].astype(int)
    np.testing.assert_allclose(got, [10, 120, 250], atol=3)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for usual in (profile, b"no profile at all"):
        path = saved(tmp_path / "y.png", image, icc_profile=usual)
        assert read.read(path)[4, 4].tolist() == [250, 120, 10]


def test_bytes_are_read_as_their_file_is(tmp_path):
    path = saved(tmp_path / "x.png", Image.fromarray(COLOURS))
    np.testing.assert_array_equal(read.read_bytes(path.read_bytes()), COLOURS)
    with pytest.raises(ValueError, match=r"^6 bytes starting b'<html>' are not a picture of PNG"):
        read.read_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"^0 bytes are not a picture"):
        read.read_bytes(b"")


def test_a_mask_can_be_the_transparency_of_the_picture(tmp_path):
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = 0, 127, 128
    path = saved(tmp_path / "x.png", Image.fromarray(rgba))
    assert read.read_alpha(path).tolist() == [[True, True, False]]
    grey = Image.fromarray(np.array([[0, 257, 65_535]], np.uint16))  # one level of it is clear
    path = saved(tmp_path / "grey.png", grey, transparency=257)
    assert read.read_alpha(path).tolist() == [[False, True, False]]
    with pytest.raises(ValueError, match="has no transparency"):
        read.read_alpha(saved(tmp_path / "y.png", Image.fromarray(COLOURS)))


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("white", "black")]
    path = saved(tmp_path / "x.gif", frames[0], save_all=True, append_images=frames[1:])
    assert (read.read(path) == 255).all()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, more=b""):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + head + more + pixels + chunk(b"IEND", b"")


@functools.cache
def bombs():
    much = zlib.compress(bytes(100_000_000))
    gif = b"\x80\0\0" + bytes(6) + b",\0\0\0\0" + struct.pack("<HH", 1, 1) + b"\0\x02\x02D\x01\0;"
    canvas = (16382).to_bytes(3, "little")
    webp = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + canvas + canvas
    bmp = struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 30000, 30000, 1, 24,
                                                           *[0] * 6)  # fmt: skip
    return {
        "png 13000": png(13_000, 13_000),
        "png 20000": png(20_000, 20_000),
        "png of one line": png(2**31 - 1, 1),
        "text": png(9, 9, chunk(b"zTXt", b"k\0\0" + much)),
        "profile": png(9, 9, chunk(b"iCCP", b"k\0\0" + much)),
        "gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + gif,
        "webp": b"RIFF" + struct.pack("<I", len(webp)) + webp,
        "bmp": b"BM" + bmp,
    }


def rss():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("name", bombs())
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, name):
    """It takes less than 50 ms of the processor and 50 MB."""
    (tmp_path / "x").write_bytes(bombs()[name])
    with pytest.raises(ValueError, match="not a picture"):  # the readers are loaded at first use
        read.read(__file__)
    before, took = rss(), []
    for _ in range(3):
        start = time.process_time()
        with pytest.raises(ValueError, match=r"x: .*(million pixels|not a picture)") as caught:
            read.read(tmp_path / "x")
        took.append(time.process_time() - start)
    assert "\n" not in str(caught.value)
    assert min(took) < 0.05
    assert rss() - before < 50e6


def test_an_animation_of_a_hundred_thousand_frames_is_read_within_a_second(tmp_path):
    frame = b"!\xf9\x04\0\1\0\0\0,\0\0\0\0" + struct.pack("<HH", 1, 1) + b"\0\x02\x02D\x01\0"
    data = b"GIF89a" + struct.pack("<HH", 1, 1) + b"\x80\0\0" + bytes(6) + frame * 100_000 + b";"
    (tmp_path / "x.gif").write_bytes(data)
    start = time.process_time()
    assert read.read(tmp_path / "x.gif").shape == (1, 1, 3)
    assert time.process_time() - start < 1


def test_files_that_are_not_pictures_are_refused_in_one_line(tmp_path):
    good = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(
        good, "PNG"
    )
    files = {
        "text.png": b"no picture at all", "empty.png": b"", "cut.png": good.getvalue()[:3000],
        "tiff.png": b"II*\0" + bytes(100), "large.png": png(8001, 8000),
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "pipe")
    wanted = {
        "text.png": "not a picture of PNG", "empty.png": "not a picture",
        "tiff.png": "not a picture",
        "cut.png": "damaged", "large.png": "8001 x 8000 px is more than 64 million",
        "pipe": "not a regular file", "": "a folder", "missing.png": "no such file",
        "a\0b.png": "no such file", "x" * 5000: "no such file",
    }  # fmt: skip
    for name, words in wanted.items():
        with pytest.raises(ValueError, match=words) as caught:
            read.read(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_square_is_the_middle_of_the_picture_or_all_of_it_with_white_borders():
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6] = 200
    np.testing.assert_array_equal(square.fit_square(wide, 4), np.full((4, 4, 3), 200, np.uint8))
    padded = square.fit_square(wide, 8, "pad")
    np.testing.assert_array_equal(padded[2:6], wide)
    assert (padded[[0, 1, 6, 7]] == 255).all()
    np.testing.assert_array_equal(
        square.fit_square(COLOURS[:5], 5), COLOURS[:5]
    )  # a picture of that size stays as it is
    for shape in ((1, 3000), (3000, 1), (1, 1)):
        for fit in square.FITS:
            assert square.fit_square(np.zeros((*shape, 3), np.uint8), 8, fit).shape == (8, 8, 3)
    with pytest.raises(ValueError, match="fit='stretch'"):
        square.fit_square(wide, 4, "stretch")


@pytest.mark.parametrize("fit", square.FITS)
@pytest.mark.parametrize("shape", [(40, 30), (13, 29), (7, 7)])
def test_pixels_outside_the_square_mask_do_not_depend_on_masked_pixels(shape, fit):
    """Two pictures that differ only under the mask agree outside the mask of their squares."""
    draw = np.random.default_rng(1)
    mask = np.zeros(shape, bool)
    y, x = (side // 2 for side in shape)
    mask[y - 1 : y + 1, x - 1 : x + 2] = True
    one, other = (draw.integers(0, 256, (*shape, 3), np.uint8) for _ in range(2))
    other = np.where(mask[:, :, None], other, one)
    a, b = (square.fit_square(x, 12, fit) for x in (one, other))
    small = square.fit_square_mask(mask, 12, fit)
    assert small.any()
    assert not small.all()
    np.testing.assert_array_equal(a[~small], b[~small])
    assert (a[small] != b[small]).any()
