"""Examples: spread over a split, each as it is without chance."""

import numpy as np
import pytest

from diffjax.data import readers, transforms
from diffjax.data.record import image_of
from diffjax.data.sources.fake import Shapes
from diffjax.evaluation import examples

SOURCE = Shapes(10, 16, seed=1)


def test_examples_are_spread_evenly_over_the_split():
    few = examples.Spread(SOURCE, 4)
    assert [few[i]["name"] for i in range(4)] == [SOURCE[i]["name"] for i in (0, 2, 5, 7)]
    assert few.captions(2) == SOURCE.captions(5)[:1]
    with pytest.raises(IndexError, match="4 of 4"):
        few[4]
    assert len(examples.Spread(SOURCE, 99)) == 10


def test_an_example_is_whole_and_has_its_first_caption():
    needed = [readers.label, readers.picture(16, 8)]
    found = examples.read(examples.Spread(SOURCE, 3), needed)
    assert len(found) == 3
    assert found.columns.keys() == {"label", "image"}
    picture = transforms.decode(image_of(SOURCE[3]))
    np.testing.assert_array_equal(found.columns["image"][1], picture)
    assert found.captions[1] == SOURCE.captions(3)[0]
    assert found.names[1] == SOURCE[3]["name"]
