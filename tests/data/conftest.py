"""A few dozen emoji, prepared once for all tests that read from disk."""

import pytest

from diffjax.data.emoji import builder, drawings, splits


def some_drawings(per_split):
    """Both drawings of at least `per_split` names of every split, and of two more."""
    names = {"red_apple", "grinning_face"}
    for split in splits.assign_splits(drawings.catalogue()).values():
        names.update(drawing.name for drawing in split[: 2 * per_split])
    return tuple(drawing for drawing in drawings.catalogue() if drawing.name in names)


@pytest.fixture(scope="session")
def few_emoji(tmp_path_factory):
    """A data_dir that holds a small emoji/64."""
    data_dir, few = tmp_path_factory.mktemp("tfds"), some_drawings(5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawings, "catalogue", lambda: few)
        builder.prepare(64, data_dir)
    return data_dir
