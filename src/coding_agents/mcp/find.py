"""Look for servers in a work tree. Reads the files that are known to name some, a bounded part of each."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Protocol

import msgspec

from coding_agents.mcp import supplied, workspace_file
from coding_agents.mcp.supplied import DIRECTORIES, Supplied, supplied_in
from coding_agents.mcp.workspace_file import MAX_FILE, Finding, parse_workspace_file
from coding_agents.model.mcp import McpServer

_MAX_LISTED = 32


class Tree(Protocol):
    """A work tree that is read without ever leaving it: `workspace.tree.Tree`."""

    def directory(self, path: str) -> int | None: ...
    def stat(self, path: str) -> os.stat_result | None: ...
    def read(self, path: str, limit_bytes: int) -> bytes: ...


class Placed(msgspec.Struct, frozen=True):
    """A server and the file that names it."""

    file: str
    server: McpServer


class Found(msgspec.Struct, frozen=True):
    """Everything in a work tree that would start servers, hooks or plugins, and what is wrong in our own files."""

    servers: tuple[Placed, ...] = ()
    findings: tuple[Finding, ...] = ()
    supplied: tuple[Supplied, ...] = ()

    def named(self, name: str) -> list[Placed]:
        """The servers of that name that a person may trust."""
        return [placed for placed in self.all_servers() if placed.server.name == name]

    def all_servers(self) -> list[Placed]:
        """The workspace's own, then those in files of CLIs."""
        theirs = (Placed(one.file, one.server) for one in self.supplied if one.server is not None)
        return [*self.servers, *theirs]


def find_servers(tree: Tree) -> Found:
    """What is in `tree`. Never raises for what the files hold."""
    servers: dict[str, Placed] = {}
    findings: list[Finding] = []
    for file in workspace_file.PLACES:
        data, problem = _content(tree, file)
        parsed = parse_workspace_file(data, file=file)
        findings += parsed.findings
        if problem and file == workspace_file.PLACES[0]:  # others may have a large config.toml
            findings.append(Finding(file, 0, "", problem))
        for server in parsed.servers:
            first = servers.setdefault(server.name, Placed(file, server))
            if first.file != file:
                key = f"{workspace_file.TABLE}.{server.name}"
                findings.append(Finding(file, 0, key, f"is in {first.file} too, which counts"))
    return Found(tuple(servers.values()), tuple(findings), tuple(_supplied(tree)))


def _supplied(tree: Tree) -> Iterator[Supplied]:
    for place in supplied.PLACES:
        data, problem = _content(tree, place.path)
        if problem:
            yield Supplied(place.path, "unreadable", "", problem=problem)
        elif data:
            yield from supplied_in(place, data)
    for directory, kind in DIRECTORIES.items():
        names = _names(tree, directory)
        yield from (Supplied(f"{directory}/{name}", kind, name) for name in names[:_MAX_LISTED])
        if len(names) > _MAX_LISTED:
            problem = f"holds {len(names)} files, of which {_MAX_LISTED} are shown"
            yield Supplied(directory, "unreadable", "", problem=problem)


def _content(tree: Tree, path: str) -> tuple[bytes, str]:
    """The content of a regular file, empty without one; and why it is not read."""
    try:
        info = tree.stat(path)
    except OSError as error:
        return b"", f"cannot be read: {(error.strerror or str(error)).lower()}"
    if info is None:
        return b"", ""
    if not stat.S_ISREG(info.st_mode):
        return b"", "is not a regular file, so it is not read"
    data = tree.read(path, MAX_FILE + 1)
    return (
        (b"", f"is larger than {MAX_FILE} bytes, so it is not read") if len(data) > MAX_FILE else (data, "")
    )


def _names(tree: Tree, directory: str) -> list[str]:
    try:
        fd = tree.directory(directory)
        return sorted(os.listdir(fd)) if fd is not None else []  # noqa: PTH208 - an open directory
    except OSError:
        return []
