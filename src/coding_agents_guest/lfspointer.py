"""What stands for a large file in a commit, and how its content travels to the host. Pure; shared by host and guest.

A pointer names the content by SHA-256 and size (git-lfs, docs/spec.md). The content travels as blobs of at most
PIECE bytes: below LFS each ref names a tree, whose files are pieces called `<sha256>.<number>`. So it is held to the
budgets of the relay like any other push, and no file is too large as such.
"""

from __future__ import annotations

import re

from coding_agents_guest.records import dataclass

LFS = "refs/coding-agents/lfs/"
LFS_HOME = "refs/coding-agents/lfs-home"
"""A blob in which the host says which objects need not be sent: one SHA-256 a line."""

MAX_POINTER = 1024
"""Bytes; git-lfs takes nothing longer for a pointer."""

PIECE = 32 << 20

_POINTER = re.compile(
    rb"version https://(?:git-lfs|hawser)\.github\.com/spec/v1\n"
    rb"(?:ext-[^\n]*\n)*oid sha256:([0-9a-f]{64})\nsize ([0-9]{1,18})\n?"
)
_TREE = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_PIECE_NAME = re.compile(rb"([0-9a-f]{64})\.([0-9]{5})")


@dataclass(frozen=True)
class Pointer:
    """The content with the SHA-256 `oid` (64 hex digits) and `size` bytes."""

    oid: str
    size: int

    @property
    def pieces(self) -> int:
        """How many blobs carry it; also of nothing there is one."""
        return max(1, -(-self.size // PIECE))

    def piece_size(self, number: int) -> int:
        """The size of the piece `number`, counted from 0."""
        return min(PIECE, self.size - number * PIECE)


def parse_pointer(content: bytes) -> Pointer | None:
    """The pointer that a file's content is, None when it is something else.

    >>> parse_pointer(render_pointer(Pointer("0" * 64, 5))).size
    5
    """
    match = _POINTER.fullmatch(content) if len(content) <= MAX_POINTER else None
    return Pointer(match[1].decode("ascii"), int(match[2])) if match else None


def render_pointer(pointer: Pointer) -> bytes:
    """What git-lfs stores in place of the content."""
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (
        pointer.oid.encode("ascii"),
        pointer.size,
    )


def is_lfs_name(name: str) -> bool:
    """Whether `name` (a ref's name below LFS) is the id of a tree: the host takes no other from a guest."""
    return _TREE.fullmatch(name) is not None


def piece_name(oid: str, number: int) -> str:
    """The name of one piece in a tree."""
    return f"{oid}.{number:05d}"


def parse_piece_name(name: bytes) -> tuple[str, int] | None:
    """SHA-256 of the whole and number of the piece, None for what is no name of one."""
    match = _PIECE_NAME.fullmatch(name)
    return (match[1].decode("ascii"), int(match[2])) if match else None
