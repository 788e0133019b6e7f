"""The image of one session: a sparse file with an ext4 file system, in which its writable volumes lie side by side.

The kernel bounds what is in it, bytes and inodes. The agent never gets the image or its device, only directories of the
mounted file system: what it can do to that is what the kernel's own ext4 code does for anybody.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import msgspec

from coding_agents.errors import DiskImageError, ProgramNotFoundError
from coding_agents.model.limits import GIB, KIB, MIB, size_text
from coding_agents.proc import runner
from coding_agents.proc.runner import Command, Outcome
from coding_agents.proc.sync import sync_dir

PARTS = ("workspace", "home")
"""The directories of the file system, one for each volume."""

BYTES_PER_INODE = 8 * KIB
_INODE = 256  # bytes; mke2fs.conf(5)
_BLOCK = 4 * KIB
_JOURNALS = ((GIB, 16 * MIB), (16 * GIB, 64 * MIB))  # by the size below which they are enough
_MOST_JOURNAL, _LEAST_JOURNAL = 128 * MIB, 4 * MIB
_OWN_BYTES = MIB  # of superblocks, bitmaps and group descriptors, at least

_SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_ENV = {"PATH": _SYSTEM_PATH, "LC_ALL": "C.UTF-8"}
_TIMEOUT_S = 120.0


class Image(msgspec.Struct, frozen=True):
    """Where the image of the session with this `directory` is, and where it is mounted for moments."""

    directory: Path

    @property
    def path(self) -> Path:
        return self.directory / "disk.img"

    @property
    def mount_point(self) -> Path:
        return self.directory / "disk"

    @property
    def lock(self) -> Path:
        return self.directory / "disk.lock"

    def place(self, part: str) -> str:
        """The directory of one of PARTS; it exists only while the image is mounted here."""
        return os.fspath(self.mount_point / part)

    def exists(self) -> bool:
        return self.path.is_file()


def make_image(image: Image, size_bytes: int) -> None:
    """Make the file and the file system in it. Raises DiskImageError, also when there is one already."""
    try:
        fd = os.open(image.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, size_bytes)
        finally:
            os.close(fd)
        with suppress(FileExistsError):
            image.mount_point.mkdir(mode=0o700)
        sync_dir(image.directory)  # mkfs syncs the file
    except OSError as error:
        raise DiskImageError(
            f"cannot make a disk image of {size_text(size_bytes)} at {image.path}",
            details=error.strerror or str(error),
            hint="Choose a smaller --disk, or let XDG_STATE_HOME be on a file system that takes such files.",
        ) from error
    require_done(
        f"cannot make a file system in {image.path}",
        run("mkfs.ext4", *mkfs_words(size_bytes), str(image.path)),
    )


def mkfs_words(size_bytes: int) -> tuple[str, ...]:
    """What mkfs.ext4(8) is told.

    No blocks are reserved for root; after an error the kernel writes no more; tables are left as holes: the file reads
    as zeros. Inodes are as many as BYTES_PER_INODE gives, and never more.
    """
    return (
        "-q",
        "-F",
        f"-b{_BLOCK}",
        f"-i{BYTES_PER_INODE}",
        f"-I{_INODE}",
        "-m0",
        "-eremount-ro",
        f"-Jsize={journal_bytes(size_bytes) // MIB}",
        "-Eroot_owner=0:0,nodiscard,lazy_itable_init=1,lazy_journal_init=1",
    )


def journal_bytes(size_bytes: int) -> int:
    """How much of a file system of this size its journal takes."""
    wanted = next((journal for below, journal in _JOURNALS if size_bytes < below), _MOST_JOURNAL)
    return max(_LEAST_JOURNAL, min(wanted, size_bytes // 32 // MIB * MIB))


def usable_bytes(size_bytes: int) -> int:
    """About what is left for files in a file system of this size, never more than that."""
    tables = size_bytes // BYTES_PER_INODE * _INODE
    return max(0, size_bytes - tables - journal_bytes(size_bytes) - _OWN_BYTES - size_bytes // 100)


def usable_inodes(size_bytes: int) -> int:
    """How many files a file system of this size takes; the first eleven inodes are its own."""
    return size_bytes // BYTES_PER_INODE - 11


def program(name: str) -> str:
    """The system's own program. Raises ProgramNotFoundError."""
    found = shutil.which(name, path=_SYSTEM_PATH)
    if found is None:
        package = "e2fsprogs" if name == "mkfs.ext4" else "util-linux"
        raise ProgramNotFoundError(f"{name} is not installed", hint=f"Install the package {package}.")
    return found


def run(name: str, *words: str) -> Outcome:
    """Run one of the system's programs, nothing of a user's PATH or environment. Raises ProgramNotFoundError."""
    return runner.run(Command((program(name), *words), env=_ENV, timeout_s=_TIMEOUT_S))


def require_done(what: str, outcome: Outcome, *, hint: str = "") -> None:
    """Raise DiskImageError saying `what` when the program did not end well."""
    if not outcome.ok:
        raise DiskImageError(what, details=outcome.describe(), hint=hint)
