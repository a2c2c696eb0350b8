"""The score of a prior's vectors, against vectors whose angles are known."""

import numpy as np

from diffjax.evaluation.aligned import Aligned
from diffjax.evaluation.examples import Examples


def test_cosines_are_those_of_the_true_vectors_and_the_nearest_one_is_found():
    true = np.eye(3, dtype=np.float32)
    text = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0]], np.float32)  # the last has no text
    made = np.array([[3, 0, 4], [0, 2, 0], [1, 1, 0.5]], np.float32)
    examples = Examples({"image_vector": true, "text_vector": text}, ("a", "b", "c"), ("",) * 3)
    found = Aligned()({"made_vector": made}, examples)
    np.testing.assert_allclose(found["cosine_made"], [0.6, 1, 1 / 3], atol=1e-6)
    np.testing.assert_allclose(found["cosine_text"], [0.5**0.5, 0, np.nan], atol=1e-6)
    np.testing.assert_array_equal(found["made_in_1"], [0, 1, 0])


def test_drawings_of_one_name_are_one_thing():
    true = np.eye(3, dtype=np.float32)
    columns = {"image_vector": true, "text_vector": true}
    made = {"made_vector": true[[1, 0, 2]]}
    found = Aligned()(made, Examples(columns, ("a", "a", "b"), ("",) * 3))
    np.testing.assert_array_equal(found["made_in_1"], [1, 1, 1])
