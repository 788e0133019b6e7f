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
from coding_agents_guest.regular import open_regular

_OID = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF = re.compile(rb"ref:\s*(refs/[^\0\n]{1,1000})\s*")
_OBJECT_DIRECTORY = re.compile(r"[0-9a-f]{2}|pack")
_MAX_SMALL = 1 << 16
_MAX_SHALLOW = 16 << 20
_MAX_STASHES = 100
_MAX_STASH_LOG = 1 << 20
_MAX_PACKED_REFS = 512 << 20
_MAX_REFS = 1_000_000
_MAX_DEPTH = 40
_MAX_ALTERNATES = 20
_MAX_PIPES = 100
_HEADS = "refs/heads/"


class UnreadableVolumeError(Exception):
    """The volume holds more, or stranger things, than can be read."""


@dataclass(frozen=True)
class Volume:
    """`head` is what HEAD names and `branches` the short names below refs/heads with their objects: claims, not yet
    looked up. Stashes are among the branches, as `stash-1` (the latest) and so on. `git_dir` is None when the volume
    has none; `objects` are object directories inside it."""

    git_dir: Path | None
    head: str = ""
    branches: Mapping[str, str] = {}
    objects: tuple[Path, ...] = ()
    shallow: bytes = b""


def read_volume(workspace: Path, *, inside: str = "") -> Volume:
    """Read the git directory of `workspace`, which may also be a link or a `gitdir:` file that stays inside.

    `inside` is the path of a repository in there, which may have its git directory anywhere in `workspace`.
    Raises UnreadableVolumeError for more refs than a repository has.
    """
    top = Path(os.path.realpath(workspace))
    workspace = workspace / inside
    git_dir = _inside(top, _git_dir(workspace / ".git"))
    if git_dir is None:
        return Volume(None)
    common = _inside(top, _pointed(git_dir, "commondir")) or git_dir
    found = _refs(common)
    head = _head(git_dir, common, found)
    branches = {name[len(_HEADS) :]: oid for name, oid in found.items() if name.startswith(_HEADS)}
    branches.update(_stashes(common, found, branches))
    shallow = read_small(common / "shallow", _MAX_SHALLOW)
    return Volume(git_dir, head, branches, tuple(_object_directories(top, common / "objects")), shallow)


def read_small(path: Path, limit: int = _MAX_SMALL) -> bytes:
    """The content of a regular file of at most `limit` bytes; b"" for everything else."""
    with suppress(OSError), open_regular(path) as file:
        if file is not None:
            data = file.read(limit + 1)
            return data if len(data) <= limit else b""
    return b""


def borrow(objects: tuple[Path, ...], target: Path) -> None:
    """Let the object directory `target` see what is in `objects`; links to single files where git could get stuck."""
    clean = [one for one in objects if not _is_odd(one)]
    (target / "info/alternates").write_bytes(b"".join(os.fsencode(one) + b"\n" for one in clean))
    for one in objects:
        if one not in clean:
            _link_files(one, target)


def pipes_in_the_way(workspace: Path) -> Iterator[Path]:
    """Pipes where git reads rules of a directory: it would wait for a writer."""
    for directory, names, files in os.walk(workspace):
        names[:] = [name for name in names if name != ".git"]
        for name in (".gitignore", ".gitattributes"):
            if name in files:
                path = Path(directory, name)
                with suppress(OSError):
                    if stat.S_ISFIFO(path.lstat().st_mode):
                        yield path


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
    return oid.decode() if _OID.fullmatch(oid) else ""


def _refs(common: Path) -> dict[str, str]:
    """Every branch with what it names, loose ones over packed ones."""
    found: dict[str, str] = {}
    for line in read_small(common / "packed-refs", _MAX_PACKED_REFS).split(b"\n"):
        oid, _, name = line.partition(b" ")
        if _OID.fullmatch(oid) and name.startswith(b"refs/"):
            found[os.fsdecode(name)] = oid.decode()
            _check_number(found)
    for path in _files(common / "refs/heads", _MAX_DEPTH):
        oid = read_small(path).strip()
        if _OID.fullmatch(oid):
            found[str(path.relative_to(common))] = oid.decode()
            _check_number(found)
    return found


def _stashes(common: Path, refs: Mapping[str, str], branches: Mapping[str, str]) -> dict[str, str]:
    """The stashes, latest first, by names that no branch has. All but the latest are in the log of its ref alone."""
    lines = read_small(common / "logs/refs/stash", _MAX_STASH_LOG).split(b"\n")
    logged = [parts[1] for line in reversed(lines) if len(parts := line.split(b" ", 2)) == 3]
    latest = read_small(common / "refs/stash").strip() or refs.get("refs/stash", "").encode()
    oids = [oid.decode() for oid in (latest, *logged) if _OID.fullmatch(oid)]
    found: dict[str, str] = {}
    for number, oid in enumerate(list(dict.fromkeys(oids))[:_MAX_STASHES], start=1):
        name = f"stash-{number}"
        while name in branches:
            name += "-"
        found[name] = oid
    return found


def _check_number(refs: Mapping[str, str]) -> None:
    if len(refs) > _MAX_REFS:
        raise UnreadableVolumeError(f"the volume has more than {_MAX_REFS} refs")


def _files(directory: Path, depth: int) -> Iterator[Path]:
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                yield Path(entry.path)
            elif depth and entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path), depth - 1)


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
