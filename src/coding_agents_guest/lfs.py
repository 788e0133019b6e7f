"""Sending the content of large files (Git LFS) to the relay: what our commits name and the host does not have.

The content lies outside of git, in `lfs/objects` of the git directory, so no push takes it along. It goes ahead of
the commits that name it, in pushes of bounded size, each built in a repository of its own that is then removed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.gitwork import Git, GitFailedError
from coding_agents_guest.lfspointer import (
    LFS,
    LFS_HOME,
    MAX_POINTER,
    PIECE,
    Pointer,
    parse_pointer,
    piece_name,
)
from coding_agents_guest.records import dataclass, replace
from coding_agents_guest.regular import open_regular

_BATCH_BYTES = (
    4 * PIECE
)  # a push is let through whole or not at all, and stands on the disk beside the original
_BATCH_PIECES = 1000
_MOST = 100_000
_SCRATCH = "coding-agents-lfs-"
_GIVE_UP = 3  # so many refusals of a single piece: the relay is full, and others would not fare better
_SETTINGS = ("pack.window=0", "pack.compression=1", "core.looseCompression=1")  # what is large is seldom text


@dataclass(frozen=True)
class LargeFile:
    """A pointer, the path under which a commit has it, and where its content lies here."""

    pointer: Pointer
    path: str
    source: Path


@dataclass(frozen=True)
class Sent:
    """`kept`: the paths of files whose content the relay did not take; `why`: why not all is there, "" when it is."""

    kept: tuple[str, ...] = ()
    why: str = ""

    def told(self) -> str:
        """What to tell a person, "" for nothing."""
        if not self.why:
            return ""
        some = f" of {', '.join(self.kept[:10])}" if self.kept else ""
        more = f" and {len(self.kept) - 10} more" if len(self.kept) > 10 else ""
        return f"the large files{some}{more} (Git LFS) are in the session's volume alone: {self.why}"


def has_lfs(git_dir: Path) -> bool:
    """Whether git-lfs was ever at work in the repository."""
    return (git_dir / "lfs" / "objects").is_dir()


def send_large_files(
    git: Git,
    git_dir: Path,
    *,
    tips: Sequence[str],
    known: Sequence[str],
    relay: str,
    scratch: Path,
    others: Mapping[str, Path] = {},
) -> Sent:
    """Push the content that commits in `tips` and not in `known` name, as far as it is here and not at home.

    It lies below `git_dir`, or where `others` says for a SHA-256. `scratch` has room for a batch. Never raises.
    """
    if not (others or has_lfs(git_dir)) or not tips:
        return Sent()
    try:
        return _send(git, git_dir, tips, known, relay, scratch, others)
    except (GitFailedError, OSError) as error:
        return Sent(why=str(error))


def _send(
    git: Git,
    git_dir: Path,
    tips: Sequence[str],
    known: Sequence[str],
    relay: str,
    scratch: Path,
    others: Mapping[str, Path],
) -> Sent:
    wanted = [
        LargeFile(pointer, path, others.get(pointer.oid) or _place(git_dir, pointer))
        for pointer, path in named_pointers(git, tips, known).items()
    ]
    here = [file for file in wanted if _is_here(file)]
    if not here:
        return Sent()
    for leftover in scratch.glob(f"{_SCRATCH}*"):  # of a save that was killed; one runs at a time
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=scratch) as name:
        sender = _Sender(git, Path(name), relay, {}, [])
        at_home = sender.at_home()
        sender.send([file for file in here if file.pointer.oid not in at_home])
    return Sent(tuple(sender.kept), sender.reasons[-1] if sender.kept else "")


def named_pointers(git: Git, tips: Sequence[str], known: Sequence[str]) -> dict[Pointer, str]:
    """The pointers in commits of `tips` and not of `known`, each with a path at which it stands."""
    revisions = "".join([*(f"{oid}\n" for oid in tips), *(f"^{oid}\n" for oid in known)]).encode()
    listed = git.run(
        "rev-list", "--objects", f"--filter=blob:limit={MAX_POINTER + 1}", "--stdin", stdin=revisions
    )
    paths = dict(
        (oid, os.fsdecode(path))
        for oid, _, path in (line.partition(b" ") for line in listed.splitlines())
        if path
    )
    small = git.run(
        "cat-file", "--batch-check=%(objectname) %(objecttype) %(objectsize)", stdin=b"\n".join([*paths, b""])
    )
    fields = (line.split() for line in small.splitlines())
    blobs = [oid for oid, kind, size in fields if kind == b"blob" and 100 < int(size) <= MAX_POINTER]
    contents = git.run("cat-file", "--batch", stdin=b"\n".join([*blobs, b""])) if blobs else b""
    found: dict[Pointer, str] = {}
    at = 0
    for oid in blobs:
        begin = contents.index(b"\n", at) + 1
        at = begin + int(contents[at:begin].split()[2]) + 1
        pointer = parse_pointer(contents[begin : at - 1])
        if pointer is not None and len(found) < _MOST:
            found.setdefault(pointer, paths[oid])
    return found


def digest(path: Path) -> Pointer | None:
    """What would stand for the regular file at `path`, None when there is none that can be read."""
    with suppress(OSError), open_regular(path) as file:
        if file is not None:
            sha256, size = hashlib.sha256(), 0
            while chunk := file.read(1 << 20):
                sha256.update(chunk)
                size += len(chunk)
            return Pointer(sha256.hexdigest(), size)
    return None


def _place(git_dir: Path, pointer: Pointer) -> Path:
    return git_dir / "lfs" / "objects" / pointer.oid[:2] / pointer.oid[2:4] / pointer.oid


def _is_here(file: LargeFile) -> bool:
    try:
        info = file.source.lstat()
    except OSError:
        return False
    return stat.S_ISREG(info.st_mode) and info.st_size == file.pointer.size


@dataclass(frozen=True)
class _Piece:
    file: LargeFile
    number: int

    @property
    def size(self) -> int:
        return self.file.pointer.piece_size(self.number)


@dataclass(frozen=True)
class _Sender:
    """`kept` are the paths that were refused so far, `reasons` one for each refusal."""

    git: Git
    scratch: Path
    relay: str
    kept: dict[str, None]
    reasons: list[str]

    def at_home(self) -> frozenset[str]:
        """What the host says that it has."""
        git = self._repository("home")
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance")
        if not git.agrees("fetch", *options, self.relay, f"+{LFS_HOME}:refs/home"):
            return frozenset()
        return frozenset(git.text("cat-file", "blob", "refs/home").split())

    def send(self, files: Sequence[LargeFile]) -> None:
        """Push `files` in batches, smallest first: what is too large must not take others along."""
        batch: list[_Piece] = []
        room = _BATCH_BYTES
        for file in sorted(files, key=lambda file: (file.pointer.size, file.pointer.oid)):
            for number in range(file.pointer.pieces):
                piece = _Piece(file, number)
                if batch and (piece.size > room or len(batch) >= _BATCH_PIECES):
                    self._push(batch)
                    batch, room = [], _BATCH_BYTES
                batch.append(piece)
                room -= piece.size
        if batch:
            self._push(batch)

    def _push(self, batch: Sequence[_Piece]) -> None:
        """Push one batch, in halves when it is refused."""
        batch = [piece for piece in batch if piece.file.path not in self.kept]
        if not batch:
            return
        if len(self.reasons) >= _GIVE_UP:
            self.kept.update(dict.fromkeys(piece.file.path for piece in batch))
            return
        git = self._repository("batch")
        try:
            tree = _tree(git, batch)
            git.run("push", "--quiet", "--no-verify", self.relay, f"{tree}:{LFS}{tree}")
        except GitFailedError as error:
            shutil.rmtree(self.scratch / "batch")
            if len(batch) == 1:
                self.kept[batch[0].file.path] = None
                self.reasons.append(str(error))
            else:
                half = len(batch) // 2
                self._push(batch[:half])
                self._push(batch[half:])
        else:
            shutil.rmtree(self.scratch / "batch")

    def _repository(self, name: str) -> Git:
        """git in a new repository in our scratch directory."""
        directory = self.scratch / name
        object_format = self.git.text("rev-parse", "--show-object-format")
        hidden = ("GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_DIR")
        environment = {key: value for key, value in self.git.environment.items() if key not in hidden}
        git = replace(
            self.git,
            directory=self.scratch,
            environment=environment,
            settings=(*self.git.settings, *_SETTINGS),
        )
        git.run(
            "init", "--quiet", "--bare", "--template=", f"--object-format={object_format}", str(directory)
        )
        return replace(git, directory=directory).within(GIT_DIR=str(directory))


def _tree(git: Git, batch: Sequence[_Piece]) -> str:
    """Write the pieces and the tree that names them; returns the tree's id."""
    whole = [
        piece for piece in batch if piece.file.pointer.pieces == 1 and "\n" not in str(piece.file.source)
    ]
    paths = b"".join(os.fsencode(piece.file.source) + b"\n" for piece in whole)
    blobs = git.run("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=paths) if whole else b""
    named = dict(zip(whole, blobs.decode("ascii").split()))
    entries = []
    for piece in batch:
        blob = named.get(piece) or _blob(git, piece)
        name = piece_name(piece.file.pointer.oid, piece.number)
        entries.append(f"100644 blob {blob}\t{name}\n")
    return git.run("mktree", stdin="".join(entries).encode("ascii")).decode("ascii").strip()


def _blob(git: Git, piece: _Piece) -> str:
    with piece.file.source.open("rb") as file:
        file.seek(piece.number * PIECE)
        content = file.read(piece.size)
    return git.run("hash-object", "-w", "--stdin", stdin=content).decode("ascii").strip()
