"""Which paths of a repository go into the container. Pure: `workspace.listing` gathers what is decided on.

In go tracked files as they are on disk, and untracked files that git does not ignore and that the
deny-list does not name; ignored files only when a pattern asks for them. What stays out although git
would show it is named, and so is what goes in although it looks like a secret.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from enum import Enum

import msgspec
from msgspec.structs import replace

from coding_agents.errors import WorkspaceError
from coding_agents.model.repo import RepoFacts
from coding_agents.workspace.deny import DenyList

_NAMED_IN_ERROR = 5


class Kind(Enum):
    """What stands on disk at a path, without following links."""

    FILE = "file"
    LINK = "symbolic link"
    DIRECTORY = "directory"
    SPECIAL = "socket, FIFO or device"
    UNREADABLE = "not readable"


class Listing(msgspec.Struct, frozen=True):
    """What git and the disk say about a work tree; paths are relative, with `/`.

    `untracked` are files that git shows as such, `nested` submodules and other repositories. `asked` are
    untracked or ignored files that the user's own patterns name, `asked_by_repo` ignored files that the
    repository's .worktreeinclude names. `kinds` has no entry for a path that is not on disk. `links`: targets
    of the symbolic links. `credentials`: files that hold one, by their content. `strays`: special files
    that git does not list and does not ignore. `gitlinks`: the commit that is recorded for each submodule.
    """

    tracked: frozenset[str]
    untracked: frozenset[str]
    nested: frozenset[str]
    asked: frozenset[str]
    asked_by_repo: frozenset[str]
    kinds: Mapping[str, Kind]
    links: Mapping[str, str]
    credentials: frozenset[str]
    strays: frozenset[str]
    gitlinks: Mapping[str, str] = {}


class CopyPlan(msgspec.Struct, frozen=True):
    """What goes in. All tuples hold sorted relative paths.

    `clean`: the tracked files come from the commit and not from disk. `paths` is everything copied;
    of it `untracked` is what git shows as untracked, `included` what a pattern brought in (always from
    disk), `tracked_secrets` what looks like a secret and `flagged_symlinks` the links that leave the tree.
    `left_out` stays on the host because it looks like a secret; `nested` are submodules and other
    repositories, of which only an empty directory goes in, `reasons` why of submodules that are there on the
    host. `special` cannot be copied at all. `submodules` go in with files of their own, outer ones first; what
    is to be named of them is in `left_out`, `tracked_secrets`, `flagged_symlinks` and `nested` as well.
    """

    clean: bool
    paths: tuple[str, ...]
    untracked: tuple[str, ...] = ()
    included: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    tracked_secrets: tuple[str, ...] = ()
    flagged_symlinks: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()
    special: tuple[str, ...] = ()
    submodules: tuple[Submodule, ...] = ()
    reasons: Mapping[str, str] = {}


class Submodule(msgspec.Struct, frozen=True):
    """One that goes in, at `places`: its path in the repository around it, after that one's own.

    `name` as in `.gitmodules`; `git_dir` is the one that is made for it, below the workspace. `active` is whether
    git takes it for initialised. `repo` and `plan` are as of any repository, with paths relative to the submodule.
    """

    places: tuple[str, ...]
    name: str
    git_dir: str
    active: bool
    repo: RepoFacts
    plan: CopyPlan

    @property
    def path(self) -> str:
        """Where it stands in the workspace."""
        return "/".join(self.places)


def children(plan: CopyPlan, places: tuple[str, ...] = ()) -> list[Submodule]:
    """The submodules in `plan` that stand directly in the repository at `places`."""
    return [one for one in plan.submodules if one.places[:-1] == places]


def with_submodules(plan: CopyPlan, submodules: Iterable[Submodule], reasons: Mapping[str, str]) -> CopyPlan:
    """`plan` with `submodules` (outer ones first), and what is to be named of them. Only once for a plan."""
    chosen = tuple(submodules)
    paths = {one.path for one in chosen}

    def named(field: str) -> tuple[str, ...]:
        inner = (f"{one.path}/{path}" for one in chosen for path in getattr(one.plan, field))
        return tuple(sorted(path for path in (*getattr(plan, field), *inner) if path not in paths))

    return replace(
        plan,
        submodules=chosen,
        reasons=dict(reasons),
        left_out=named("left_out"),
        tracked_secrets=named("tracked_secrets"),
        flagged_symlinks=named("flagged_symlinks"),
        nested=named("nested"),
    )


def without_submodules(plan: CopyPlan, reasons: Mapping[tuple[str, ...], str]) -> CopyPlan:
    """`plan` without the submodules at the places in `reasons` and those inside of them."""
    dropped = [one for one in plan.submodules if any(one.places[: len(outer)] == outer for outer in reasons)]
    return replace(
        plan,
        submodules=tuple(one for one in plan.submodules if one not in dropped),
        nested=tuple(sorted({*plan.nested, *("/".join(places) for places in reasons)})),
        reasons={**plan.reasons, **{"/".join(places): reason for places, reason in reasons.items()}},
    )


def decide_copy(listing: Listing, deny: DenyList, *, clean: bool = False) -> CopyPlan:
    """Sort every path of `listing` into a plan."""

    def secret(path: str) -> bool:
        return deny.matches(path) or path in listing.credentials

    left_out = {path for path in listing.untracked if secret(path)} - listing.asked
    untracked = listing.untracked - left_out - listing.asked
    included = listing.asked | {path for path in listing.asked_by_repo if not secret(path)}
    wanted = listing.tracked | untracked | included
    kinds = listing.kinds
    paths = {path for path in wanted if kinds.get(path) in (Kind.FILE, Kind.LINK)}
    bad = {path for path in wanted if kinds.get(path) in (Kind.SPECIAL, Kind.UNREADABLE)}
    return CopyPlan(
        clean=clean,
        paths=tuple(sorted(paths)),
        untracked=tuple(sorted(untracked & paths)),
        included=tuple(sorted(included & paths)),
        left_out=tuple(sorted(left_out)),
        tracked_secrets=tuple(sorted(path for path in listing.tracked & paths if secret(path))),
        flagged_symlinks=tuple(
            sorted(path for path, target in listing.links.items() if path in paths and leaves(path, target))
        ),
        nested=tuple(sorted(listing.nested)),
        special=tuple(sorted(bad | listing.strays)),
    )


def require_copyable(plan: CopyPlan, kinds: Mapping[str, Kind]) -> None:
    """Raises WorkspaceError naming up to five paths that cannot be copied."""
    if not plan.special:
        return
    named = [f"{path!r} ({kinds.get(path, Kind.SPECIAL).value})" for path in plan.special[:_NAMED_IN_ERROR]]
    more = len(plan.special) - len(named)
    raise WorkspaceError(
        f"cannot copy {', '.join(named)}" + (f" and {more} more" if more else ""),
        details="\n".join(map(repr, plan.special)),
        hint="Remove them, make them readable, or let .gitignore name them.",
    )


def leaves(path: str, target: str) -> bool:
    """Whether a symbolic link at `path` points out of the tree, as far as its text tells."""
    if posixpath.isabs(target):
        return True
    end = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return end == ".." or end.startswith("../")
