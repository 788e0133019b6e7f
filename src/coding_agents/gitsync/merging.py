"""Merge two commits without a work tree, in a repository of our own that is gone afterwards.

In it nothing of the user's configuration counts and there are no attributes: no merge driver, filter or hook can run,
whatever either side names. It borrows objects from the session's relay alone; what the target has beside these is
copied in, and the user's repository gets nothing before the result is there.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from coding_agents.errors import GitError, MergeError
from coding_agents.gitsync.base import init_draft
from coding_agents.gitsync.findings.objects import changed_paths, reading
from coding_agents.gitsync.packs import Store, copy_closure
from coding_agents.model.refs import Oid
from coding_agents.proc.git import Profile, git, require_ok
from coding_agents.proc.runner import Outcome, run

MERGE_TREE = (2, 38)
"""The first git that merges without a work tree (`git merge-tree --write-tree`)."""

_MERGE_S = 600.0
_CHANGES = 1_000_000
_INFO = re.compile(rb"[0-7]{6} [0-9a-f]{40,64} [0-3]\t(.*)", re.DOTALL)
_TREE = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_COUNT = re.compile(rb"[0-9]{1,9}")
_OWN_TEXT = frozenset({b"unspecified", b"set", b"text"})


class Conflict(msgspec.Struct, frozen=True):
    """A path (hostile text) at which both sides cannot be had, and why: git's own words, or the merge driver that the
    target's attributes name for it."""

    path: str
    why: str


class Result(msgspec.Struct, frozen=True):
    """The tree of a merge. With `conflicts` it is not to be used."""

    tree: str
    conflicts: tuple[Conflict, ...] = ()


@contextmanager
def scratch(
    place: Path, *, relay: Store | None, user: Store, tip: Oid, target: Oid | None, base: Oid | None
) -> Iterator[Store]:
    """A repository at `place` that has `tip` and `target`, for the block.

    `relay` has the session's objects, None when it is gone: then `user` has them. `base` is what both sides are likely
    to have. Whoever calls holds a lock on `place`. Raises GitError.
    """
    shutil.rmtree(place, ignore_errors=True)  # of a merge that was killed
    try:
        init_draft(place, object_format="sha256" if len(tip) == 64 else "sha1", env=user.env)
        store = Store(place, Profile.OWN, user.env)
        if relay is not None:
            info = place / "objects/info"
            info.mkdir(exist_ok=True)
            (info / "alternates").write_bytes(os.fsencode(relay.git_dir / "objects") + b"\n")
        missing = [oid for oid in (tip, target) if oid is not None and not store.present([oid])]
        known = store.present([oid for oid in (base, tip) if oid is not None])
        if missing:
            copy_closure(user, store, tips=missing, known=user.present(known))
        _keep_shallow(store, [one.git_dir for one in (relay, user) if one is not None])
        yield store
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _keep_shallow(store: Store, sources: Iterable[Path]) -> None:
    """Where a history ends in one of `sources`, it ends here."""
    ends: dict[Oid, None] = {}
    for source in sources:
        try:
            ends |= dict.fromkeys(map(Oid.parse, (source / "shallow").read_text("ascii").split()))
        except FileNotFoundError:
            continue
    if here := store.present(ends):
        (store.git_dir / "shallow").write_text("".join(f"{oid}\n" for oid in here), "ascii")


def git_version(store: Store) -> tuple[int, ...]:
    """The version of the git in use."""
    said = git(("--version",), profile=Profile.OWN, env=store.env).text()
    return tuple(map(int, re.findall(r"\d+", said)[:3]))


def merge_trees(store: Store, ours: Oid, theirs: Oid) -> Result:
    """Merge the commits `ours` and `theirs`, whose common history decides. Writes to `store` alone.

    Files that both sides changed are merged as text; where attributes of ours name another driver, or none, that is a
    conflict. Raises MergeError when this git cannot, or they have nothing in common, and GitError.
    """
    if git_version(store) < MERGE_TREE:
        shown = ".".join(map(str, git_version(store)))
        raise MergeError(
            f"git {shown} cannot merge without touching files",
            hint="Install git 2.38 or later; with this one only fast-forwards are possible.",
        )
    # Its renames are looked for among so many files; and what it writes is gone in a moment, or copied.
    settings = ("-c", "core.fsync=none", "-c", "merge.renameLimit=2000")
    args = (*settings, "merge-tree", "--write-tree", "-z", ours, theirs)
    outcome = run(reading(store, args, timeout_s=_MERGE_S))
    if b"refusing to merge unrelated histories" in outcome.stderr:
        raise MergeError(
            "the branch and the target have no common history", hint="Take over what you want of it by hand."
        )
    if outcome.status not in (0, 1):
        require_ok(outcome, "git merge-tree")
    tree, conflicts = _parse(outcome.stdout)
    if outcome.status == 1:
        return Result(tree, conflicts or (Conflict("", "git names no path"),))
    return Result(tree, tuple(_other_drivers(store, ours, theirs, tree)))


def _parse(output: bytes) -> tuple[str, tuple[Conflict, ...]]:
    """The tree and the conflicts of `merge-tree -z` (git-merge-tree(1), "OUTPUT")."""
    fields = output.split(b"\0")
    if not _TREE.fullmatch(fields[0]):
        raise GitError("git merge-tree answered without a tree")
    tree = fields[0].decode("ascii")
    found: dict[bytes, list[bytes]] = {}
    position = 1
    while position < len(fields) and (info := _INFO.fullmatch(fields[position])):
        found.setdefault(info[1], [])
        position += 1
    position += 1  # an empty field ends the list
    while position < len(fields) and _COUNT.fullmatch(fields[position]):
        end = position + 1 + int(fields[position])
        kind = fields[end] if end < len(fields) else b""
        if kind.startswith(b"CONFLICT"):
            for path in fields[position + 1 : end]:
                reasons = found.setdefault(path, [])
                reasons += [kind] if kind not in reasons else []
        position = end + 2
    return tree, tuple(
        Conflict(
            path.decode("utf-8", "surrogateescape"),
            b", ".join(reasons).decode("utf-8", "replace") or "CONFLICT",
        )
        for path, reasons in found.items()
    )


def _other_drivers(store: Store, ours: Oid, theirs: Oid, tree: str) -> Iterator[Conflict]:
    """Where a file was merged as text though ours says that it is to be merged otherwise, or by nobody."""
    merged = _entries(store, ours, tree)
    if not merged:
        return
    theirs_has = _entries(store, theirs, tree)
    both = [path for path in merged if path in theirs_has]
    if not both:
        return
    _in_index(store, "read-tree", ours)
    asked = b"".join(path.encode("utf-8", "surrogateescape") + b"\0" for path in both)
    answer = _in_index(store, "check-attr", "--cached", "-z", "--stdin", "merge", stdin=asked)
    fields = answer.stdout.split(b"\0")
    for path, value in zip(fields[::3], fields[2::3], strict=False):
        if value not in _OWN_TEXT:
            shown = value.decode("utf-8", "replace")
            why = "its attributes forbid a merge" if value == b"unset" else f"merge driver {shown}"
            yield Conflict(path.decode("utf-8", "surrogateescape"), why)


def _in_index(store: Store, *args: str, stdin: bytes | None = None) -> Outcome:
    return git(
        args,
        profile=store.profile,
        env=store.env,
        git_dir=store.git_dir,
        stdin=stdin,
        env_extra={"GIT_INDEX_FILE": os.fspath(store.git_dir / "attributes-index")},
        timeout_s=_MERGE_S,
    )


def _entries(store: Store, commit: Oid, tree: str) -> set[str]:
    """The paths at which `tree` is not what `commit` has."""
    changes, more = changed_paths(store, commit, Oid.parse(tree), limit=_CHANGES)
    if more:
        raise MergeError(f"more than {_CHANGES} paths differ", hint="Merge by hand, in steps.")
    return {change.path for change in changes}
