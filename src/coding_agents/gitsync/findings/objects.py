"""Reads what a review needs from an object store, within bounds: the guest chose how much there is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import IO, NamedTuple

from msgspec.structs import replace

from coding_agents.errors import GitError
from coding_agents.gitsync.findings.model import ABSENT, Change, Entry
from coding_agents.gitsync.packs import Store
from coding_agents.model.refs import Oid
from coding_agents.proc.git import git_command, require_ok
from coding_agents.proc.limits import ProcessLimits
from coding_agents.proc.runner import Command, Streaming, streaming

READ_S = 300.0
READ_LIMITS = ProcessLimits(cpu_s=300, memory_bytes=3 << 30, file_bytes=1 << 30, open_files=1024)
"""For git that walks what a guest has made: ten trees can name ten thousand million files, all of which git lists in
memory before it shows the first."""

_CHUNK = 1 << 20
_LONGEST_FIELD = 1 << 20
_SHOWN = 100  # bytes of a name beyond that
_BLOB = re.compile(rb"blob ([0-9a-f]{40,64})\n")

# The empty tree, by length of an object id (git knows both without storing them).
EMPTY_TREE = {
    40: "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    64: "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}


def changed_paths(store: Store, old: Oid | None, new: Oid, *, limit: int) -> tuple[list[Change], bool]:
    """The paths that differ between two commits (None: nothing), and whether there are more than `limit`.

    Renames are a deletion and an addition. Raises GitError.
    """
    args = (
        "diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-abbrev",
        "--ignore-submodules=none", old or EMPTY_TREE[len(new)], new,
    )  # fmt: skip
    with streaming(reading(store, args)) as process:
        changes = list(islice(_raw(process.stdout), limit + 1))
        _end(process, "git diff-tree", whole=len(changes) <= limit)
    return changes[:limit], len(changes) > limit


def sizes(store: Store, oids: Iterable[str], *, timeout_s: float = READ_S) -> dict[str, int]:
    """The sizes of those of `oids` that are blobs and there. Raises GitError."""
    wanted = "".join(f"{oid}\n" for oid in dict.fromkeys(oids) if oid).encode()
    if not wanted:
        return {}
    args = "cat-file", "--batch-check=%(objectname) %(objecttype) %(objectsize)"
    answers = store.git(*args, stdin=wanted, timeout_s=timeout_s).text().splitlines()
    found = (line.split() for line in answers if not line.endswith(" missing"))
    return {oid: int(size) for oid, kind, size in found if kind == "blob"}


def blob_at(store: Store, commit: Oid, path: str) -> str:
    """The blob that `commit` has at `path`, "" when it has none there. Raises GitError."""
    # A line break would be another question, and of a path that begins like this git asks for a work tree.
    if "\n" in path or path.startswith(("./", "../")):
        return ""
    question = f"{commit}:{path}\n".encode("utf-8", "surrogateescape")
    answer = store.git("cat-file", "--batch-check=%(objecttype) %(objectname)", stdin=question).stdout
    found = _BLOB.fullmatch(answer)
    return found[1].decode() if found else ""


class Held(NamedTuple):
    """An object of a commit, and one of the paths at which it stands there, up to a line break of its name."""

    oid: str
    commit: str
    path: str


class History(NamedTuple):
    """What commits hold, each object at the first that has it; `more`: not all, `missing`: how many are not there."""

    held: list[Held]
    more: bool
    missing: int


def history(
    store: Store, tip: Oid, known: Iterable[Oid], *, commits: int, limit: int, timeout_s: float
) -> History:
    """At most `limit` trees and blobs of the latest `commits` of `tip` that are not `known`'s. Raises GitError."""
    args = (
        "rev-list", "--objects", "--in-commit-order", "--reverse", "--missing=print", f"--max-count={commits}",
        tip, "--not", *known,
    )  # fmt: skip
    found: list[Held] = []
    commit, missing = "", 0
    with streaming(reading(store, args, timeout_s=timeout_s)) as process:
        while len(found) <= limit and (line := process.stdout.readline(_LONGEST_FIELD)):
            if not line.endswith(b"\n"):
                raise GitError(f"a path of more than {_LONGEST_FIELD} bytes")
            oid, space, path = line[:-1].partition(b" ")
            if line.startswith(b"?"):
                missing += 1
            elif space:
                found.append(Held(oid.decode(), commit, path.decode("utf-8", "surrogateescape")))
            else:
                commit = oid.decode()
        _end(process, "git rev-list", whole=len(found) <= limit)
    return History(found[:limit], len(found) > limit, missing)


def people(
    store: Store, tip: Oid, known: Iterable[Oid], *, limit: int
) -> tuple[list[tuple[bytes, ...]], bool]:
    """(commit, author's name, address, committer's name, address) of the commits of `tip` that are not `known`'s.

    As git reads the commits (it finds nobody where an encoding of theirs tears the names apart), mapped by no
    .mailmap; and whether there are more than `limit`. Raises GitError.
    """
    args = (
        "rev-list",
        f"--max-count={limit + 1}",
        "--format=%an%x00%ae%x00%cn%x00%ce",
        tip,
        "--not",
        *known,
    )
    with streaming(reading(store, args)) as process:
        found = list(_people(process.stdout))
        _end(process, "git rev-list", whole=True)
    return found[:limit], len(found) > limit


def _people(source: IO[bytes]) -> Iterator[tuple[bytes, ...]]:
    """The commits of rev-list: `commit ID`, then a line in our format."""
    while head := source.readline(_LONGEST_FIELD):
        line = source.readline(_LONGEST_FIELD)
        if line.endswith(b"\n"):
            yield (head.split()[-1], *line.rstrip(b"\n").split(b"\0")[:4])
            continue
        while (rest := source.readline(_LONGEST_FIELD)) and not rest.endswith(b"\n"):
            pass
        yield (head.split()[-1], line[:_SHOWN] + b"\xe2\x80\xa6", b"", b"", b"")  # nobody whom we know


class Blobs:
    """A `git cat-file --batch` that is asked for one object after the other."""

    def __init__(self, process: Streaming) -> None:
        self._process = process

    def read(self, oid: str, limit: int) -> bytes:
        """The whole content of an object of at most `limit` bytes. Raises GitError when there is none such."""
        try:
            self._process.stdin.write(f"{oid}\n".encode())
            self._process.stdin.flush()
            header = self._process.stdout.readline(_LONGEST_FIELD).split()
            size = int(header[2])
        except (OSError, IndexError, ValueError) as error:
            raise GitError(f"cannot read object {oid}") from error
        data = self._process.stdout.read(size + 1) if size <= limit else b""
        if len(data) != size + 1:
            raise GitError(f"cannot read object {oid} of {size} bytes")
        return data[:-1]


@contextmanager
def blobs(store: Store, *, timeout_s: float) -> Iterator[Blobs]:
    """A reader of objects; after `timeout_s` its answers are errors."""
    with streaming(reading(store, ("cat-file", "--batch"), timeout_s=timeout_s)) as process:
        yield Blobs(process)
        _end(process, "git cat-file", whole=False)


def reading(store: Store, args: tuple[str, ...], *, timeout_s: float = READ_S) -> Command:
    """git on `store`, kept from using up the host by what a guest has made."""
    command = git_command(
        args,
        profile=store.profile,
        env=store.env,
        git_dir=store.git_dir,
        owner=store.owner,
        timeout_s=timeout_s,
    )
    return replace(command, limits=READ_LIMITS)


def _end(process: Streaming, what: str, *, whole: bool) -> None:
    """Wait for the end; where we do not want the rest, its status does not matter."""
    if whole:
        require_ok(process.finish(), what)
    else:
        process.expire()


def _raw(source: IO[bytes]) -> Iterator[Change]:
    """The changes of git-diff-tree(1), "RAW OUTPUT FORMAT" with -z."""
    fields = _fields(source)
    for field in fields:
        old_mode, new_mode, old_oid, new_oid, _ = field[1:].decode("ascii").split(" ")
        path = next(fields).decode("utf-8", "surrogateescape")
        yield Change(path, _entry(old_mode, old_oid), _entry(new_mode, new_oid))


def _entry(mode: str, oid: str) -> Entry:
    return Entry(mode, oid) if mode != ABSENT.mode else ABSENT


def _fields(source: IO[bytes]) -> Iterator[bytes]:
    held = b""
    while chunk := source.read(_CHUNK):
        *whole, held = (held + chunk).split(b"\0")
        yield from whole
        if len(held) > _LONGEST_FIELD:
            raise GitError(f"a path of more than {_LONGEST_FIELD} bytes")
