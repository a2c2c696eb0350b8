"""A process that works alone; several that train together are in tests/training."""

from diffjax.devices import processes


def test_a_single_process_agrees_with_itself_at_once_without_a_collective():
    agree = processes.Agreement()
    assert [agree(told) for told in (False, True, False)] == [False, True, False]
    assert vars(agree) == {"_alone": True, "_before": None}  # no program, no array


def test_a_single_process_connects_to_nobody_and_is_neither_silenced_nor_ended(capsys):
    processes.initialize(None)
    processes.silence_all_but_first()
    print("heard")
    assert capsys.readouterr().out == "heard\n"
    assert [processes.end_if_failed(code) for code in (0, 2, 143)] == [0, 2, 143]
    assert processes.is_first()
