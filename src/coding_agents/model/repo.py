"""What is known about the host repository of a session."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import msgspec

from coding_agents.model.masked import Masked
from coding_agents.model.refs import Oid


class RepoKind(Enum):
    """Where the repository comes from: a work tree on the host, our bare clone of a URL, or nothing yet."""

    PATH = "path"
    URL = "url"
    EMPTY = "empty"


class Identity(msgspec.Struct, frozen=True):
    """A git author: name and e-mail address."""

    name: str
    email: str


class RepoFacts(Masked, frozen=True):
    """Facts of one repository, read once before the launch is planned.

    `work_tree` is None for our own bare repositories. `git_dir` is that of the work tree (a linked work
    tree has its own), `common_dir` the one that holds objects and refs. `head` is None while unborn,
    `branch` (short name) None while detached. `origin_url` carries no password or token. `owner_uid`
    and `owner_gid` own the repository on the host. `repo_id`: 12 hex digits, stable for a common_dir.
    """

    MASKED = frozenset({"origin_url"})

    kind: RepoKind
    name: str
    work_tree: Path | None
    git_dir: Path
    common_dir: Path
    head: Oid | None
    branch: str | None
    origin_url: str
    identity: Identity | None
    owner_uid: int
    owner_gid: int
    object_format: str
    repo_id: str
