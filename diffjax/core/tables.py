"""Numbers and tables as text for people: byte sizes, quantities, durations, aligned columns."""

from collections.abc import Collection, Sequence

KIB, MIB, GIB = 2**10, 2**20, 2**30


def format_bytes(num_bytes: float) -> str:
    """Bytes on a disk, in steps of 1000 and to three digits: 1540 is "1.54 kB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.4g} TB"


def format_memory(num_bytes: float) -> str:
    """Bytes of memory, in steps of 1024: "1.50 GiB", "20 MiB", "1.5 MiB", "3 KiB"."""
    if num_bytes >= GIB:
        return f"{num_bytes / GIB:.2f} GiB"
    if num_bytes >= MIB:
        return f"{num_bytes / MIB:.{0 if num_bytes >= 16 * MIB else 1}f} MiB"
    return f"{num_bytes / KIB:.0f} KiB"


def format_quantity(number: float) -> str:
    """A large number with its SI prefix, to put a unit behind: 1.23e12 is "1.23 T"."""
    for scale, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G")):
        if number >= scale:
            return f"{number / scale:,.2f} {prefix}"
    return f"{number / 1e6:,.2f} M"


def format_duration(seconds: float) -> str:
    """4.2 is "4.2 s", 75 is "1 min 15 s", 7300 is "2 h 1 min"; less than 0 counts as 0."""
    seconds = max(seconds, 0.0)
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_clock(seconds: float) -> str:
    """Hours, minutes and seconds: 3725 is "1:02:05"."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"


def align_columns(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """One line per row, with two blanks between columns of equal width.

    right: the columns whose cells end at the right edge, as numbers should. Blanks at the end of a
    line are left out.

    Raises:
      ValueError: the rows have different numbers of cells.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
