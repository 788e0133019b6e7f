"""Files into and out of a running session, with tar inside as the agent's user: what comes out is hostile."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from coding_agents.app.sessions import require_open_gate
from coding_agents.errors import CopyError, UsageError
from coding_agents.model.audit import RecordType
from coding_agents.proc import runner
from coding_agents.sandbox.spec import AGENT_USER, HOME, WORKSPACE
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.protocol import Op
from coding_agents.workspace.pack import list_source, pack
from coding_agents.workspace.tar import TarWriter
from coding_agents.workspace.unpack import unpack
from coding_agents.workspace.untar import TarReader, UntarLimits

_INTO = (WORKSPACE, HOME, "/tmp")  # noqa: S108 - the container's own
_MAX_REST = 1 << 20  # what may follow the end of an archive: tar fills its last record


class Copied(msgspec.Struct, frozen=True):
    """How a copy went; names are hostile."""

    target: str
    files: int
    size_bytes: int
    left_out: tuple[str, ...] = ()
    left_out_count: int = 0


def guest_path(text: str) -> str:
    """An absolute path in the container, without `..`; relative ones are below the work tree. Raises UsageError."""
    path = posixpath.normpath(posixpath.join(WORKSPACE, text))
    if not text or "\0" in text or path.strip("/") == "":
        raise UsageError(
            f"not a file or directory in a session: {text!r}", hint="Write it like NAME:src/app.py."
        )
    return path if not path.startswith("//") else path[1:]


def copy_in(session: SessionContext, source: Path, text: str, *, max_bytes: int) -> Copied:
    """Copy `source` to where the agent's user may write. Raises CopyError, UsageError, SessionStateError."""
    path = guest_path(text)
    if not any(path == place or path.startswith(f"{place}/") for place in _INTO):
        raise UsageError(
            f"cannot copy to {path} in a session", hint=f"Copy to a place below {', '.join(_INTO)}."
        )
    packing = list_source(source, max_bytes=max_bytes)
    if not packing.paths:
        raise CopyError(f"{source} is no file or directory", hint="Copy files, directories and links.")
    require_open_gate(session)
    container, engine = session.record.container_id, session.engine
    is_directory = engine.exec(container, ("test", "-d", path), user=AGENT_USER).ok
    if text.endswith("/") and not is_directory:
        raise CopyError(
            f"there is no directory {path} in the session", hint="Make it first, or leave the / out."
        )
    above, name = (path, source.resolve().name) if is_directory else posixpath.split(path)
    _record(session, f"in {posixpath.join(above, name)}")

    def write(out: BinaryIO) -> None:
        writer = TarWriter(out)
        pack(packing, writer, name)
        writer.close()

    untar = ("tar", "--extract", "--file=-", "--no-same-owner", f"--directory={above}")
    engine.feed(container, untar, write, user=AGENT_USER)
    left_out = tuple(packing.left_out)
    return Copied(
        posixpath.join(above, name), packing.files, packing.size_bytes, left_out[:20], len(left_out)
    )


def copy_out(session: SessionContext, text: str, destination: Path, *, max_bytes: int) -> Copied:
    """Copy a path of the session to the host: into `destination` when that is a directory, else to its very name.

    Raises CopyError, UsageError, SessionStateError.
    """
    path = guest_path(text)
    above, name = posixpath.split(path)
    target = _target(destination, name)
    require_open_gate(session)
    _record(session, f"out {path}")
    tar = (
        "tar",
        "--create",
        "--format=gnu",
        "--hard-dereference",
        "--file=-",
        f"--directory={above}",
        "--",
        name,
    )
    command = session.engine.exec_command(session.record.container_id, tar, user=AGENT_USER)
    with runner.streaming(command) as stream:
        reader = TarReader(cast(BinaryIO, stream.stdout), UntarLimits(max_bytes))
        try:
            done = unpack(reader, target, complete=lambda: _require_good_end(stream, path))
        except EOFError as error:
            _require_good_end(stream, path)
            raise CopyError(
                f"the copy of {path} ended early", hint="See whether the session runs: coding-agents list."
            ) from error
        except OSError as error:
            raise CopyError(
                f"cannot write {target}: {(error.strerror or str(error)).lower()}",
                hint="Check the free space and the modes of that place.",
            ) from error
    return Copied(str(target), done.files, done.size_bytes, tuple(done.left_out), done.left_out_count)


def _target(destination: Path, name: str) -> Path:
    target = destination / name if destination.is_dir() else destination
    if not target.parent.is_dir():
        raise CopyError(f"{target.parent} is no directory", hint="Make it first.")
    if target.is_symlink() or (target.exists() and not target.is_file()):
        raise CopyError(f"{target} is there already", hint="Choose another DST, or move it away.")
    return target


def _require_good_end(stream: runner.Streaming, path: str) -> None:
    """The archive has ended; so must what wrote it, and well. tar leaves with 1 when a file changed meanwhile."""
    if len(stream.stdout.read(_MAX_REST + 1)) > _MAX_REST:
        raise CopyError("the session sent more than was asked for: refused", hint="Nothing was copied.")
    outcome = stream.finish()
    if outcome.status not in (0, 1):
        raise CopyError(
            f"cannot copy {path} out of the session",
            details=outcome.stderr[-2000:].decode("utf-8", "replace").strip(),
            hint="See what is there: coding-agents exec NAME -- ls -l.",
        )


def _record(session: SessionContext, subject: str) -> None:
    session.supervisor().ask(Op.RECORD, type=RecordType.COPIED.value, subject=subject)
