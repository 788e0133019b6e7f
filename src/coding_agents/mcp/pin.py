"""The files of a repository that a server runs, copied and measured, so that they can be run from somewhere safe.

Which words of a server name files is decided from the words and the tree alone, so that it is the same when the
server is trusted and when it is started. With a file goes its whole directory: a program has modules beside it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Mapping, Sequence, Set

import msgspec

from coding_agents.errors import McpError
from coding_agents.mcp.find import Tree
from coding_agents.model.mcp import McpServer

MAX_FILES = 2000
MAX_BYTES = 32 << 20
_WORKSPACE = "/workspace/"  # the repository's place inside
_SKIPPED = frozenset({"__pycache__", ".git"})

ListFiles = Callable[[Sequence[str]], Collection[str]]
"""The files below these directories, or at these paths, that git does not ignore."""
Denied = Callable[[str], bool]
"""Whether a file most likely holds a secret."""


class PinnedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a server: its path in the repository and its content's SHA-256."""

    path: str
    sha256: str
    executable: bool


class Pinned(msgspec.Struct, frozen=True):
    """The files of a server with their content, and what of their directories is left out: links, likely secrets."""

    files: tuple[PinnedFile, ...] = ()
    content: Mapping[str, bytes] = {}
    left_out: tuple[str, ...] = ()


def files_named(server: McpServer, tree: Tree) -> dict[str, str]:
    """The regular files of the repository that words of `server` name, by word.

    A command without a slash is looked up on PATH and names none. Raises McpError for what is or lies behind a link.
    """
    words = [server.command] if "/" in server.command else []
    named = {}
    for word in (*words, *server.args):
        path = _path_in(word)
        if path and _is_file(tree, path, required=word == server.command, server=server.name):
            named[word] = path
    return named


def pin(server: McpServer, tree: Tree, list_files: ListFiles, denied: Denied) -> Pinned:
    """The content of all files that `server` runs from the repository. Raises McpError beyond the bounds."""
    named = set(files_named(server, tree).values())
    if not named:
        return Pinned()
    asked = sorted({path.rpartition("/")[0] or path for path in named})
    content: dict[str, bytes] = {}
    files: list[PinnedFile] = []
    left_out: list[str] = []
    room = MAX_BYTES
    for path in sorted({*list_files(asked), *named}):
        if path not in named and not _SKIPPED.isdisjoint(path.split("/")):
            continue
        info = _stat(tree, path, server.name)
        if info is None or not stat.S_ISREG(info.st_mode) or not _is_utf8(path) or denied(path):
            left_out += [] if info is None else [path]
            continue
        data = tree.read(path, min(info.st_size, room) + 1)
        room -= len(data)
        if room < 0 or len(files) >= MAX_FILES:
            raise McpError(
                f"server {server.name!r} cannot be copied: {', '.join(asked)} holds more than {MAX_FILES} files or "
                f"{MAX_BYTES >> 20} MB",
                hint="Move the server's files into a directory of their own.",
            )
        if len(data) != info.st_size:
            raise McpError(
                f"server {server.name!r}: {path!r} cannot be read whole",
                hint="Check its mode, and try again.",
            )
        content[path] = data
        digest = hashlib.sha256(data).hexdigest()
        files.append(PinnedFile(path, digest, executable=bool(info.st_mode & 0o100)))
    _require_whole(server, named, files)
    return Pinned(tuple(files), content, tuple(left_out))


def _require_whole(server: McpServer, named: Set[str], files: Sequence[PinnedFile]) -> None:
    executable = {file.path: file.executable for file in files}
    if lacking := sorted(named - executable.keys()):
        raise McpError(
            f"server {server.name!r} names {lacking[0]!r}, which is not copied: it most likely holds a secret",
            hint="Give a secret by a reference ${NAME}, or rename the file.",
        )
    command = _path_in(server.command)
    if "/" in server.command and command in named and not executable[command]:
        raise McpError(
            f"server {server.name!r} runs {command!r}, which is not executable",
            hint="Set its mode with `chmod +x`, or name its interpreter as the command.",
        )


def _is_utf8(path: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in path)


def _path_in(word: str) -> str:
    """`word` as a path below the repository's root, "" when it cannot be one."""
    path = word.removeprefix(_WORKSPACE)
    while path.startswith("./"):
        path = path[2:]
    parts = path.split("/")
    return "" if path.startswith("-") or not {"", ".", ".."}.isdisjoint(parts) or "\0" in path else path


def _is_file(tree: Tree, path: str, *, required: bool, server: str) -> bool:
    try:
        info = tree.stat(path)
    except (OSError, ValueError):  # a name that is too long
        info = None
    if link := _link_on(tree, path):
        raise McpError(
            f"server {server!r} names {path!r} through {link!r}, which is a symbolic link",
            hint="Name the file itself.",
        )
    if info is None and required:
        raise McpError(
            f"server {server!r} runs {path!r}, which is no file of the repository",
            hint="A command with a slash is a path below the repository's root, through no symbolic link.",
        )
    return info is not None and stat.S_ISREG(info.st_mode)


def _stat(tree: Tree, path: str, server: str) -> os.stat_result | None:
    try:
        return tree.stat(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise McpError(
            f"server {server!r}: {path!r} cannot be read: {reason}",
            hint="Check the modes of its directories.",
        ) from error


def _link_on(tree: Tree, path: str) -> str:
    """The first symbolic link on the way to `path`, itself included; "" without one."""
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        place = "/".join(parts[:depth])
        try:
            info = tree.stat(place)
        except (OSError, ValueError):
            return ""
        if info is None:
            return ""
        if stat.S_ISLNK(info.st_mode):
            return place
    return ""
