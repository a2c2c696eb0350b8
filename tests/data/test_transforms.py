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


@pytest.mark.parametrize("width_px", [5, 16, 63])
def test_what_is_stored_to_be_read_quickly_keeps_every_pixel_and_is_small_where_it_can_be(width_px):
    noise = np.random.default_rng(1).integers(0, 256, (32, width_px, 3), np.uint8)
    plain = np.full((32, width_px, 3), (200, 30, 90), np.uint8)
    for image, kind in ((noise, b"BM"), (plain, b"\x89PNG")):
        data = transforms.encode_quick(image)
        assert data.startswith(kind)
        np.testing.assert_array_equal(transforms.decode(data), image)


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
    half = Image.new("RGBA", (8, 4), (0, 0, 0, 0))
    half.paste((255, 0, 0, 255), (4, 0, 8, 4))
    for ground, colour in (("white", [255] * 3), ("#102030", [16, 32, 48])):
        shown = transforms.decode(encoded(half, "PNG"), ground)
        assert shown[:, [0, -1]].tolist() == [[colour, [255, 0, 0]]] * 4


@pytest.mark.parametrize(
    "damage", [lambda d: b"", lambda d: b"GIF89a" + d, lambda d: d[: len(d) // 2]]
)
def test_damaged_or_foreign_bytes_are_a_value_error(noise, damage):
    with pytest.raises(ValueError, match=r"not a picture|damaged"):
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


def test_a_random_square_keeps_a_share_of_the_shorter_side_at_any_place():
    """The channels hold each pixel's place, so a square says which part of the picture it is."""
    y, x = np.mgrid[:60, :100]
    image = Image.fromarray(np.stack([2 * x, 2 * y, 0 * x], axis=-1).astype(np.uint8))
    rng, shares, lefts, tops = np.random.default_rng(0), [], [], []
    for _ in range(400):
        seen = transforms.random_square(image, 30, 0.8, rng).astype(float)
        assert seen.shape == (30, 30, 3)
        side = (seen[15, 28, 0] - seen[15, 1, 0]) / 2 / 27 * 30
        shares.append(side / 60)
        lefts.append(seen[:, 1, 0].mean() / 2)
        tops.append(seen[1, :, 1].mean() / 2)
    assert 0.78 < min(shares) < 0.83
    assert 0.97 < max(shares) < 1.02
    # the side is 60 over a number uniform from 1 to 1.25
    assert np.mean(shares) == pytest.approx(np.log(1.25) / 0.25, abs=0.01)
    assert (min(lefts), min(tops)) < (6, 4)
    assert max(lefts) > 42
    assert max(tops) > 9


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


@pytest.mark.parametrize("side", [(1, 1), (2000, 1), (3, 40)])
def test_a_picture_of_less_than_four_pixels_is_broken(side):
    with pytest.raises(transforms.BrokenRecord, match=f"{side[0]} x {side[1]} px: thinner than 4"):
        transforms.decode(encoded(Image.new("RGB", side), "PNG"))


def test_a_square_is_the_centre_or_any_place_of_the_longer_side_or_all_with_a_ground():
    ramp = np.repeat(np.arange(20, dtype=np.uint8)[None, :, None], 8, 0).repeat(3, 2)  # 8 x 20
    centre = transforms.square(Image.fromarray(ramp), 8, "centre")
    np.testing.assert_array_equal(centre[0, :, 0], np.arange(6, 14))
    rng = np.random.default_rng(0)
    firsts = {
        int(transforms.square(Image.fromarray(ramp), 8, "random", rng=rng)[0, 0, 0])
        for _ in range(200)
    }
    assert firsts == set(range(13))
    np.testing.assert_array_equal(transforms.square(Image.fromarray(ramp), 8, "random"), centre)
    padded = transforms.square(Image.fromarray(ramp), 20, "pad", ground="#102030")
    assert padded[0, 0].tolist() == [16, 32, 48]
    np.testing.assert_array_equal(padded[6:14], ramp)


@pytest.mark.parametrize("size", [8, 13, 40])
def test_shrinking_and_enlarging_are_pillows(noise, size):
    want = Image.fromarray(noise[:, 4:16]).resize((size, size), Image.Resampling.BICUBIC)
    got = transforms.centre_square(noise, size).astype(int)
    assert np.abs(got - np.array(want)).max() <= 1


def test_half_of_the_pictures_are_mirrored_but_none_that_names_a_side(noise):
    rng = np.random.default_rng(0)
    turned = [
        np.array_equal(transforms.mirrored(noise, ("a cat",), rng), noise[:, ::-1])
        for _ in range(1000)
    ]
    assert 420 < sum(turned) < 580
    for caption in ("a cat looking left", "an arrow to the Right", "a sign that says STOP"):
        assert all(
            transforms.mirrored(noise, ("a cat", caption), rng) is noise for _ in range(20)
        ), caption
    a, b = np.random.default_rng(1), np.random.default_rng(1)
    transforms.mirrored(noise, ("left",), a), transforms.mirrored(noise, ("cat",), b)
    assert a.random() == b.random()
