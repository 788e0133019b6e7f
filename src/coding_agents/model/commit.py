"""A git commit as the bytes that are signed: read strictly, and put together with its signature. Pure.

The format is git's own (commit.c, `parse_commit_buffer`; ident.c, `split_ident_line`), of which only what git writes
today is taken: no further header, no identity or date that could be read in two ways.
"""

from __future__ import annotations

import hashlib
import re

import msgspec

from coding_agents.model.refs import Oid

MAX_COMMIT = 1 << 20
"""Bytes of a commit that is read."""
MAX_PARENTS = 16

_OID_LENGTH = {"sha1": 40, "sha256": 64}
_SIGNATURE_HEADER = {"sha1": b"gpgsig", "sha256": b"gpgsig-sha256"}
_PERSON = re.compile(rb"([^\0\n<>]*) <([^\0\n<>]*)> (0|[1-9]\d{0,11}) ([+-])(\d\d)(\d\d)")
# What git takes off both ends of a name and an address, and out of them (git's ident.c, strlen_without_crud).
_CRUD = "".join(map(chr, range(33))) + ".,:;<>\"\\'"
_OUT = str.maketrans("", "", "\n<>")


class CommitError(ValueError):
    """These bytes are not one commit of the kind that is taken; the message says why."""


class Person(msgspec.Struct, frozen=True):
    """Who wrote or committed something, byte for byte, and when, in seconds since the epoch."""

    name: bytes
    email: bytes
    when: int


class Commit(msgspec.Struct, frozen=True):
    """What a commit says. `message` is all after the headers."""

    tree: Oid
    parents: tuple[Oid, ...]
    author: Person
    committer: Person
    message: bytes


def parse_commit(payload: bytes, *, object_format: str) -> Commit:
    """The one commit that `payload` is, without signature. Raises CommitError.

    Its headers are tree, parents, author and committer, in this order and nothing else: no signature, merged tag,
    encoding or other header, and no NUL anywhere.
    """
    if len(payload) > MAX_COMMIT:
        raise CommitError(f"it is longer than {MAX_COMMIT} bytes")
    if b"\0" in payload:
        raise CommitError("it holds a NUL byte")
    head, separator, message = payload.partition(b"\n\n")
    if not separator:
        raise CommitError("it has no end of its headers")
    lines = head.split(b"\n")
    tree = _oid(lines.pop(0), b"tree ", object_format)
    parents: list[Oid] = []
    while lines and lines[0].startswith(b"parent "):
        parents.append(_oid(lines.pop(0), b"parent ", object_format))
    if len(parents) > MAX_PARENTS or len(set(parents)) != len(parents):
        raise CommitError(f"it has a parent twice, or more than {MAX_PARENTS}")
    if len(lines) < 2:
        raise CommitError("it has no author or no committer")
    author, committer = _person(lines[0], b"author "), _person(lines[1], b"committer ")
    if len(lines) > 2:
        name = lines[2].partition(b" ")[0][:40].decode("ascii", "backslashreplace")
        raise CommitError(f"it has a header that is not signed here: {name!r}")
    return Commit(tree, tuple(parents), author, committer, message)


def with_signature(payload: bytes, signature: bytes, *, object_format: str) -> bytes:
    """The commit `payload` with `signature` among its headers, as git writes it (commit.c, `add_header_signature`)."""
    head, separator, message = payload.partition(b"\n\n")
    lines = signature.rstrip(b"\n").split(b"\n")
    header = _SIGNATURE_HEADER[object_format] + b" " + b"\n ".join(lines)
    return head + b"\n" + header + separator + message


def object_id(kind: str, content: bytes, *, object_format: str) -> Oid:
    """The id that git gives an object."""
    digest = hashlib.sha256() if object_format == "sha256" else hashlib.sha1(usedforsecurity=False)
    digest.update(f"{kind} {len(content)}\0".encode("ascii") + content)
    return Oid(digest.hexdigest())


def clean_person(text: str) -> str:
    """A name or an address as git writes it into a commit.

    >>> clean_person(" Ada <Byron>. ")
    'Ada Byron'
    """
    return text.strip(_CRUD).translate(_OUT)


def _oid(line: bytes, name: bytes, object_format: str) -> Oid:
    text = line.removeprefix(name)
    if (
        not line.startswith(name)
        or len(text) != _OID_LENGTH[object_format]
        or text.strip(b"0123456789abcdef")
    ):
        raise CommitError(f"where its {name.decode().strip()} is named something else stands")
    return Oid(text.decode("ascii"))


def _person(line: bytes, role: bytes) -> Person:
    match = _PERSON.fullmatch(line.removeprefix(role))
    if not line.startswith(role) or match is None or int(match[5]) > 14 or int(match[6]) > 59:
        raise CommitError(f"its {role.decode().strip()} is not as git writes one")
    return Person(match[1], match[2], int(match[3]))
