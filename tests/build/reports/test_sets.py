"""What sets of pictures are judged by: extractors and CLIPs that flags name, and files."""

from pathlib import Path

import numpy as np
import pytest

from diffjax.build.reports.sets import opening
from diffjax.build.stages import places
from diffjax.encoders.clip import encoder
from diffjax.evaluation.collect import collect
from diffjax.evaluation.metrics import statistics
from tests.encoders.clip import small
from tests.evaluation import toys


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    return small.write(tmp_path_factory.mktemp("clips") / "small")


def test_the_tower_of_a_clip_is_an_extractor(clip_folder):
    found = opening.extractor_of(f"clip:{clip_folder}")
    assert (found.label, found.width) == ("fd_clip", encoder.load(clip_folder).config.embed)


def test_an_extractor_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match=r"extractor 'vgg': want one of lite0.*clip:WHERE"):
        opening.extractor_of("vgg")
    with pytest.raises(ValueError, match=r"--extractor = '\./no where'"):
        opening.extractor_of("clip:./no where")


def test_a_file_of_statistics_must_be_alike_in_all(tmp_path):
    path = tmp_path / "some.safetensors"
    whole = collect("", [toys.pictures(9)], toys.extractor()).whole
    statistics.save(path, whole.statistics)
    read = opening.of_file(str(path), toys.extractor(), 9, any_count=False)
    np.testing.assert_array_equal(read.statistics.moments.mean, whole.statistics.moments.mean)
    assert read.features is None
    assert opening.of_file(str(path), toys.extractor(), 7, any_count=True).count == 9
    for extractor, count, words in (
        (toys.extractor(), 7, "is of 9 pictures, and 7 are to be compared with them: --num 9"),
        (toys.extractor("another"), 9, "with extractor another and with extractor six means"),
        (toys.extractor(resize="box"), 9, "with resize box and with resize none"),
    ):
        with pytest.raises(ValueError, match=words):
            opening.of_file(str(path), extractor, count, any_count=False)


def test_a_file_of_something_else_is_refused(tmp_path):
    stage = str(places.shipped() / "base64.safetensors")
    with pytest.raises(ValueError, match="want 'diffjax statistics'"):
        opening.of_file(stage, toys.extractor(), 9, any_count=False)
    other = tmp_path / "fid.npz"
    np.savez(other, mu=np.zeros(6), sigma=np.eye(6))
    assert opening.is_statistics(str(other))
    with pytest.raises(ValueError, match="does not say of which pictures"):
        opening.of_file(str(other), toys.extractor(), 9, any_count=False)
    assert not opening.is_statistics("folder:a")
    assert Path(other).exists()
