"""Text of a git configuration file, made of values that may hold anything (git-config(1), "Syntax"). No IO."""

from __future__ import annotations

import re

import msgspec

_SECTION = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
# A line break or NUL would be an end to git; of the others none is of use.
_UNWRITABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Section(msgspec.Struct, frozen=True):
    """`[name "subsection"]` with its settings, in order; a key may be there several times."""

    name: str
    settings: tuple[tuple[str, str], ...]
    subsection: str = ""


def render(sections: tuple[Section, ...]) -> str:
    """The file. A section without settings is left out. Raises ValueError for what git would read otherwise."""
    lines: list[str] = []
    for section in sections:
        if not section.settings:
            continue
        if _SECTION.fullmatch(section.name) is None:
            raise ValueError(f"{section.name!r} is not a section of a git configuration")
        # In the name of a subsection a backslash stands for the character after it, whichever that is.
        below = f" {_quoted(section.subsection)}" if section.subsection else ""
        lines.append(f"[{section.name}{below}]")
        for key, value in section.settings:
            if _KEY.fullmatch(key) is None:
                raise ValueError(f"{key!r} is not a key of a git configuration")
            lines.append(f"\t{key} = {_quoted(value)}")
    return "".join(f"{line}\n" for line in lines)


def _quoted(value: str) -> str:
    if _UNWRITABLE.search(value):
        raise ValueError(f"{value[:200]!r} cannot stand in a git configuration")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
