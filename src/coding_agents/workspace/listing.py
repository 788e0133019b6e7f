"""Gathers what `copyset.decide_copy` decides on: git's lists, and one look at every directory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import msgspec

from coding_agents.errors import WorkspaceError
from coding_agents.model.repo import RepoFacts, RepoKind
from coding_agents.workspace.copyset import CopyPlan, Kind, Listing, decide_copy, require_copyable
from coding_agents.workspace.deny import CONTENT_LIMIT_BYTES, DenyList, load_deny_list
from coding_agents.workspace.source import Source, paths_of, unreadable_directories
from coding_agents.workspace.tree import Tree

_INCLUDE_FILE = ".worktreeinclude"
_GITLINK = b"160000"
_SYMLINK = b"120000"


def plan_copy(repo: RepoFacts, *, env: Mapping[str, str], include: tuple[str, ...], clean: bool) -> CopyPlan:
    """Decide what goes into the container.

    `include` are the user's own patterns (gitignore(5) syntax), which may bring in ignored and deny-listed
    files; a `.worktreeinclude` in the repository may bring in ignored ones that are not deny-listed.
    `clean` starts from the commit and not from the work tree, as our own bare repositories always do.
    Raises WorkspaceError for what cannot be copied, GitError.
    """
    source = Source(repo, env)
    if repo.work_tree is None or repo.kind is not RepoKind.PATH:
        return plan_repository(source, tree=None, include=include, clean=True)[0]
    with Tree(repo.work_tree) as tree:
        plan, gitlinks = plan_repository(source, tree=tree, include=include, clean=clean)
    if gitlinks:
        from coding_agents.workspace.submodules import add_submodules  # most repositories have none

        plan = add_submodules(source, plan, gitlinks)
    return plan


def plan_repository(
    source: Source, *, tree: Tree | None, include: Sequence[str], clean: bool
) -> tuple[CopyPlan, Mapping[str, str]]:
    """Decide for one repository, `tree` being its work tree; the second value are the commits of its submodules.

    Raises as `plan_copy`.
    """
    deny = load_deny_list()
    if tree is None:
        listing = _of_commit(source)
    else:
        shown = _Shown() if clean else _shown(source)
        listing = _of_disk(source, tree, deny, include, shown)
        if clean:
            listing = _with_asked(_of_commit(source), listing)
    plan = decide_copy(listing, deny, clean=clean)
    require_copyable(plan, listing.kinds)
    return plan, listing.gitlinks


class _Shown(msgspec.Struct, frozen=True):
    """What git shows of a work tree."""

    tracked: frozenset[str] = frozenset()
    untracked: frozenset[str] = frozenset()
    gitlinks: Mapping[str, str] = {}
    nested: frozenset[str] = frozenset()


def _of_disk(source: Source, tree: Tree, deny: DenyList, include: Sequence[str], shown: _Shown) -> Listing:
    """List the user's work tree: what git shows and what patterns ask for."""
    asked, asked_by_repo = _asked(source, tree, include)
    wanted = shown.tracked | shown.untracked | asked | asked_by_repo
    kinds, links, strays = _scan(tree, wanted)
    gitlinks = {path: oid for path, oid in shown.gitlinks.items() if kinds.get(path) is Kind.DIRECTORY}
    return Listing(
        tracked=shown.tracked,
        untracked=shown.untracked,
        nested=shown.nested | gitlinks.keys(),
        asked=asked,
        asked_by_repo=asked_by_repo,
        kinds=kinds,
        links=links,
        credentials=frozenset(
            path
            for path in wanted
            if deny.depends_on_content(path)
            and deny.matches_content(path, tree.read(path, CONTENT_LIMIT_BYTES))
        ),
        strays=_not_ignored(source, strays),
        gitlinks=gitlinks,
    )


def _shown(source: Source) -> _Shown:
    """Read git's list. Raises WorkspaceError for a directory that git cannot read.

    A tracked record is `TAG MODE OID STAGE<TAB>PATH` (several for a path in conflict), another `? PATH`,
    with a slash at the end when it is a repository of its own.
    """
    outcome = source.git(["ls-files", "-z", "-t", "-s", "--cached", "--others", "--exclude-standard"])
    _require_readable(unreadable_directories(outcome.stderr))
    tracked: set[str] = set()
    others: set[str] = set()
    gitlinks: dict[str, str] = {}
    for record in outcome.stdout.split(b"\0"):
        if record.startswith(b"? "):
            others.add(os.fsdecode(record[2:]))
        elif record:
            info, _, raw = record.partition(b"\t")
            path = os.fsdecode(raw)
            tracked.add(path)
            if info[2:8] == _GITLINK:
                gitlinks[path] = info.split(b" ")[2].decode()
    nested = {path for path in others if path.endswith("/")}
    return _Shown(
        tracked=frozenset(tracked),
        untracked=frozenset(others - nested),
        gitlinks=gitlinks,
        nested=frozenset(path.rstrip("/") for path in nested),
    )


def _asked(source: Source, tree: Tree, include: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Untracked paths that the user's patterns name, and ignored ones that .worktreeinclude names.

    git does the matching, so that the patterns mean exactly what they mean in a .gitignore.
    """
    listed = ["ls-files", "-z", "--others", "--ignored"]
    asked: set[str] = set()
    by_repo: set[str] = set()
    if include:
        patterns = [f"--exclude={pattern}" for pattern in include]
        asked = set(paths_of(source.git([*listed, *patterns]).stdout))
    if b"".join(tree.read(_INCLUDE_FILE, CONTENT_LIMIT_BYTES).split()):
        patterns = [f"--exclude-from={_INCLUDE_FILE}"]
        by_repo = set(paths_of(source.git([*listed, *patterns]).stdout))
        by_repo &= set(paths_of(source.git([*listed, "--exclude-standard"]).stdout))
    return frozenset(asked), frozenset(by_repo)


def _scan(tree: Tree, paths: Iterable[str]) -> tuple[dict[str, Kind], dict[str, str], set[str]]:
    """Kind and link target of each path on disk, and special files beside them that are not asked for."""
    kinds: dict[str, Kind] = {}
    links: dict[str, str] = {}
    strays: set[str] = set()
    for parent, group in groupby(sorted(path.rpartition("/")[::2] for path in paths), lambda pair: pair[0]):
        prefix = f"{parent}/" if parent else ""
        try:
            directory = tree.directory(parent)
        except PermissionError:
            _require_readable([parent])
            raise
        if directory is None:
            continue
        names = {name for _, name in group}
        with os.scandir(directory) as entries:
            for entry in entries:
                kind = _kind(entry, directory)
                path = prefix + entry.name
                if entry.name in names:
                    kinds[path] = kind
                    if kind is Kind.LINK:
                        links[path] = os.readlink(entry.name, dir_fd=directory)
                elif kind is Kind.SPECIAL:
                    strays.add(path)
    return kinds, links, strays


def _kind(entry: os.DirEntry[str], directory: int) -> Kind:
    if entry.is_symlink():
        return Kind.LINK
    if entry.is_dir(follow_symlinks=False):
        return Kind.DIRECTORY
    if not entry.is_file(follow_symlinks=False):
        return Kind.SPECIAL
    return Kind.FILE if os.access(entry.name, os.R_OK, dir_fd=directory) else Kind.UNREADABLE


def _not_ignored(source: Source, paths: set[str]) -> frozenset[str]:
    """Those of `paths` that git does not ignore."""
    if not paths:
        return frozenset()
    stdin = b"".join(os.fsencode(path) + b"\0" for path in sorted(paths))
    ignored = source.git(["check-ignore", "-z", "--stdin"], stdin=stdin, check=False)
    return frozenset(paths - set(paths_of(ignored.stdout)))


def _of_commit(source: Source) -> Listing:
    """List the tree of HEAD."""
    kinds: dict[str, Kind] = {}
    targets: dict[str, bytes] = {}
    gitlinks: dict[str, str] = {}
    if source.repo.head is not None:
        listed = source.git(["ls-tree", "-r", "-z", "--full-tree", source.repo.head]).stdout
        for record in filter(None, listed.split(b"\0")):
            info, _, raw = record.partition(b"\t")
            mode, _, oid = info.split(b" ")
            path = os.fsdecode(raw)
            kinds[path] = {_GITLINK: Kind.DIRECTORY, _SYMLINK: Kind.LINK}.get(mode, Kind.FILE)
            if mode == _SYMLINK:
                targets[path] = oid
            elif mode == _GITLINK:
                gitlinks[path] = oid.decode()
    nothing: frozenset[str] = frozenset()
    return Listing(
        tracked=frozenset(kinds),
        untracked=nothing,
        nested=frozenset(gitlinks),
        asked=nothing,
        asked_by_repo=nothing,
        kinds=kinds,
        links=_contents(source, targets),
        credentials=nothing,
        strays=nothing,
        gitlinks=gitlinks,
    )


def _contents(source: Source, blobs: Mapping[str, bytes]) -> dict[str, str]:
    """The text of each blob, from one `cat-file --batch` (`OID TYPE SIZE<LF>CONTENT<LF>` for each)."""
    contents: dict[str, str] = {}
    if blobs:
        rest = source.git(["cat-file", "--batch"], stdin=b"\n".join([*blobs.values(), b""])).stdout
        for path in blobs:
            head, _, rest = rest.partition(b"\n")
            size = int(head.rpartition(b" ")[2])
            contents[path], rest = os.fsdecode(rest[:size]), rest[size + 1 :]
    return contents


def _with_asked(commit: Listing, disk: Listing) -> Listing:
    """The commit's files and, from disk, what patterns bring in beside them."""
    brought = (disk.asked | disk.asked_by_repo) - commit.tracked
    return Listing(
        tracked=commit.tracked,
        untracked=commit.untracked,
        nested=commit.nested,
        asked=disk.asked & brought,
        asked_by_repo=disk.asked_by_repo & brought,
        kinds={**{path: kind for path, kind in disk.kinds.items() if path in brought}, **commit.kinds},
        links={**{path: link for path, link in disk.links.items() if path in brought}, **commit.links},
        credentials=disk.credentials & brought,
        strays=commit.strays,
        gitlinks=commit.gitlinks,
    )


def _require_readable(directories: Sequence[str]) -> None:
    if directories:
        raise WorkspaceError(
            f"cannot read the directory {directories[0]!r}"
            + (f" and {len(directories) - 1} more" if len(directories) > 1 else ""),
            details="\n".join(map(repr, directories)),
            hint="Make them readable, or let .gitignore name them.",
        )
