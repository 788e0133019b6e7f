"""What a person has trusted: per repository and server, the exact definition and a copy of the files that run.

`mcp/REPO-ID/NAME.json` in the user's data directory is the record, `NAME.tar` beside it the copy. Nothing of either is
ever in the repository or in a container's reach.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from coding_agents.errors import McpError, StoreError
from coding_agents.mcp.locked import Lock, changed_packages
from coding_agents.mcp.pin import MAX_BYTES, MAX_FILES, Pinned, PinnedFile
from coding_agents.model.mcp import McpServer
from coding_agents.store.files import make_dir, private_dir, read_record, write_atomic

VERSION = 1
_MAX_ARCHIVE = MAX_BYTES + MAX_FILES * 2048 + (1 << 20)

State = Literal["trusted", "untrusted", "changed"]


class TrustRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One trusted server: `file` is where it was named, `time_ms` when (since the epoch), `digest` covers the rest.

    `packages` are those that it runs from an index, None for a server that runs none.
    """

    v: int = VERSION
    repo_id: str
    repo: str
    file: str
    server: McpServer
    files: tuple[PinnedFile, ...]
    packages: Lock | None = None
    digest: str
    archive_sha256: str
    time_ms: int


def definition_digest(server: McpServer, files: tuple[PinnedFile, ...], packages: Lock | None = None) -> str:
    """SHA-256 of what would run: the definition, the content of its files, its packages, in one canonical form."""
    plain = {**msgspec.to_builtins(server), "enabled": True}
    locked = [packages.content.decode()] if packages is not None else []
    form = msgspec.json.encode([VERSION, plain, msgspec.to_builtins(files), *locked], order="sorted")
    return hashlib.sha256(form).hexdigest()


def state_of(
    record: TrustRecord | None, file: str, server: McpServer, files: tuple[PinnedFile, ...], *, packaged: bool
) -> State:
    """Whether exactly this is trusted. `packaged` tells whether it runs packages of an index, which are then pinned."""
    if record is None or record.file != file:
        return "untrusted"
    same = record.digest == definition_digest(server, files, record.packages)
    return "trusted" if same and (record.packages is not None) == packaged else "changed"


def changes(
    record: TrustRecord, server: McpServer, files: tuple[PinnedFile, ...], packages: Lock | None = None
) -> list[str]:
    """What differs from what was trusted, a line each; of its packages when they are given."""
    before, now = msgspec.to_builtins(record.server), msgspec.to_builtins(server)
    lines = [
        f"{key}: {before[key]!r} is now {now[key]!r}"
        for key in now
        if key != "enabled" and before[key] != now[key]
    ]
    old, new = ({file.path: file for file in some} for some in (record.files, files))
    lines += [f"{path} is gone" for path in sorted(old.keys() - new.keys())]
    lines += [f"{path} is new" for path in sorted(new.keys() - old.keys())]
    lines += [f"{path} has changed" for path in sorted(old.keys() & new.keys()) if old[path] != new[path]]
    if packages is not None and record.packages is not None:
        lines += changed_packages(record.packages, packages)
    return lines


class TrustStore(msgspec.Struct, frozen=True):
    """The records of one repository, below the user's data directory."""

    data_dir: Path
    repo_id: str

    def load(self, name: str) -> TrustRecord | None:
        """The record of the server `name`; None without one, and for one that is not whole."""
        try:
            record = msgspec.json.decode(read_record(self._path(name, "json")), type=TrustRecord)
        except (FileNotFoundError, msgspec.MsgspecError, ValueError):
            return None
        # A file system that folds case gives one server's record for another's name.
        whole = record.v == VERSION and record.server.name == name and record.repo_id == self.repo_id
        digest = definition_digest(record.server, record.files, record.packages)
        return record if whole and record.digest == digest else None

    def content(self, record: TrustRecord) -> Mapping[str, bytes]:
        """The copies of a trusted server's files. Raises McpError when they are not what was trusted."""
        name = record.server.name
        try:
            data = read_record(self._path(name, "tar"), limit=_MAX_ARCHIVE) if record.files else b""
        except FileNotFoundError:
            data = b""
        if record.files and hashlib.sha256(data).hexdigest() != record.archive_sha256:
            raise McpError(
                f"the copy of server {name!r} is not what was trusted",
                hint=f"Look at it and trust it again: `coding-agents mcp trust {name}`.",
            )
        return _unpacked(data)

    def save(
        self,
        repo: str,
        file: str,
        server: McpServer,
        pinned: Pinned,
        packages: Lock | None = None,
        *,
        now_ms: int,
    ) -> TrustRecord:
        """Trust `server` as it is. Raises StoreError."""
        archive = _packed(pinned.content)
        record = TrustRecord(
            repo_id=self.repo_id,
            repo=repo,
            file=file,
            server=server,
            files=pinned.files,
            packages=packages,
            digest=definition_digest(server, pinned.files, packages),
            archive_sha256=hashlib.sha256(archive).hexdigest(),
            time_ms=now_ms,
        )
        private_dir(make_dir(self.data_dir / "mcp") / self.repo_id)
        write_atomic(self._path(server.name, "tar"), archive)  # first: a record without it is not whole
        write_atomic(
            self._path(server.name, "json"), msgspec.json.format(msgspec.json.encode(record), indent=2)
        )
        return record

    def remove(self, name: str) -> bool:
        """Trust `name` no more; whether it was trusted. Raises StoreError."""
        there = False
        for suffix in ("json", "tar"):
            try:
                self._path(name, suffix).unlink()
                there = True
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StoreError(f"cannot remove the trust in {name!r}: {error.strerror}") from error
        return there

    def _path(self, name: str, suffix: str) -> Path:
        return self.data_dir / "mcp" / self.repo_id / f"{name}.{suffix}"


def _packed(content: Mapping[str, bytes]) -> bytes:
    import tarfile  # most launches have no trusted server

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, data in content.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _unpacked(data: bytes) -> dict[str, bytes]:
    if not data:
        return {}
    import tarfile

    content = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for entry in archive:
            file = archive.extractfile(entry)
            content[entry.name] = file.read() if file is not None else b""
    return content
