"""Brings the stat fields of a copied index up to date, once, before the agent runs.

A copy keeps of each file the size and the second of its last change. What else git knows a file by (inode, owner,
change time, nanoseconds) is another's in the container: git would read every file, or, told to look at size and second
alone, miss a file that was renamed over another one of the same. So entries whose size and second are the file's get
the rest of what lstat(2) says, as git's `fill_stat_data` does. All others stay, and git reads those files.

The format is gitformat-index(5). Nothing of the repository is executed, and no file but the index is opened.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.regular import open_regular, read_small

_HEADER = struct.Struct(">4sII")  # signature, version, number of entries
_KNOWN = struct.Struct(">8xI12xI8xI")  # of an entry: second of the mtime, mode, size
_TIMES_AND_INODE = struct.Struct(
    ">6I"
)  # ctime and mtime with nanoseconds, device, inode; the mode is behind them
_OWNER = struct.Struct(">2I")
_OWNER_AT = 28
_OID_AT = 40
_EXTENSION = struct.Struct(">4sI")
_FLAGS = struct.Struct(">H")
_EXTENDED = 0x4000
_LONGEST = 0xFFF  # of a name, in the flags; also of all that are longer
_GITLINK = 0o160000
_UINT = 0xFFFFFFFF  # git keeps the low 32 bits of everything
_NS = 1_000_000_000
_NO_NAME = (b"", b".", b"..")
_PATH_MAX = 4096
_GIT_DIR_LINE = b"gitdir: "
_NEW_INDEX = "coding-agents-restamp.index"


def restamp(workspace: Path) -> None:
    """Bring the index of `workspace`, and of the submodules that stand in it, up to date.

    Never raises: an index that is split, sparse, damaged or not there stays as it is.
    """
    waiting = [(workspace / ".git", workspace)]
    while waiting:
        git_dir, work = waiting.pop()
        for path in restamp_index(git_dir / "index", work):
            place = work / os.fsdecode(path)
            said = read_small(place / ".git")
            if said.startswith(_GIT_DIR_LINE):
                waiting.append((place / os.fsdecode(said[len(_GIT_DIR_LINE) :].rstrip(b"\n")), place))


def restamp_index(index: Path, work: Path) -> list[bytes]:
    """Bring `index` of the work tree `work` up to date; returns which directories are gitlinks. Never raises."""
    # All but the first say that it is no index as we know them.
    with suppress(OSError, ValueError, IndexError, struct.error):
        with open_regular(index) as file:
            if file is None:
                return []
            info, data = os.fstat(file.fileno()), bytearray(file.read())
        hashed, end = _read_hash(data)
        gitlinks = _stamp(data, end, os.fsencode(work) + b"/")
        if hashed is not None:
            data[end:] = hashed(memoryview(data)[:end], usedforsecurity=False).digest()
        _put_in_place(index, data, info)
        return gitlinks
    return []


def _read_hash(data: bytearray) -> tuple[Callable[..., hashlib._Hash] | None, int]:
    """The function by which the hash at the end of `data` was made (None: there are zeros, by index.skipHash), and
    where that begins. It is as long as the ids of objects. Raises ValueError when the content is another one."""
    for function in (hashlib.sha256, hashlib.sha1):
        end = len(data) - function(usedforsecurity=False).digest_size
        if not any(data[end:]):
            return None, end
        if function(memoryview(data)[:end], usedforsecurity=False).digest() == data[end:]:
            return function, end
    raise ValueError("the index is damaged")


def _stamp(data: bytearray, end: int, top: bytes) -> list[bytes]:
    """Change the entries in `data`, whose hash is at `end`; returns the gitlinks. Raises as `_entries`."""
    directories = _Directories(top)
    gitlinks = []
    for at, name in _entries(data, end):
        mtime_s, mode, size = _KNOWN.unpack_from(data, at)
        if mode == _GITLINK:
            gitlinks += [name] if directories.has(name) else []
            continue
        if not directories.has(name[: max(name.rfind(b"/"), 0)]):
            continue
        try:
            info = os.lstat(top + name)
        except OSError:
            continue
        seconds, nanoseconds = divmod(info.st_mtime_ns, _NS)
        same = seconds & _UINT == mtime_s and info.st_size & _UINT == size
        # Size 0 may be git's mark for a file to be read: it stays one, as the id is none of an empty file.
        if same and stat.S_IFMT(info.st_mode) == stat.S_IFMT(mode):
            ctime_s, ctime_ns = divmod(info.st_ctime_ns, _NS)
            times = ctime_s & _UINT, ctime_ns, mtime_s, nanoseconds
            _TIMES_AND_INODE.pack_into(data, at, *times, info.st_dev & _UINT, info.st_ino & _UINT)
            _OWNER.pack_into(data, at + _OWNER_AT, info.st_uid & _UINT, info.st_gid & _UINT)
    return gitlinks


def _entries(data: bytearray, end: int) -> Iterator[tuple[int, bytes]]:
    """Where each entry begins, and its path. Raises ValueError, IndexError or struct.error for an index that we do not
    know, if need be behind the last entry."""
    signature, version, count = _HEADER.unpack_from(data)
    if signature != b"DIRC" or version not in (2, 3, 4):
        raise ValueError("no index of a version that we know")
    flags_at = _OID_AT + len(data) - end
    at, name = _HEADER.size, b""
    for _ in range(count):
        (flags,) = _FLAGS.unpack_from(data, at + flags_at)
        start = at + flags_at + (4 if flags & _EXTENDED else 2)
        if version == 4:  # without what the path has in common with the one before
            dropped, start = _read_number(data, start)
            stop = data.index(0, start)
            name = name[: len(name) - dropped] + data[start:stop]
            after = stop + 1
        else:
            stop = data.index(0, start)
            name = bytes(data[start:stop])
            after = at + ((stop - at + 8) & ~7)
        if min(len(name), _LONGEST) != flags & _LONGEST:
            raise ValueError("no entry")
        yield at, name
        at = after
    while at != end:  # behind it there is nothing to unpack
        signature, size = _EXTENSION.unpack_from(data, at)
        at += _EXTENSION.size + size
        # Those in lower case change what entries are: "link" of a split index, "sdir" of a sparse one.
        if not b"A" <= signature[:1] <= b"Z":
            raise ValueError("no extension that leaves the entries as they are")


def _read_number(data: bytearray, at: int) -> tuple[int, int]:
    """A number, encoded as offsets in packs are, and where it ends."""
    number = data[at] & 0x7F
    while data[at] & 0x80:
        at += 1
        number = ((number + 1) << 7) + (data[at] & 0x7F)
    return number, at + 1


class _Directories:
    """What in the work tree `top` (with a slash at its end) is a directory, with no link on the way to it."""

    def __init__(self, top: bytes) -> None:
        self._top = top
        self._known = {b"": True}

    def has(self, path: bytes) -> bool:
        """Whether `path` is one. Raises ValueError for what is no path."""
        known = self._known.get(path)
        if known is None:
            known = len(path) < _PATH_MAX
            parts = path.split(b"/") if known else []
            for depth, name in enumerate(
                parts, 1
            ):  # not by recursion, which does not go as deep as a tree may
                one = b"/".join(parts[:depth])
                if one not in self._known:
                    self._known[one] = known and name not in _NO_NAME and self._is_one(one)
                known = known and self._known[one]
        return known

    def _is_one(self, path: bytes) -> bool:
        try:
            return stat.S_ISDIR(os.lstat(self._top + path).st_mode)
        except OSError:
            return False


def _put_in_place(index: Path, data: bytearray, before: os.stat_result) -> None:
    """Let `data` be `index`, whose stat was `before`. Raises OSError."""
    new = index.with_name(_NEW_INDEX)
    with suppress(FileNotFoundError):
        new.unlink()  # of a start that was killed
    try:
        with os.fdopen(
            os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb"
        ) as file:
            file.write(data)
            os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
        # git reads files that are as young as the index. In whole seconds, so that a git that looks at nanoseconds
        # takes none of them for older, as the entries have those of the copy now.
        then = before.st_mtime_ns // _NS * _NS
        os.utime(new, ns=(then, then))
        new.replace(index)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise
