"""Formatted numbers have their documented texts, and columns line up."""

import pytest

from diffjax.core import tables

GIB = 2**30


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1540, "1.54 kB"), (999_600, "1 MB"), (3.2e9, "3.2 GB")],
)
def test_disk_sizes_are_printed_in_steps_of_1000_with_three_digits(num_bytes, text):
    assert tables.format_bytes(num_bytes) == text


def test_sizes_of_many_terabytes_are_printed_with_four_digits():
    assert tables.format_bytes(1.5e15) == "1500 TB"


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(1.5 * GIB, "1.50 GiB"), (20 * 2**20, "20 MiB"), (1.5 * 2**20, "1.5 MiB"), (3072, "3 KiB")],
)
def test_memory_sizes_are_printed_in_steps_of_1024(num_bytes, text):
    assert tables.format_memory(num_bytes) == text


@pytest.mark.parametrize(
    ("number", "text"), [(1.234e15, "1.23 P"), (5e12, "5.00 T"), (2.5e9, "2.50 G"), (3e5, "0.30 M")]
)
def test_quantities_have_an_si_prefix(number, text):
    assert tables.format_quantity(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0.0 s"), (4.24, "4.2 s"), (59.97, "1 min 0 s"), (75, "1 min 15 s"), (7300, "2 h 1 min")],
)
def test_durations_are_printed_in_the_two_largest_units(seconds, text):
    assert tables.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05"), (360000, "100:00:00")],
)
def test_clock_times_have_two_digits_for_minutes_and_seconds(seconds, text):
    assert tables.format_clock(seconds) == text


def test_columns_start_left_and_numbers_end_right():
    rows = [("step", "state", ""), ("5", "good", ""), ("12345", "incomplete", "no manifest")]
    assert tables.align_columns(rows, right=(0,)) == [
        " step  state",
        "    5  good",
        "12345  incomplete  no manifest",
    ]


def test_a_table_without_rows_has_no_lines():
    assert tables.align_columns([]) == []


def test_rows_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        tables.align_columns([("a", "b"), ("c",)])


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(59.9, "59.9 s"), (59.96, "1 min 0 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min"),
     (7300, "2 h 1 min")],
)  # fmt: skip
def test_a_duration_changes_its_units_at_a_minute_and_at_an_hour(seconds, shown):
    assert tables.format_duration(seconds) == shown
