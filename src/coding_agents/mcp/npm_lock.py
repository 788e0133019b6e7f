"""What npm says a package needs, read into a lock of ours. Pure; every word of it is hostile."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from coding_agents.errors import McpError
from coding_agents.mcp.locked import MAX_PACKAGES, Lock, LockedPackage
from coding_agents.mcp.runners import Runner, is_npm_name

# semver.org, without the rule on leading zeros; nothing in it leads to another place or draws on a terminal.
_VERSION = re.compile(r"\d{1,20}\.\d{1,20}\.\d{1,20}(?:-[0-9A-Za-z.-]{1,100})?(?:\+[0-9A-Za-z.-]{1,100})?")
_SHA512 = re.compile(r"sha512-[A-Za-z0-9+/]{86}==")
_PART = re.compile(r"[A-Za-z0-9._@+~-]{1,100}")
_CPUS = ("x64", "arm64")  # node's names of what our images are made for
_MAX_PATH, _MAX_DEPTH = 1000, 16
_NODE_MODULES = "node_modules/"


class _Entry(msgspec.Struct, frozen=True, rename={"in_bundle": "inBundle"}):
    version: str = ""
    integrity: str = ""
    name: str = ""
    resolved: str = ""
    link: bool = False
    bin: Mapping[str, str] = {}
    os: Sequence[str] = ()
    cpu: Sequence[str] = ()
    libc: Sequence[str] = ()
    in_bundle: bool = False


class _Document(msgspec.Struct, frozen=True, rename={"version": "lockfileVersion"}):
    version: int
    packages: Mapping[str, _Entry]


def npm_lock(runner: Runner, document: bytes) -> Lock:
    """The lock for `runner` from a `package-lock.json`, made without the addresses of its packages. Raises McpError."""
    try:
        found = msgspec.json.decode(document, type=_Document)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise McpError(f"npm's answer about {runner.asked} is not understood: {str(error)[:200]}") from error
    entries = {path: entry for path, entry in found.packages.items() if path}
    if len(entries) > MAX_PACKAGES * 2:  # with those for other systems, of which most are left out
        raise McpError(
            f"{runner.asked} needs {len(entries)} packages, more than {MAX_PACKAGES} can be pinned"
        )
    packages = [
        _package(path, entry)
        for path, entry in sorted(entries.items())
        if _wanted(entry) and not entry.in_bundle
    ]
    if len(packages) > MAX_PACKAGES:
        raise McpError(
            f"{runner.asked} needs {len(packages)} packages, more than {MAX_PACKAGES} can be pinned"
        )
    owner, file = _program(runner, entries)
    main = next((one for one in packages if one.path == _NODE_MODULES + owner), None)
    if main is None:
        raise McpError(f"npm's answer about {runner.asked} does not hold {owner}")
    program = f"{main.path}/{_file(runner, file)}"
    return Lock(index="npm", name=main.name, version=main.version, program=program, packages=tuple(packages))


def _wanted(entry: _Entry) -> bool:
    """Whether a package is for what our images are: Linux with glibc, on a processor that we know."""
    return (
        _admits(entry.os, "linux")
        and _admits(entry.libc, "glibc")
        and any(_admits(entry.cpu, cpu) for cpu in _CPUS)
    )


def _admits(named: Sequence[str], ours: str) -> bool:
    """npm's rule for `os`, `cpu` and `libc`: a list of what is meant, or of what is not (with a '!')."""
    meant = [one for one in named if not one.startswith("!")]
    return f"!{ours}" not in named and (not meant or ours in meant or "any" in meant)


def _package(path: str, entry: _Entry) -> LockedPackage:
    folder = _folder(path)
    name = entry.name or folder
    if entry.link or entry.resolved or not is_npm_name(name):
        raise McpError(
            f"{folder} is not a package of npm's registry, so nobody can say that it stays what it is",
            hint="Ask for a version that needs packages of the registry alone.",
        )
    if not _VERSION.fullmatch(entry.version):
        raise McpError(f"the version of {name} is not one of npm's: {entry.version[:100]!a}")
    integrity = next((word for word in entry.integrity.split() if _SHA512.fullmatch(word)), "")
    if not integrity:
        raise McpError(
            f"the registry gives no sha512 of {name} {entry.version}, so it cannot be pinned",
            hint="Ask for a newer version, or put the server into the repository.",
        )
    cpus = tuple(cpu for cpu in _CPUS if _admits(entry.cpu, cpu)) if entry.cpu else ()
    return LockedPackage(name, entry.version, integrity, path, cpus)


def _folder(path: str) -> str:
    """The name that a package has at `path`, whose every part leads down. Raises McpError."""
    names = path.split(_NODE_MODULES)
    good = len(path) <= _MAX_PATH and len(names) <= _MAX_DEPTH and names[0] == "" and len(names) > 1
    for place, name in enumerate(names[1:], 1):
        last = place == len(names) - 1
        good = good and (last or name.endswith("/")) and is_npm_name(name if last else name[:-1])
    if not good:
        raise McpError(f"npm's answer names a place that no package may have: {path[:100]!a}")
    return names[-1]


def _program(runner: Runner, entries: Mapping[str, _Entry]) -> tuple[str, str]:
    """The package whose program is meant, and its file: npx's own rule. Raises McpError."""
    for name, _ in runner.specs:
        programs = entries.get(_NODE_MODULES + name, _Entry()).bin
        if runner.program:
            if runner.program in programs:
                return name, programs[runner.program]
            continue
        own = name.rpartition("/")[2]
        if own in programs:
            return name, programs[own]
        if len(set(programs.values())) == 1:
            return name, next(iter(programs.values()))
        raise _no_program(runner, programs)
    raise _no_program(
        runner,
        {key: "" for name, _ in runner.specs for key in entries.get(_NODE_MODULES + name, _Entry()).bin},
    )


def _no_program(runner: Runner, programs: Mapping[str, str]) -> McpError:
    known = [name for name in sorted(programs) if _PART.fullmatch(name)][:10]
    wanted = f"no program {runner.program!r}" if runner.program else "no program of its own name"
    hint = (
        f"It has {', '.join(known)}: name one with `npx -p PACKAGE PROGRAM`."
        if known
        else "Is it an MCP server?"
    )
    return McpError(f"{runner.asked} has {wanted}", hint=hint)


def _file(runner: Runner, file: str) -> str:
    """A program's path in its package, each part of which leads down. Raises McpError."""
    parts = [part for part in file.split("/") if part != "."]
    if (
        not parts
        or ".." in parts
        or len(file) > _MAX_PATH
        or not all(_PART.fullmatch(part) for part in parts)
    ):
        raise McpError(
            f"the program of {runner.asked} is at a place that no program may have: {file[:100]!a}"
        )
    return "/".join(parts)
