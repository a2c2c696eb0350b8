import io

import numpy as np
import pytest
from PIL import Image

from diffjax.data import transforms


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)


def encoded(image, image_format, **options):
    data = io.BytesIO()
    image.save(data, image_format, **options)
    return data.getvalue()


def test_png_keeps_every_pixel(noise):
    np.testing.assert_array_equal(transforms.decode(transforms.encode_png(noise)), noise)


def test_lossless_webp_keeps_every_pixel(noise):
    data = encoded(Image.fromarray(noise), "WEBP", lossless=True)
    np.testing.assert_array_equal(transforms.decode(data), noise)


def test_jpeg_keeps_a_plain_colour():
    grey = np.full((16, 16, 3), 128, np.uint8)
    np.testing.assert_array_equal(transforms.decode(encoded(Image.fromarray(grey), "JPEG")), grey)


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK"])
def test_other_modes_become_rgb(mode):
    image_format = "JPEG" if mode == "CMYK" else "PNG"
    image = transforms.decode(encoded(Image.new(mode, (5, 4)), image_format))
    assert image.shape == (4, 5, 3)


def test_what_is_transparent_shows_white():
    half = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    half.putpixel((1, 0), (255, 0, 0, 255))
    assert transforms.decode(encoded(half, "PNG")).tolist() == [[[255, 255, 255], [255, 0, 0]]]


@pytest.mark.parametrize(
    "damage", [lambda d: b"", lambda d: b"GIF89a" + d, lambda d: d[: len(d) // 2]]
)
def test_damaged_or_foreign_bytes_are_a_value_error(noise, damage):
    with pytest.raises(ValueError, match="not a complete image"):
        transforms.decode(damage(transforms.encode_png(noise)))


def test_resizing_to_its_own_size_changes_nothing(noise):
    square = noise[:, :12]
    np.testing.assert_array_equal(transforms.centre_square(square, 12), square)


def test_resizing_takes_the_centre_square():
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 4:12] = 200
    np.testing.assert_array_equal(transforms.centre_square(wide, 4), np.full((4, 4, 3), 200))


def test_shrinking_averages_instead_of_skipping_pixels():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = transforms.centre_square(stripes, 16)
    assert np.abs(small.astype(int) - 127).max() <= 12


def test_a_crop_is_a_part_of_the_image_and_reaches_every_place(noise):
    places = {(y, x): noise[y : y + 10, x : x + 10].tobytes() for y in range(3) for x in range(11)}
    rng = np.random.default_rng(0)
    crops = {transforms.random_crop(noise, 10, rng).tobytes() for _ in range(400)}
    assert crops == set(places.values())


def test_a_crop_of_the_whole_is_the_whole(noise):
    square = noise[:, :12]
    np.testing.assert_array_equal(
        transforms.random_crop(square, 12, np.random.default_rng(0)), square
    )


@pytest.mark.parametrize("crop_px", [0, 13])
def test_a_crop_larger_than_the_image_is_a_value_error(noise, crop_px):
    with pytest.raises(ValueError, match=f"crop_px={crop_px} must be 1 to 12"):
        transforms.random_crop(noise, crop_px, np.random.default_rng(0))


def test_every_caption_is_chosen_equally_often():
    rng = np.random.default_rng(0)
    chosen = [transforms.choose_caption(("a", "b", "c", "d"), rng) for _ in range(4000)]
    assert all(900 < chosen.count(caption) < 1100 for caption in "abcd")


def test_no_captions_is_the_empty_caption():
    assert transforms.choose_caption((), np.random.default_rng(0)) == ""
