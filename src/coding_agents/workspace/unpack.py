"""Places what came out of a guest on the host: in a new directory of ours, through no link, and then all at once.

Only plain files and directories are made, and links that cannot lead out of the copy. Nothing that is there already is
entered or merged; a plain file in the way is replaced, whatever else is in the way is an error.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from coding_agents.errors import CopyError
from coding_agents.workspace.untar import Entry, TarReader

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TOP = b"copy"
_KEPT = 20  # names of what was left out that are told


class Unpacked(msgspec.Struct):
    """What was made, in numbers, and what was left out: links that lead out, devices, pipes, hard links."""

    files: int = 0
    size_bytes: int = 0
    left_out: list[str] = msgspec.field(default_factory=list)
    left_out_count: int = 0

    def leave_out(self, entry: Entry) -> None:
        self.left_out_count += 1
        if len(self.left_out) < _KEPT:
            self.left_out.append(entry.path)


def unpack(reader: TarReader, target: Path, *, complete: Callable[[], None]) -> Unpacked:
    """Make `target` of the one tree that the reader gives, after `complete` has found that it is all there.

    Raises CopyError, OSError, EOFError; then nothing is left of it.
    """
    parent = target.parent
    with _own_directory(parent) as (place, descriptor):
        done = _Unpacker(descriptor, _owner(parent)).unpack(reader)
        complete()
        if not any(place.iterdir()):
            raise CopyError(
                "there is nothing that can be copied", hint="Files, directories and links within them can be."
            )
        _put(place / os.fsdecode(_TOP), target)
    return done


class _Unpacker:
    def __init__(self, place: int, owner: tuple[int, int] | None) -> None:
        self._place = place
        self._owner = owner
        self._done = Unpacked()

    def unpack(self, reader: TarReader) -> Unpacked:
        first: bytes | None = None
        for entry in reader:
            first = first or entry.parts[0]
            if entry.parts[0] != first:
                raise CopyError(
                    "the session sent more than was asked for: refused", hint="Nothing was copied."
                )
            try:
                self._make(entry, (_TOP, *entry.parts[1:]), reader)
            except FileExistsError as error:
                raise CopyError(
                    f"the session sent {entry.path!r} twice: refused", hint="Nothing was copied."
                ) from error
            except (FileNotFoundError, NotADirectoryError) as error:
                raise CopyError(
                    f"the session sent {entry.path!r} outside of what it had sent before: refused",
                    hint="Nothing was copied.",
                ) from error
        return self._done

    def _make(self, entry: Entry, parts: tuple[bytes, ...], reader: TarReader) -> None:
        with _opened(self._place, parts[:-1]) as above:
            name = parts[-1]
            if entry.kind == "directory":
                os.mkdir(name, 0o700, dir_fd=above)
                self._finish(name, above, (entry.mode | 0o700) & ~_umask())
            elif entry.kind == "file":
                self._file(entry, name, above, reader)
            elif entry.kind == "link" and stays_inside(entry.target, depth=len(parts) - 2):
                os.symlink(entry.target, name, dir_fd=above)
                self._own(name, above)
            else:
                self._done.leave_out(entry)

    def _file(self, entry: Entry, name: bytes, above: int, reader: TarReader) -> None:
        descriptor = os.open(name, _NEW, 0o600, dir_fd=above)
        with os.fdopen(descriptor, "wb") as file:
            for chunk in reader.content(entry):
                file.write(chunk)
        self._done.files += 1
        self._done.size_bytes += entry.size
        self._finish(name, above, (entry.mode | 0o600) & ~_umask())

    def _finish(self, name: bytes, above: int, mode: int) -> None:
        self._own(name, above)
        os.chmod(name, mode, dir_fd=above)  # made a moment ago, by us, in a directory that is only ours

    def _own(self, name: bytes, above: int) -> None:
        if self._owner is not None:
            os.chown(name, *self._owner, dir_fd=above, follow_symlinks=False)


def stays_inside(target: bytes, *, depth: int) -> bool:
    """Whether a link in a directory `depth` below the top can only lead into the tree.

    A `..` behind a name is refused: that name may be a link, and its parent another than the path says.
    """
    parts = target.split(b"/")
    ups = 0
    while ups < len(parts) and parts[ups] == b"..":
        ups += 1
    down = parts[ups:]
    return ups <= depth and not any(part in (b"", b"..") for part in down) and len(target) <= 4096


@contextmanager
def _own_directory(parent: Path) -> Iterator[tuple[Path, int]]:
    place = Path(tempfile.mkdtemp(prefix=".coding-agents-copy-", dir=parent))
    try:
        descriptor = os.open(place, _DIRECTORY)
        try:
            yield place, descriptor
        finally:
            os.close(descriptor)
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _opened(place: int, parts: tuple[bytes, ...]) -> Iterator[int]:
    """The directory at `parts` below `place`, reached through no link."""
    current = os.dup(place)
    try:
        for part in parts:
            following = os.open(part, _DIRECTORY, dir_fd=current)
            os.close(current)
            current = following
        yield current
    finally:
        os.close(current)


def _put(made: Path, target: Path) -> None:
    """Move what was made to its place. Never through a link there, and over nothing but a plain file."""
    with suppress(FileNotFoundError):
        there = target.lstat()
        if not (stat.S_ISREG(there.st_mode) and stat.S_ISREG(made.lstat().st_mode)):
            raise CopyError(f"{target} is there already", hint="Choose another DST, or move it away.")
    made.rename(target)


def _owner(parent: Path) -> tuple[int, int] | None:
    """Who is to own the copy when it is not us: root makes it for whose directory it is."""
    there = parent.stat()
    return (there.st_uid, there.st_gid) if os.geteuid() == 0 and there.st_uid != 0 else None


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current
