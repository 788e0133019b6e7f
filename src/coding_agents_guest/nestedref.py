"""Names of the refs to which a guest saves beside its branch. Pure; shared by host and guest.

LATEST is the whole state of the work tree, as the last automatic save found it: a commit with AUTOSAVE_MESSAGE upon
HEAD, or HEAD itself while nothing is uncommitted. So are, with NESTED_MESSAGE, the refs of repositories inside: that of
one at `libs/a` is NESTED + `libs/a`, of one at `b/c` inside of that NESTED + `libs/a%2Fb%2Fc`: no ref is then a
directory of another. Bytes that git allows in no ref, or that would read as something else, are percent-encoded
(RFC 3986), and a name too long for a file gets a digest for its end, as does one that the host would take for too long
or too deep.

What a repository holds beside its HEAD is, as the parents of one commit, at the name of its git directory
(`libs/a/.git`), which no repository can have.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable

TO_SIGN = "refs/coding-agents/to-sign"
"""A commit without a signature that is to get one: so the host has all that it names."""
LATEST = "refs/coding-agents/autosave/latest"
AUTOSAVE_MESSAGE = "Automatic save (coding-agents)"
NESTED = "refs/coding-agents/nested/"
NESTED_MESSAGE = "Uncommitted work (coding-agents)"
GIVEN_HEADS = "refs/coding-agents/given/head/"
GIVEN_TREES = "refs/coding-agents/given/tree/"

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+=,")
MAX_NAME = 1000
"""Bytes of a name below NESTED that the host takes, and how many parts it may have: each is a directory there."""
MAX_PARTS = 64

_MAX_PART = 200  # of the 255 bytes of a file name: git adds `.lock`, the host a directory
_GIT_DIR = "%2F%2Egit"
_ROOM = 100  # of MAX_NAME, for what is appended to a name
_ESCAPE = re.compile(r"%([0-9A-F]{2})")
# All that `_encode` writes, and no part that git reads as something else.
_PART = re.compile(r"(?=.{1,240}\Z)(?!\.)(?!.*(?:\.\.|\.\Z|\.lock\Z))(?:[A-Za-z0-9_+=,.-]|%[0-9A-F]{2})+")


def nested_ref(places: Iterable[str]) -> str:
    """The ref for the repository at `places`: its path, each later one inside of the repository before.

    >>> nested_ref(["libs/a b"]), nested_ref(["libs", ".x/y"])
    ('refs/coding-agents/nested/libs/a%20b', 'refs/coding-agents/nested/libs%2F%2Ex%2Fy')
    """
    first, *inner = (os.fsencode(place).split(b"/") for place in places)
    parts = [_encode(part) for part in first]
    parts[-1] += "".join(f"%2F{_encode(part)}" for parts_of in inner for part in parts_of)
    return NESTED + _bounded_name([_bounded(part) for part in parts])


def is_nested_name(name: str) -> bool:
    """Whether `name` (a ref's name below NESTED) may have come from here: the host takes no other from a guest.

    >>> is_nested_name("libs/a%20b"), is_nested_name("libs/a b"), is_nested_name("../heads")
    (True, False, False)
    """
    parts = name.split("/")
    return len(name) <= MAX_NAME and len(parts) <= MAX_PARTS and all(map(_PART.fullmatch, parts))


def further_ref(places: Iterable[str]) -> str:
    """The ref for what the repository at `places` holds beside its HEAD."""
    return nested_ref(places) + _GIT_DIR


def is_further(name: str) -> bool:
    """Whether `name` (a ref's name below NESTED) is of such a commit, or of one that took the place of a HEAD."""
    return ".git" in nested_path(name).split("/")


def repository_of(name: str) -> str:
    """The name of the repository to which `name` belongs.

    >>> repository_of("libs/a%2F%2Egit"), repository_of("libs/a")
    ('libs/a', 'libs/a')
    """
    return name[: -len(_GIT_DIR)] if name.endswith(_GIT_DIR) else name


def nested_path(name: str) -> str:
    """The path that `name` (a ref's name below NESTED) stands for; bytes that are no UTF-8 become surrogates.

    >>> nested_path("libs%2F%2Ex%2Fy")
    'libs/.x/y'
    """
    text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), name)
    # Each character is now one byte, or stood in the name as it is.
    return os.fsdecode(b"".join(_bytes(char) for char in text))


def _encode(part: bytes) -> str:
    # A dot is plain within a name that no rule of git-check-ref-format(1) can mean.
    dots = b"." if re.fullmatch(rb"[^.]+(\.[^.]+)*", part) and not part.endswith(b".lock") else b""
    return "".join(chr(byte) if byte in _PLAIN or byte in dots else f"%{byte:02X}" for byte in part)


def _bounded(part: str) -> str:
    if len(part) <= _MAX_PART:
        return part
    kept = re.sub(r"%.?$", "", part[: _MAX_PART - 40])
    return f"{kept}%7E{hashlib.sha256(part.encode('ascii')).hexdigest()[:32]}"


def _bounded_name(parts: list[str]) -> str:
    """The parts as a name; of one too long or too deep only as many as fit, and a digest of all."""
    name = "/".join(parts)
    if len(name) <= MAX_NAME - _ROOM and len(parts) <= MAX_PARTS:
        return name
    kept = "/".join(parts[: MAX_PARTS - 1])[: MAX_NAME - _ROOM - 40]
    digest = hashlib.sha256(name.encode("ascii")).hexdigest()[:32]
    return f"{kept.rpartition('/')[0]}/%7E{digest}"


def _bytes(char: str) -> bytes:
    return bytes([ord(char)]) if ord(char) < 256 else os.fsencode(char)
