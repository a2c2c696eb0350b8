import dataclasses

import pytest

from diffjax.devices import chips


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v4", "TPU v4"),
        ("TPU v5 lite", "TPU v5e"),
        ("TPU v5", "TPU v5p"),
        ("TPU v6 lite", "TPU v6e"),
        ("TPU7x", "TPU7x"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
    ],
)
def test_a_device_kind_names_its_chip(kind, name):
    assert chips.chip_of(kind) == chips.CHIPS[name]


def test_an_unknown_device_kind_has_no_chip():
    assert chips.chip_of("cpu") is None
    assert chips.chip_of("NVIDIA GeForce RTX 4090") is None


def test_every_chip_is_found_by_some_device_kind():
    assert {name for _, name in chips.KINDS} == set(chips.CHIPS)


def test_the_ridges_are_those_of_the_published_figures():
    """FLOP per byte at which a program turns from memory to arithmetic."""
    ridge = {name: chip.peak_flops / chip.bandwidth for name, chip in chips.CHIPS.items()}
    expected = {"TPU v4": 224, "TPU v5e": 241, "TPU v5p": 166, "TPU v6e": 560, "TPU7x": 313,
                "H100 SXM": 295, "H200": 206}  # fmt: skip
    assert {name: round(ridge[name]) for name in expected} == expected


def test_a_slice_becomes_the_arguments_of_a_topology():
    assert chips.topology_arguments("v5e:16x16") == dict(platform="tpu", topology_name="v5e:16x16")
    assert chips.topology_arguments("v6e:1x1")["chips_per_host_bounds"] == (1, 1, 1)
    v4 = chips.topology_arguments("v4:4x4x4")
    assert (v4["chip_config_name"], v4["chips_per_host_bounds"]) == ("megacore", (2, 2, 1))


@pytest.mark.parametrize(
    "name", ["", "v5e", "v5e:", "v5e:4", "v5e:4x4x4", "v4:4x4", "v9:2x2", "v5e:3x3", "v5e:0x2",
             "v5e:32x32", "v5e:axb", "V5E:2x2", "v5p:1x2x2", "v5e:2x2 "]
)  # fmt: skip
def test_any_other_name_is_refused_with_the_forms_there_are(name):
    with pytest.raises(ValueError, match="v4:AxBxC, v5e:AxB, v5p:AxBxC, v6e:AxB or tpu7x:AxBxC"):
        chips.topology_arguments(name)


def test_the_roofline_takes_the_slower_of_arithmetic_and_memory_for_each_operation():
    chip = dataclasses.replace(chips.CHIPS["TPU v4"], peak_flops=100.0, bandwidth=10.0)
    times = chips.least_seconds(chip, [(100.0, 1.0), (10.0, 20.0)])
    assert times == {"compute": 1.1, "memory": 2.1, "roofline": 1.0 + 2.0}
