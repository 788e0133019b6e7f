"""Plain tables for people: columns aligned by what a terminal draws, every cell escaped."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from coding_agents.terminal.escape import escape

_GAP = "  "


def render_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lines of left-aligned columns under their headers, without trailing spaces, ending with a newline."""
    lines = [tuple(headers), *(tuple(escape(cell) for cell in row) for row in rows)]
    if any(len(line) != len(headers) for line in lines):
        raise ValueError("every row needs a cell for each header")
    widths = [max(map(width, column)) for column in zip(*lines, strict=True)]
    return "".join(
        _GAP.join(cell + " " * (size - width(cell)) for cell, size in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in lines
    )


def width(text: str) -> int:
    """Columns that a terminal uses for `text`: two for East Asian wide characters, none for marks."""
    if text.isascii():
        return len(text)
    return sum(_char_width(char) for char in text)


def _char_width(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1
