"""Writes a file or a directory of the user's as a tar, for a copy into a session. Links are copied as links."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from coding_agents.errors import CopyError
from coding_agents.model.limits import size_text
from coding_agents.workspace.tar import TarWriter


class Packing(msgspec.Struct):
    """What is to be packed: paths below `source` ("" for itself), parents first; `left_out` are pipes and devices."""

    source: Path
    paths: list[str] = msgspec.field(default_factory=list)
    left_out: list[str] = msgspec.field(default_factory=list)
    files: int = 0
    size_bytes: int = 0


def list_source(source: Path, *, max_bytes: int) -> Packing:
    """Look through `source`, itself followed when it is a link. Raises CopyError."""
    packing = Packing(source)
    try:
        _list(packing, "", source.stat())
        for directory, directories, files in os.walk(source, onerror=_raise) if source.is_dir() else ():
            directories.sort()
            for name in sorted((*directories, *files)):
                path = Path(directory) / name
                _list(packing, str(path.relative_to(source)), path.lstat())
    except OSError as error:
        raise CopyError(
            f"cannot read {error.filename}: {(error.strerror or str(error)).lower()}",
            hint="Check the path, and its modes.",
        ) from error
    if packing.size_bytes > max_bytes:
        raise CopyError(
            f"{source} has more than {size_text(max_bytes)}",
            hint="Copy a part of it, or allow more: --max-size.",
        )
    return packing


def pack(packing: Packing, writer: TarWriter, name: str) -> None:
    """Write all of `packing` with `name` in the place of its source. Raises CopyError when it changes meanwhile."""
    for path in packing.paths:
        full = packing.source / path if path else packing.source
        try:
            _write(writer, full, f"{name}/{path}" if path else name, is_top=not path)
        except (OSError, EOFError) as error:
            if isinstance(error, BrokenPipeError):
                raise  # the engine has ended and says why
            raise CopyError(f"{full} changed while it was copied", hint="Copy it again.") from error


def _list(packing: Packing, path: str, found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode):
        packing.files += 1
        packing.size_bytes += found.st_size
    elif not (stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode)):
        packing.left_out.append(path or str(packing.source))
        return
    packing.paths.append(path)


def _write(writer: TarWriter, full: Path, name: str, *, is_top: bool) -> None:
    found = full.stat() if is_top else full.lstat()
    mtime_s = int(found.st_mtime)
    if stat.S_ISDIR(found.st_mode):
        writer.directory(name, mode=found.st_mode | 0o700, mtime_s=mtime_s)
    elif stat.S_ISLNK(found.st_mode):
        writer.link(name, str(full.readlink()), mtime_s=mtime_s)
    else:
        # Not to wait for the writer of a pipe that has come into its place.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if is_top else os.O_NOFOLLOW)
        descriptor = os.open(full, flags)
        try:
            size = os.fstat(descriptor).st_size
            writer.file(name, descriptor, size=size, mode=found.st_mode, mtime_s=mtime_s)
        finally:
            os.close(descriptor)


def _raise(error: OSError) -> None:
    raise error
