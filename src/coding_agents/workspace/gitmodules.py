"""What a `.gitmodules` says, and which names of it can be the name of a directory. Pure: it is repository content.

A submodule's git directory is made at `.git/modules/NAME`, so a name is a path that somebody else wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_PATH_KEY = re.compile(r"submodule\.(?P<name>.+)\.path", re.DOTALL)
_MAX_PART_BYTES = 255
_MAX_BYTES = 1000


def names_by_path(listing: str) -> dict[str, str]:
    """The name of the submodule at each path, from `git config --null --list`; the last one counts."""
    names: dict[str, str] = {}
    for record in listing.split("\0"):
        key, found, path = record.partition("\n")
        match = _PATH_KEY.fullmatch(key)
        if match is not None and found:
            names[path.rstrip("/")] = match["name"]
    return names


def why_unusable(name: str, taken: Iterable[str]) -> str:
    """Why `name` cannot name a directory beside those `taken`; "" when it can.

    git itself refuses `..` in a name (CVE-2018-11235), and a name inside another one's git directory.
    """
    parts = re.split(r"[/\\]", name)
    lower = name.lower()
    bad = not {"", ".", "..", ".git"}.isdisjoint(part.lower() for part in parts)
    if bad or name.startswith("-") or not name.isprintable():
        return f"its name {name[:80]!r} is none that git would use"
    if len(name.encode()) > _MAX_BYTES or any(len(part.encode()) > _MAX_PART_BYTES for part in parts):
        return "its name is too long"
    for other in map(str.lower, taken):
        if lower == other or lower.startswith(f"{other}/") or other.startswith(f"{lower}/"):
            return f"its name {name[:80]!r} collides with that of another submodule"
    return ""
