import numpy as np
import pytest
from PIL import Image, ImageSequence

from diffjax.images import film

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
FRAMES = [np.full((16, 16, 3), colour, np.uint8) for colour in COLOURS]


def test_a_film_shows_its_frames_in_order_then_holds_the_last_and_loops(tmp_path):
    for path in film.write(tmp_path / "a.b", FRAMES, ms=80, hold_ms=1000, metadata={"x": "🍏"}):
        with Image.open(path) as image:
            assert image.n_frames == 3
            assert image.info["loop"] == 0
            for frame, colour in zip(ImageSequence.Iterator(image), COLOURS, strict=True):
                middle = np.asarray(frame.convert("RGB"), int)[8, 8]
                assert np.abs(middle - colour).max() < 12
            image.seek(2)
            image.load()
            assert image.info["duration"] == 1000
        assert film.read_metadata(path) == {"x": "🍏"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.b.gif", "a.b.webp"]


def test_a_file_that_is_not_a_film_and_a_film_without_frames_are_refused(tmp_path):
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match=r"a\.gif: is not a film"):
        film.read_metadata(tmp_path / "a.gif")
    with pytest.raises(ValueError, match="no frames"):
        film.write(tmp_path / "b", [])


def test_evenly_spaced_indices_include_the_first_and_the_last():
    assert film.evenly_spaced(3, 5) == [0, 1, 2]
    assert film.evenly_spaced(9, 5) == [0, 2, 4, 6, 8]
    kept = film.evenly_spaced(1000, 39)
    assert (kept[0], kept[-1], len(kept)) == (0, 999, 39)
    assert set(np.diff(kept)) <= {26, 27}


def test_frames_are_enlarged_without_smoothing_and_shrunk_by_averaging():
    checks = np.kron([[0, 255], [255, 0]], np.ones((4, 4)))[..., None].repeat(3, 2).astype(np.uint8)
    assert set(np.unique(film.resize_square(checks, 16))) == {0, 255}
    assert np.abs(film.resize_square(checks, 1).astype(int) - 127).max() <= 1
