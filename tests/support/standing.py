"""What stands in a work tree, read from disk: the judge of what must come back.

Of git only its lists of what is tracked are asked, never what a file holds, whether it changed or whether
a rule ignores it: the rules that `support.edits` writes are understood here.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from coding_agents_guest.deny import DenyList

Entry = tuple[str, bytes]
"""Mode as git has it, and content as git stores it (of a link its target, of a repository its commit)."""


@dataclass(frozen=True)
class Standing:
    """`files` must be in the commit; `inside` are the repositories in the work tree, each with its own files."""

    files: Mapping[str, Entry]
    inside: Mapping[str, Mapping[str, Entry]]


def standing(work: Path, git: Callable[..., str], deny: DenyList) -> Standing:
    """What a save of `work` must hold. `git` runs there as the agent does."""
    head = _entries(git, "ls-tree", "-r", "-z", "--full-tree", "HEAD")
    index = _entries(git, "ls-files", "-z", "--stage") if (work / ".git/index").exists() else dict(head)
    found = on_disk(work)
    ignored = _ignore_rules(work)
    tracked = {path for path in index if index[path][0] != "160000"}
    apart = _repositories(work, tracked & found.keys())
    free_bits = not _executable_bits_count(git)
    outer = {
        path: _without_bit(entry, index.get(path)) if free_bits else entry
        for path, entry in found.items()
        if not any(path.startswith(one + "/") for one in apart)
        and not (deny.denies(path) and (path not in head or path not in tracked))
        and (path in tracked or not ignored(path))
        and not _is_refused(path, entry)
    }
    for path, (mode, oid) in index.items():
        if mode == "160000" and (commit := _recorded(work / path, oid)):
            outer[path] = (mode, commit.encode())
    inside = {
        one: {path.removeprefix(one + "/"): found[path] for path in found if path.startswith(one + "/")}
        for one in apart
        if (one in index and one not in tracked) or not ignored(one + "/")
    }
    return Standing(outer, inside)


def _is_refused(path: str, entry: Entry) -> bool:
    """What git takes into no tree (git's read-cache.c, verify_path)."""
    return path.endswith(".gitmodules") and entry[0] == "120000"


def _repositories(work: Path, tracked: set[str]) -> list[str]:
    """Those that git takes for apart, and not for directories of which it tracks files; the outermost ones."""
    every = [str(Path(path).parent) for path in _git_directories(work)]
    apart = [one for one in every if not any(path.startswith(one + "/") for path in tracked)]
    return [one for one in apart if not any(one.startswith(other + "/") for other in apart)]


def _recorded(repository: Path, oid: str) -> str:
    """What is recorded of a repository of which `oid` was: nothing when files or nothing are in its place."""
    if repository.is_symlink() or not repository.is_dir():
        return ""
    if (repository / ".git").exists():
        return _head_of(repository) or oid
    return "" if on_disk(repository) else oid


def _without_bit(entry: Entry, known: tuple[str, str] | None) -> Entry:
    """Where executable bits do not count, the index knows them (core.fileMode)."""
    if entry[0] == "120000":
        return entry
    return ("100755" if known and known[0] == "100755" else "100644", entry[1])


def not_checked_out(work: Path, git: Callable[..., str]) -> dict[str, str]:
    """Paths marked as no part of the work tree (skip-worktree) that are none, with their objects."""
    if not (work / ".git/index").exists():
        return {}
    marked = [record[2:] for record in git("ls-files", "-z", "-t").split("\0") if record.startswith("S ")]
    index = _entries(git, "ls-files", "-z", "--stage")
    return {path: index[path][1] for path in marked if _is_away(work, path)}


def on_disk(top: Path) -> dict[str, Entry]:
    """Every file and link below `top` but what is in a `.git`."""
    found: dict[str, Entry] = {}
    for directory, directories, names in os.walk(top):
        linked = [name for name in directories if (Path(directory) / name).is_symlink()]
        directories[:] = [name for name in directories if name != ".git"]
        for name in [*names, *linked]:
            path = Path(directory, name)
            info = path.lstat()
            if name == ".git":
                continue
            if stat.S_ISLNK(info.st_mode):
                found[str(path.relative_to(top))] = ("120000", os.fsencode(path.readlink()))
            elif stat.S_ISREG(info.st_mode):
                mode = "100755" if info.st_mode & 0o100 else "100644"
                found[str(path.relative_to(top))] = (mode, path.read_bytes())
    return found


def _git_directories(work: Path) -> list[str]:
    """Of repositories in the work tree; of a submodule it is a file that leads to it."""
    found = []
    for directory, directories, names in os.walk(work):
        if ".git" in directories:
            directories.remove(".git")
        elif ".git" not in names or not Path(directory, ".git").read_bytes().startswith(b"gitdir: "):
            continue
        if Path(directory) != work:
            found.append(str(Path(directory, ".git").relative_to(work)))
    return found


def _is_away(work: Path, path: str) -> bool:
    """Whether `path` is not there, and nothing else is where a directory of it would be."""
    above = [work / parent for parent in Path(path).parents if str(parent) != "."]
    return not os.path.lexists(work / path) and all(
        not os.path.lexists(one) or (one.is_dir() and not one.is_symlink()) for one in above
    )


def _entries(git: Callable[..., str], *words: str) -> dict[str, tuple[str, str]]:
    """Mode and object by path, of `ls-files --stage` or `ls-tree`; nothing when there is no such tree."""
    try:
        listed = git(*words)
    except AssertionError:
        return {}
    found = {}
    for record in listed.split("\0"):
        info, _, path = record.partition("\t")
        if path:
            fields = info.split(" ")
            found[path] = (fields[0], fields[2] if words[0] == "ls-tree" else fields[1])
    return found


def _ignore_rules(work: Path) -> Callable[[str], bool]:
    """Whether a path (with `/` at the end: a directory) is ignored by the rules at the top, if it is not tracked."""
    rules = work / ".gitignore"
    lines = rules.read_text().split() if rules.is_file() and not rules.is_symlink() else []

    def ignored(path: str) -> bool:
        *above, name = path.rstrip("/").split("/")
        directories = [*above, name] if path.endswith("/") else above
        return (
            "*" in lines
            or ("*.ign" in lines and any(part.endswith(".ign") for part in [*above, name]))
            or ("out/" in lines and "out" in directories)
        )

    return ignored


def _executable_bits_count(git: Callable[..., str]) -> bool:
    try:
        return git("config", "--type=bool", "core.fileMode") != "false"
    except AssertionError:
        return True


def _head_of(repository: Path) -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", "HEAD"], cwd=repository, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CEILING_DIRECTORIES": str(repository.parent)},
    )  # fmt: skip
    return done.stdout.strip()
