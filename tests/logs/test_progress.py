import io

from diffjax.logs.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """A clock that moves only when a test moves it."""

    now = 100.0

    def __call__(self):
        return self.now


def shown(stream, total, seconds, skip=0, warm=1):
    clock = Clock()
    with Progress(total, warm=warm, stream=stream, clock=clock) as progress:
        progress.skip(skip)
        for passed in seconds:
            clock.now += passed
            progress.tick()
    return stream.getvalue()


def test_a_terminal_shows_one_line_with_the_time_left():
    lines = shown(Terminal(), 4, [30.0, 2.0, 2.0, 2.0]).split("\r")[1:]
    assert lines[0].startswith(f"[{'.' * 24}] 0 of 4 pictures")
    assert lines[1].startswith(f"[{'#' * 6}{'.' * 18}] 1 of 4 pictures, 30.0 s\x1b")
    assert "2 of 4 pictures, 32.0 s, 4.0 s left" in lines[2]
    assert lines[-1] == f"[{'#' * 24}] 4 of 4 pictures, 36.0 s\x1b[K\n"


def test_a_file_gets_some_lines_and_one_at_the_end():
    lines = shown(io.StringIO(), 30, [1.0] * 30).splitlines()
    assert [line.split()[0] for line in lines] == ["1", "11", "21", "30"]
    assert lines[1] == "11 of 30 pictures, 11.0 s, 19.0 s left"
    assert lines[-1] == "30 of 30 pictures, 30.0 s"


def test_skipped_pieces_do_not_count_for_the_rate():
    line = shown(io.StringIO(), 8, [5.0, 20.0], skip=4).splitlines()[-1]
    assert line == "6 of 8 pictures, 25.0 s, 40.0 s left"


def test_warm_pieces_do_not_count_for_the_rate():
    seconds = [30.0, 0, 0, 0, 8.0, 0, 0, 0]
    lines = shown(Terminal(), 12, seconds, warm=4).split("\r")[1:]
    assert not any("left" in line for line in lines[:5])
    assert "8 of 12 pictures, 38.0 s, 8.0 s left" in lines[8]


def test_no_time_is_negative_if_the_clock_goes_back():
    assert "-" not in shown(io.StringIO(), 9, [5.0, -100.0, 2.0, 20.0])


def test_warm_pieces_are_those_of_this_process_not_those_that_were_there():
    """Two that compile, after four that were there: the rate is that of the third."""
    line = shown(Terminal(), 8, [30.0, 10.0, 4.0], skip=4, warm=2).split("\r")[-1]
    assert line.startswith("[#####################...] 7 of 8 pictures, 44.0 s, 4.0 s left")
