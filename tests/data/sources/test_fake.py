import numpy as np
import pytest

from diffjax.data import transforms
from diffjax.data.record import RecordSource
from diffjax.data.sources import fake


def test_records_are_a_function_of_seed_and_index():
    one, again, other = fake.Shapes(40, 32), fake.Shapes(99, 32), fake.Shapes(40, 32, seed=1)
    assert [one[i] for i in range(40)] == [again[i] for i in range(40)]
    assert one[3]["captions"] == other[3]["captions"]
    assert one[3]["image"] != other[3]["image"]


def test_thirty_records_hold_every_colour_and_shape():
    assert len({record["name"] for record in map(fake.Shapes(30).__getitem__, range(30))}) == 30


@pytest.mark.parametrize("index", range(30))
def test_the_caption_tells_the_colour(index):
    record = fake.Shapes(30, 32)[index]
    colour, _ = record["name"].split("_")
    image = transforms.decode(record["image"])
    assert image.shape == (32, 32, 3)
    assert colour in record["captions"][0]
    is_coloured = (image == fake.COLOURS[colour]).all(axis=-1)
    is_white = (image == 255).all(axis=-1)
    assert is_coloured.mean() > 0.05
    assert is_white.mean() > 0.2
    assert (is_coloured | is_white).mean() > 0.75


def test_it_is_a_record_source_that_ends():
    source = fake.Shapes(3)
    assert isinstance(source, RecordSource)
    assert len(list(source)) == 3
    with pytest.raises(IndexError, match="index 3 of 3"):
        source[3]


def test_an_empty_source_is_a_value_error():
    with pytest.raises(ValueError, match="count=0"):
        fake.Shapes(0)


def test_shapes_differ_in_their_pixels():
    circle, triangle = (transforms.decode(fake.Shapes(5, 32)[i]["image"]) for i in (0, 1))
    assert np.any(circle != triangle)
