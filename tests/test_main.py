"""The training command around the training itself."""

import pytest

from diffjax import main
from diffjax.training import loop
from tests.stand import Stand


@pytest.fixture
def trained(monkeypatch):
    """The names of the stages that were trained."""
    stand = Stand(monkeypatch)
    stand.put(loop, "train", gives=lambda run: None)
    return stand.noted


@pytest.mark.parametrize("stage", ["base64", "sr256"])
def test_a_mistake_in_any_stage_is_told_before_the_first_trains(stage, trained, tmp_path, capsys):
    flags = ["--config", "cascade:tiny", "--workdir", str(tmp_path)]
    assert main.main([*flags, f"--config.{stage}.optim.learning_rate=-1"]) == 2
    assert "optim.learning_rate = -1" in capsys.readouterr().err
    assert trained == []


def test_the_stages_of_a_cascade_are_trained_in_their_order_each_in_its_folder(
    trained, tmp_path, capsys
):
    assert main.main(["--config", "cascade:tiny", "--workdir", str(tmp_path)]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("==")]
    assert said == [f"== {name} -> {tmp_path / name}" for name in ("base64", "sr256")]
    assert [name for name, *_ in trained] == ["train", "train"]
