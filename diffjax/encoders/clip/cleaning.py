"""Cleans a text as CLIP's tokenizer does before it splits it.

The original calls the package ftfy. Here are its repairs, but for the one that guesses which wrong
encoding a text went through ("sÃ³" for "só"). So ids never depend on what is installed.
"""

import functools
import html
import html.entities
import re
import unicodedata

_SINGLE_QUOTE = re.compile("[\u02bc\u2018-\u201b]")
_DOUBLE_QUOTE = re.compile("[\u201c-\u201f]")
_ENTITY = re.compile(r"&#?[0-9A-Za-z]{1,24};")
_LINE_BREAK = re.compile("\r\n|[\r\u2028\u2029\u0085]")
_TERMINAL = re.compile("\033\\[((?:\\d|;)*)([a-zA-Z])")
_C1_CONTROL = re.compile("[\x80-\x9f]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_HALF = re.compile("[\ud800-\udfff]")
_CONTROL = dict.fromkeys(
    (*range(9), 0x0B, *range(0x0E, 0x20), 0x7F, *range(0x206A, 0x2070), 0xFEFF,
     *range(0xFFF9, 0xFFFD))
)  # fmt: skip
_SPELLED = """Ĳ:IJ ĳ:ij ŉ:ʼn Ǳ:DZ ǲ:Dz ǳ:dz Ǆ:DŽ ǅ:Dž ǆ:dž Ǉ:LJ ǈ:Lj ǉ:lj Ǌ:NJ ǋ:Nj ǌ:nj
ﬀ:ff ﬁ:fi ﬂ:fl ﬃ:ffi ﬄ:ffl ﬅ:ſt ﬆ:st"""  # noqa: RUF001
_LIGATURES = {ord(pair[0]): pair[2:] for pair in _SPELLED.split()}


def clean(text: str) -> str:
    """The text repaired, without HTML's entities, with single blanks, in lower case."""
    text = html.unescape(html.unescape(repaired(text)))
    return " ".join(text.split()).lower()


def repaired(text: str) -> str:
    """What ftfy 6 makes of a text, but for its guesses of wrong encodings.

    From the first line with a "<" on, the text is taken for HTML, whose entities stay.
    """
    lines, is_html = [], False
    for line in _lines(text):
        is_html = is_html or "<" in line
        lines.append(_repaired_line(line, entities=not is_html))
    return "".join(lines)


def _lines(text: str) -> list[str]:
    """The lines with their ends; only a line feed ends one."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _repaired_line(text: str, *, entities: bool) -> str:
    """Repeats all repairs until they change nothing: one may make work for another."""
    while True:
        before = text
        if entities and "&" in text:
            text = _ENTITY.sub(_character, text)
        text = _C1_CONTROL.sub(_windows, text)
        text = text.translate(_LIGATURES).translate(_widths())
        text = _SINGLE_QUOTE.sub("'", _DOUBLE_QUOTE.sub('"', text))
        text = _LINE_BREAK.sub("\n", text)
        text = _HALF.sub("\ufffd", _PAIR.sub(_joined, text))
        text = _TERMINAL.sub("", text).translate(_CONTROL)
        text = unicodedata.normalize("NFC", text)
        if text == before:
            return text


def _character(found: re.Match[str]) -> str:
    """The character of an entity; the entity itself if it is none."""
    entity = found.group()
    if entity in _entities():
        return _entities()[entity]
    if entity.startswith("&#") and ";" not in (character := html.unescape(entity)):
        return character
    return entity


def _windows(found: re.Match[str]) -> str:
    """A C1 control as Windows-1252 has it, like web browsers."""
    try:
        return found.group().encode("latin-1").decode("cp1252")
    except UnicodeDecodeError:
        return found.group()


def _joined(found: re.Match[str]) -> str:
    """The character of two surrogates."""
    return found.group().encode("utf-16-le", "surrogatepass").decode("utf-16-le")


@functools.cache
def _entities() -> dict[str, str]:
    """HTML 5's entities, and those in capitals whose names are in no list."""
    found = {}
    for name, character in html.entities.html5.items():
        if name.endswith(";"):
            found[f"&{name}"] = character
            capital = f"&{name.upper()}"
            if name == name.lower() and html.unescape(capital) == capital:
                found[capital] = character.upper()
    return found


@functools.cache
def _widths() -> dict[int, str]:
    """Half-width and full-width forms -> the usual ones."""
    forms = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFF01, 0xFFF0)}
    changed = {code: usual for code, usual in forms.items() if usual != chr(code)}
    return {0x3000: " ", **changed}
