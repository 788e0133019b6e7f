"""Bring a branch of the user's to another commit, together with the work tree in which it is checked out.

The files are written by `git read-tree -m -u`, which loses nothing that is not in a commit. No hook, filter, merge or
diff driver, and no other program of any configuration runs: filters are switched off one by one, by their names, so
that what they would have made of a file stays as the commit has it (`Moved.unfiltered`). Line endings are as yours.

The files come first and the ref last, as in git itself. Killed in between, the index holds the result on the old
commit, and the same call again finishes it; when the ref cannot be moved, the files go back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import msgspec

from coding_agents.errors import GitError, MergeError
from coding_agents.gitsync.findings.objects import EMPTY_TREE, changed_paths
from coding_agents.gitsync.in_the_way import in_the_way
from coding_agents.gitsync.packs import Store
from coding_agents.model.refs import Oid
from coding_agents.proc.git import Profile, git
from coding_agents.proc.runner import Outcome

_TREE_S = 1800.0
_BUSY = {
    "MERGE_HEAD": "a merge", "CHERRY_PICK_HEAD": "a cherry-pick", "REVERT_HEAD": "a revert",
    "rebase-merge": "a rebase", "rebase-apply": "a rebase or `git am`", "BISECT_START": "a bisection",
}  # fmt: skip
_UNSET = frozenset({b"unspecified", b"unset", b"set"})
_SHOWN = 10
_CHANGES = 1_000_000


class Place(msgspec.Struct, frozen=True):
    """A work tree that has the branch checked out, and its git directory."""

    work_tree: Path
    git_dir: Path


class Moved(msgspec.Struct, frozen=True):
    """What was done: `unfiltered` are changed paths (hostile text) whose attributes name a filter; it did not run."""

    unfiltered: tuple[str, ...] = ()


class Target(msgspec.Struct, frozen=True):
    """The branch `ref` of the repository `user`, which stands at `old` (None: it is not born yet)."""

    user: Store
    ref: str
    old: Oid | None

    @property
    def short(self) -> str:
        return self.ref.removeprefix("refs/heads/")


def place_of(target: Target) -> Place | None:
    """The work tree that has the branch checked out, None when none has.

    Raises MergeError when several have, one of them rebases it or is in the middle of something, or it is gone.
    """
    found = []
    for place in _work_trees(target.user):
        if any(_head_name(place.git_dir / name) == target.ref for name in ("rebase-merge", "rebase-apply")):
            raise _busy(target, place, "a rebase")
        if _head(target.user, place) == target.ref:
            found.append(place)
    if not found:
        return None
    if len(found) > 1:
        raise MergeError(
            f"{target.short} is checked out in several work trees: {', '.join(str(one.work_tree) for one in found)}",
            hint="Check out another branch in all but one of them.",
        )
    (place,) = found
    if not place.work_tree.is_dir():
        raise MergeError(
            f"{target.short} is checked out in {place.work_tree}, which is gone",
            hint="Run `git worktree prune`.",
        )
    for name, what in _BUSY.items():
        if (place.git_dir / name).exists():
            raise _busy(target, place, what)
    return place


def require_clean(target: Target, place: Place, tree: Oid) -> bool:
    """Whether the work tree at `place` has yet to be brought to `tree`; raises MergeError unless nothing can be lost.

    A merge that was killed after it wrote the files has left them staged: then only the ref is missing.
    """
    _tree_git(target, place, ("update-index", "-q", "--refresh"), check=False)
    changed = _names(target, place, "diff-files", "--ignore-submodules=all")
    staged = _names(target, place, "diff-index", "--cached", target.old or EMPTY_TREE[len(tree)])
    if not changed and not staged:
        return True
    written = not changed and target.user.present([tree])
    if written and not _names(target, place, "diff-index", "--cached", tree):
        return False
    names = list(dict.fromkeys([*staged, *changed]))
    more = f"\nand {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    raise MergeError(
        f"{place.work_tree} has changes that are not committed: {len(names)} path(s)",
        details="\n".join(repr(name)[1:-1] for name in names[:_SHOWN]) + more,
        hint="Commit or stash them, then merge again. If they are none of yours, `git status` there tells git so.",
    )


def require_room(target: Target, place: Place, store: Store, new: Oid) -> None:
    """Raises MergeError when a file that no commit has stands where `new`, a commit of `store`, has another."""
    changes, more = changed_paths(store, target.old, new, limit=_CHANGES)
    if more:
        raise MergeError(f"more than {_CHANGES} paths differ", hint="Merge by hand, in steps.")
    names = list(islice(in_the_way(place.work_tree, changes), _SHOWN))
    if names:
        raise MergeError(
            f"files in {place.work_tree} that are in no commit would be overwritten",
            details="\n".join(repr(name)[1:-1] for name in names),
            hint="Move them away, or commit them, then merge again.",
        )


def bring_forward(
    target: Target, new: Oid, place: Place | None, *, message: str, write_files: bool = True
) -> Moved:
    """Move the branch from where it stands to `new`, whose objects are there, and the files at `place`, if any.

    `write_files` is what `require_clean` said. Raises MergeError; then nothing was changed, or its details say what.
    """
    null = "0" * len(new)
    command = f"update {target.ref} {new} {target.old or null}"
    if place is None:
        _move(target, command, message)
        return Moved()
    old = target.old or EMPTY_TREE[len(new)]
    if write_files:
        _read_tree(target, place, "-n", old, new)
        _read_tree(target, place, "-u", old, new)
    try:
        _move(target, command, message)
    except MergeError as error:
        try:
            _read_tree(target, place, "-u", new, old)
        except MergeError as second:
            error.add_note(f"the files in {place.work_tree} are those of {new} now: {second.message}")
        raise
    return Moved(_unfiltered(target, place, new))


def _move(target: Target, command: str, message: str) -> None:
    try:
        target.user.update_refs(command, message=message)
    except GitError as error:
        raise MergeError(
            f"{target.short} could not be moved: {error.message}",
            details=error.details,
            hint=error.hint or "Somebody else moved it meanwhile? Then merge again.",
        ) from error


def _read_tree(target: Target, place: Place, how: str, old: str, new: str) -> None:
    flags = ("-m", "-u", "-n") if how == "-n" else ("-m", "-u")
    outcome = _tree_git(
        target, place, ("read-tree", *flags, "--no-recurse-submodules", old, new), check=False
    )
    if outcome.ok:
        return
    raise MergeError(
        f"the files in {place.work_tree} cannot be brought to {new[:12]}",
        details=outcome.stderr.decode("utf-8", "replace")[-4000:].strip() or outcome.describe(),
        hint="Move what is named out of the way; when a lock is named and no git runs there, remove it. Then merge "
        "again.",
    )


def _unfiltered(target: Target, place: Place, new: Oid) -> tuple[str, ...]:
    """The changed paths whose attributes, as the new commit has them, name a filter."""
    changes, _ = changed_paths(target.user, target.old, new, limit=_CHANGES)
    files = [change.path for change in changes if change.new.is_file]
    if not files:
        return ()
    asked = b"".join(path.encode("utf-8", "surrogateescape") + b"\0" for path in files)
    answer = _tree_git(
        target, place, ("check-attr", "--cached", "-z", "--stdin", "filter"), stdin=asked, check=False
    )
    fields = answer.stdout.split(b"\0")
    return tuple(
        path.decode("utf-8", "surrogateescape")
        for path, value in zip(fields[::3], fields[2::3], strict=False)
        if value not in _UNSET
    )


def _names(target: Target, place: Place, *args: str) -> list[str]:
    answer = _tree_git(target, place, (args[0], "--name-only", "-z", *args[1:]))
    return answer.text().split("\0")[:-1]


def _tree_git(
    target: Target, place: Place, args: Sequence[str], *, stdin: bytes | None = None, check: bool = True
) -> Outcome:
    """git on the work tree, with every filter that its configuration knows switched off."""
    return git(
        args,
        profile=Profile.USER_TREE,
        env=target.user.env,
        git_dir=place.git_dir,
        work_tree=place.work_tree,
        owner=target.user.owner,
        stdin=stdin,
        env_extra=_without_filters(target, place),
        timeout_s=_TREE_S,
        check=check,
    )


def _without_filters(target: Target, place: Place) -> Mapping[str, str]:
    """Settings for one call (git-config(1), GIT_CONFIG_COUNT) by which no filter is a program, nor required.

    Looked up for each call: what is checked out in between may be included by the user's configuration.
    """
    listed = git(
        ("config", "--includes", "--null", "--name-only", "--get-regexp", r"^filter\."),
        profile=Profile.USER_TREE,
        env=target.user.env,
        git_dir=place.git_dir,
        work_tree=place.work_tree,
        owner=target.user.owner,
        check=False,
    )
    drivers = dict.fromkeys(key.rpartition(".")[0] for key in listed.text().split("\0") if key)
    settings = [
        (f"{driver}.{key}", "false" if key == "required" else "")
        for driver in drivers
        for key in ("clean", "smudge", "process", "required")
    ]
    return dict(_as_environment(settings))


def _as_environment(settings: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    yield "GIT_CONFIG_COUNT", str(len(settings))
    for number, (key, value) in enumerate(settings):
        yield f"GIT_CONFIG_KEY_{number}", key
        yield f"GIT_CONFIG_VALUE_{number}", value


def _work_trees(user: Store) -> Iterator[Place]:
    """The main work tree, unless the repository is bare, and the linked ones (gitrepository-layout(5))."""
    bare = user.git("config", "--type=bool", "core.bare", check=False).text().strip() == "true"
    if not bare:
        first = user.git("worktree", "list", "--porcelain").text().split("\n")[0]
        yield Place(Path(first.removeprefix("worktree ")), user.git_dir)
    try:
        linked = sorted((user.git_dir / "worktrees").iterdir())
    except OSError:
        return
    for git_dir in linked:
        if link := _text(git_dir / "gitdir"):
            yield Place(Path(link).parent, git_dir)


def _head(user: Store, place: Place) -> str:
    said = git(
        ("symbolic-ref", "--quiet", "HEAD"),
        profile=user.profile,
        env=user.env,
        git_dir=place.git_dir,
        owner=user.owner,
        check=False,
    )
    return said.text().strip()


def _head_name(state: Path) -> str:
    return _text(state / "head-name")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "surrogateescape").strip()[:4096]
    except OSError:
        return ""


def _busy(target: Target, place: Place, what: str) -> MergeError:
    return MergeError(
        f"{what} of {target.short} is under way in {place.work_tree}",
        hint="Finish or abort it, then merge again.",
    )
