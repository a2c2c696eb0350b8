"""Writes those parts of benchmarks/README.md that scripts make; each stands between two marks."""

from pathlib import Path

README = Path(__file__).resolve().parent / "README.md"


def fill(part: str, text: str, page: Path = README) -> None:
    """Replaces what stands between the marks of `part` by `text`.

    Raises:
      ValueError: the page has no such marks.
    """
    begin, end = f"<!-- {part}: begin -->\n", f"<!-- {part}: end -->\n"
    before, found, rest = page.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"part={part!r}: {page} has no line {begin.strip()} with its end")
    page.write_text(f"{before}{begin}\n{text.strip()}\n\n{end}{after}")
