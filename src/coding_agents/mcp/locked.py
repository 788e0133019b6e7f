"""The packages that a trusted server runs: each with its exact version and the hash of its bytes. Values only.

No address of an index is in here: whoever builds from it asks the index of that machine, which must have these bytes.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

Index = Literal["npm", "pypi"]

RUNNERS = frozenset({"npx", "npm", "uvx", "uv", "pipx"})
"""Commands that may run packages of an index: of all others nobody needs to read the words."""

PACKAGES = "/opt/mcp"
"""Where the packages of servers are in a session's image: root's, and read-only."""

UNPINNED = f"{PACKAGES}/not-pinned-yet/run"
"""Stands for the program of a server whose packages are pinned once it is trusted."""

MAX_PACKAGES = 1500
_VERSION = 1


class LockedPackage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One package: `integrity` is `sha512-BASE64` (npm) or `sha256:HEX` (of a wheel).

    npm's have a place (`path`, made of node_modules/NAME), and those for some processors only name them in `cpu`, in
    node's words.
    """

    name: str
    version: str
    integrity: str
    path: str = ""
    cpu: tuple[str, ...] = ()


class Lock(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All packages of one server. `name` and `version` are those of the one whose program is run.

    `program` is a file of that package (npm), or the name of a script that it installs (pypi). `machine` is the
    processor that wheels are for, "" when they are for all.
    """

    index: Index
    name: str
    version: str
    program: str
    machine: str = ""
    packages: tuple[LockedPackage, ...]

    @property
    def content(self) -> bytes:
        """The lock in its one canonical form."""
        return msgspec.json.encode([_VERSION, msgspec.to_builtins(self)], order="sorted")

    @property
    def digest(self) -> str:
        """What its image and its directory are named after: the first half of its SHA-256 in hex."""
        return hashlib.sha256(self.content).hexdigest()[:32]

    @property
    def run(self) -> str:
        """The path of its program in a container."""
        return f"{PACKAGES}/{self.digest}/run"

    def describe(self) -> str:
        """What it is, for people."""
        others = len(self.packages) - 1
        where = "npm" if self.index == "npm" else "the Python index"
        return f"{self.name} {self.version} of {where}" + (
            f", with {others} others that it needs" if others else ""
        )


def changed_packages(before: Lock, now: Lock) -> list[str]:
    """What differs between two locks, a line each."""
    old, new = ({one.path or one.name: one for one in lock.packages} for lock in (before, now))
    lines = [f"package {old[key].name} {old[key].version} is gone" for key in sorted(old.keys() - new.keys())]
    lines += [f"package {new[key].name} {new[key].version} is new" for key in sorted(new.keys() - old.keys())]
    for key in sorted(old.keys() & new.keys()):
        if old[key].version != new[key].version:
            lines.append(f"package {new[key].name}: {old[key].version} is now {new[key].version}")
        elif old[key].integrity != new[key].integrity:
            lines.append(f"package {new[key].name} {new[key].version} has other bytes")
    return lines
