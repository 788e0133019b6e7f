"""What a volume's git directory says, read as bytes: no git runs in it, and nothing in it can hold us up.

git blocks on a pipe where it expects a file, follows links in circles, and believes `commondir`, grafts, planted
alternates and unknown extensions. So HEAD, refs and the places of objects are read here, each as a regular file
of bounded size, and objects are borrowed only from where every entry is one.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.records import dataclass
from coding_agents_guest.regular import read_small
from coding_agents_guest.volume_refs import (
    OID,
    Refs,
    UnreadableVolumeError,
    directories,
    name_refs,
    read_all_refs,
)

_REF = re.compile(rb"ref:\s*(refs/[^\0\n]{1,1000})\s*")
_OBJECT_DIRECTORY = re.compile(r"[0-9a-f]{2}|pack")
_MAX_SHALLOW = 16 << 20
_MAX_ALTERNATES = 20
_MAX_PIPES = 100
_MAX_MODULES_DEPTH = 16


@dataclass(frozen=True)
class Volume:
    """`head` is what HEAD names: a claim, not yet looked up, like `refs`. `git_dir` is None when the volume has none;
    `common` is where its refs are, which linked work trees share, and `objects` are object directories inside it.

    `linked` are the places of its linked work trees in the volume, `modules` the git directories of its submodules with
    their names, outer ones first.
    `in_tables` says that its refs are a reftable, in which we do not look.
    """

    git_dir: Path | None
    common: Path | None = None
    head: str = ""
    refs: Refs = Refs()
    objects: tuple[Path, ...] = ()
    shallow: bytes = b""
    linked: tuple[str, ...] = ()
    modules: tuple[tuple[tuple[str, ...], Path], ...] = ()
    in_tables: bool = False


def read_volume(workspace: Path, *, inside: str = "") -> Volume:
    """Read the git directory of `workspace`, which may also be a link or a `gitdir:` file that stays inside.

    `inside` is the path of a repository in there, which may have its git directory anywhere in `workspace`.
    Raises UnreadableVolumeError for more refs than a repository has.
    """
    top = Path(os.path.realpath(workspace))
    git_dir = _inside(top, _git_dir(workspace / inside / ".git"))
    return read_git_dir(workspace, git_dir) if git_dir is not None else Volume(None)


def read_git_dir(workspace: Path, git_dir: Path) -> Volume:
    """The same of a git directory in `workspace`."""
    top = Path(os.path.realpath(workspace))
    common = _inside(top, _pointed(git_dir, "commondir")) or git_dir
    found = read_all_refs(common)
    worktrees = directories(common / "worktrees")
    return Volume(
        git_dir,
        common,
        head=_head(git_dir, common, found),
        refs=name_refs(git_dir, common, found),
        objects=tuple(_object_directories(top, common / "objects")),
        shallow=read_small(common / "shallow", _MAX_SHALLOW),
        linked=tuple(_linked(top, worktrees)),
        modules=tuple(one for home in (common, *worktrees) for one in _modules(home / "modules")),
        in_tables=os.path.lexists(common / "reftable"),
    )


def borrow(objects: tuple[Path, ...], target: Path) -> None:
    """Let the object directory `target` see what is in `objects`; links to single files where git could get stuck."""
    clean = [one for one in objects if not _is_odd(one)]
    (target / "info/alternates").write_bytes(b"".join(os.fsencode(one) + b"\n" for one in clean))
    for one in objects:
        if one not in clean:
            _link_files(one, target)


def pipes_in_the_way(workspace: Path) -> Iterator[Path]:
    """Pipes where git reads rules of a directory, or whether it is a repository: it would wait for a writer."""
    top = os.path.realpath(workspace)
    waiting = [top]  # not by recursion, for a volume may be deeper than that can be
    while waiting:
        directory = waiting.pop()
        for entry in _scan(Path(directory)):
            if entry.name == ".git":
                yield from _pipes_in_repository(top, directory) if directory != top else ()
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            elif entry.name in (".gitignore", ".gitattributes") and _is_pipe(entry.path):
                yield Path(entry.path)


def _pipes_in_repository(top: str, directory: str) -> Iterator[Path]:
    """Those that git meets when it asks whether `directory` is a repository, or looks what that one stands on."""
    git_dirs = [f"{directory}/.git"]
    said = read_small(Path(os.path.realpath(git_dirs[0])))
    if said.startswith(b"gitdir: "):  # exactly as git reads it
        named = said[len(b"gitdir: ") :].rstrip(b"\r\n").partition(b"\0")[0]
        git_dirs.append(os.path.join(directory, os.fsdecode(named)))  # noqa: PTH118 - a Path would tidy it up
    for git_dir in git_dirs:
        for name in ("HEAD", "commondir", "config", "index", "packed-refs"):
            path = os.path.realpath(f"{git_dir}/{name}")
            if path.startswith(f"{top}/") and _is_pipe(path):
                yield Path(path)


def _is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.lstat(path).st_mode)
    except OSError:
        return False


def feed_nothing(pipes: Iterator[Path]) -> None:
    """Be the writer that says nothing, for as long as we live. Raises UnreadableVolumeError where we may not."""
    for number, path in enumerate(pipes):
        if number >= _MAX_PIPES:
            raise UnreadableVolumeError("there are too many pipes in place of rules for git")
        if os.access(path, os.R_OK) and not os.access(path, os.W_OK):
            raise UnreadableVolumeError(f"{path.name} is a pipe that would hold up git: {path}")
        threading.Thread(target=_feed, args=(path,), daemon=True).start()


def _feed(path: Path) -> None:
    with suppress(OSError):
        while True:
            os.close(os.open(path, os.O_WRONLY))


def _git_dir(path: Path) -> Path:
    """Where `.git` leads: itself, or what its `gitdir:` line names."""
    said = read_small(path)
    if said.startswith(b"gitdir:"):
        return path.parent / os.fsdecode(said[len(b"gitdir:") :].strip())
    return path


def _pointed(git_dir: Path, name: str) -> Path | None:
    said = read_small(git_dir / name).strip()
    return git_dir / os.fsdecode(said) if said else None


def _inside(top: Path, path: Path | None) -> Path | None:
    """`path` without links, if it is a directory below `top`; there is nothing of the agent's elsewhere."""
    if path is None or "\0" in str(path):
        return None
    real = Path(os.path.realpath(path))
    with suppress(OSError):
        if top in real.parents and stat.S_ISDIR(real.lstat().st_mode):
            return real
    return None


def _linked(top: Path, worktrees: list[Path]) -> Iterator[str]:
    """Where those with the git directories `worktrees` stand, as far as below `top` and as their `.git` leads back."""
    for git_dir in worktrees:
        said = _pointed(git_dir, "gitdir")
        if said is None or said.name != ".git" or "\0" in str(said):
            continue
        place = Path(os.path.realpath(said.parent))
        if top in place.parents and _inside(top, _git_dir(place / ".git")) == git_dir:
            yield str(place.relative_to(top))


def _modules(
    parent: Path, outer: tuple[str, ...] = (), depth: int = _MAX_MODULES_DEPTH
) -> Iterator[tuple[tuple[str, ...], Path]]:
    """The git directories of submodules below `parent`, and of theirs, with their names (of several parts, too)."""
    waiting = [(one, one.name) for one in directories(parent)]
    while waiting and depth:
        git_dir, name = waiting.pop()
        if os.path.lexists(git_dir / "HEAD"):
            yield (*outer, name), git_dir
            yield from _modules(git_dir / "modules", (*outer, name), depth - 1)
        elif name.count("/") < _MAX_MODULES_DEPTH:
            waiting += [(one, f"{name}/{one.name}") for one in directories(git_dir)]


def _head(git_dir: Path, common: Path, refs: Mapping[str, str]) -> str:
    said = read_small(git_dir / "HEAD")
    with suppress(OSError):  # as git made it long ago
        said = said or b"ref: " + os.fsencode((git_dir / "HEAD").readlink())
    for _ in range(5):
        named = _REF.fullmatch(said)
        if named is None:
            break
        name = os.fsdecode(named[1]).strip()
        if name in refs:
            return refs[name]
        if ".." in name.split("/"):
            return ""
        said = read_small(common / name)
    oid = said.strip()
    return oid.decode() if OID.fullmatch(oid) else ""


def _object_directories(top: Path, first: Path) -> list[Path]:
    """`first` and what its alternates name, and theirs, as far as they are inside."""
    found: list[Path] = []
    waiting = [first]
    while waiting and len(found) < _MAX_ALTERNATES:
        here = _inside(top, waiting.pop(0))
        if here is None or here in found:
            continue
        found.append(here)
        lines = read_small(here / "info/alternates").split(b"\n")[:_MAX_ALTERNATES]
        waiting += [here / os.fsdecode(line) for line in lines if line and not line.startswith(b"#")]
    return found


def _is_odd(objects: Path) -> bool:
    """Whether git could meet something else in `objects` than files where it expects them."""
    if os.path.lexists(objects / "info/alternates") and not read_small(objects / "info/alternates"):
        return True
    return any(not entry.is_file(follow_symlinks=False) for entry in _object_entries(objects))


def _object_entries(objects: Path) -> Iterator[os.DirEntry[str]]:
    """What is in the directories in which git looks for objects; what should be one of these and is not, too."""
    for directory in _scan(objects):
        if directory.is_dir(follow_symlinks=False):
            if _OBJECT_DIRECTORY.fullmatch(directory.name):
                yield from _scan(Path(directory.path))
        elif _OBJECT_DIRECTORY.fullmatch(directory.name):
            yield directory


def _scan(directory: Path) -> list[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(directory) as entries:
        return list(entries)
    return []


def _link_files(objects: Path, target: Path) -> None:
    for entry in _object_entries(objects):
        if entry.is_file(follow_symlinks=False) and Path(entry.path).parent != objects:
            directory = target / Path(entry.path).parent.name
            directory.mkdir(exist_ok=True)
            with suppress(FileExistsError):
                (directory / entry.name).symlink_to(entry.path)
