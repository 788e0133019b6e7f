"""Give back the space of what no ref of a relay names any more: write the rest anew, then remove the packs there were.

Nothing is removed before what replaces it is proved whole and on the disk. A repack that is killed at any instruction
leaves a relay that has everything; the next one takes away what it left.

1. In DRAFT, beside the relay's objects, a pack of all that its refs name and the base store does not have. Pushes go
   on meanwhile. git copies what is packed already and searches for no better deltas: this is copying, not computing.
2. Alone with the relay: a second pack of what pushes have brought since; then both become the relay's, and the packs
   that were there at the beginning go. A git that reads in them all the same (`pull`, `review`) looks for an object
   again among the packs that are there now.

What a log of a ref still names stays, too. Only the logs of automatic saves and of repositories inside go, for they
name what is let go; what the agent committed below has refs (`gitsync.old_tips`).
"""

from __future__ import annotations

import asyncio
import re
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

from msgspec.structs import replace

from coding_agents.errors import GitError
from coding_agents.gitsync.relay_repo import Relay
from coding_agents.gitsync.relay_usage import DRAFT, RelayUsage
from coding_agents.gitsync.thinning import AUTOSAVE
from coding_agents.model.refs import Oid
from coding_agents.proc.git import Profile, git_command, require_ok
from coding_agents.proc.limits import ProcessLimits
from coding_agents.proc.runner import Outcome, run_limited
from coding_agents_guest.nestedref import NESTED

ORPHAN_S = 60.0
"""So old is a pack without an index when it is what a killed git or a killed repack left: git names it last."""

_OF_SAVES = (f"{AUTOSAVE}/", NESTED)
_PACK = ("--revs", "--local", "--non-empty", "--window=0", "--threads=1", "--delta-base-offset", "-q")
_LOGGED = re.compile(r"([0-9a-f]{40,64}) ([0-9a-f]{40,64}) ")


class Repack:
    """One repack of one relay. `limits` are of each git that it runs."""

    def __init__(self, relay: Relay, usage: RelayUsage, *, limits: ProcessLimits, timeout_s: float) -> None:
        self._store = relay.store
        self._base = {relay.base} if relay.base is not None else set[Oid]()
        self._usage = usage
        self._limits = limits
        self._timeout_s = timeout_s
        self._draft = relay.git_dir / DRAFT
        self._packs = relay.git_dir / "objects" / "pack"

    async def run(self, alone: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        """Repack; in the block that `alone` gives, nobody else may push or fetch, nor move a ref to other objects.

        Raises GitError, OSError and what `alone` raises; then the relay is as it was.
        """
        began = time.time()
        try:
            before = await asyncio.to_thread(self._prepare)
            first = await asyncio.to_thread(self._tips)
            await self._write(first, known=self._base)
            async with alone():
                # A push of an earlier supervisor's that still goes on would not be waited for: it ends here.
                await asyncio.to_thread(self._usage.sweep, until=time.time())
                new = await asyncio.to_thread(self._tips) - first
                if new:
                    await self._write(new, known=first | self._base)
                await _to_its_end(lambda: self._switch(before))
        finally:
            await _to_its_end(lambda: self._clean(since=began))

    def _prepare(self) -> set[str]:
        """Make an object directory for the draft, which borrows what the relay borrows; the packs that are to go."""
        shutil.rmtree(self._draft, ignore_errors=True)
        for name in ("pack", "info"):
            (self._draft / name).mkdir(parents=True)
        shutil.copyfile(self._packs.with_name("info") / "alternates", self._draft / "info" / "alternates")
        names = {path.stem for path in self._packs.glob("pack-*.idx")}
        size = sum(file.lstat().st_size for file in self._packs.iterdir())
        free = shutil.disk_usage(self._draft).free
        if free < size:
            raise GitError(f"the relay is not thinned out: its disk has {free >> 20} MiB left")
        return names

    def _tips(self) -> set[Oid]:
        logged = (
            oid for ref, oids in _logs(self._store.git_dir) if not ref.startswith(_OF_SAVES) for oid in oids
        )
        return {*self._store.refs().values(), *self._store.present(logged)}

    async def _write(self, tips: set[Oid], *, known: set[Oid]) -> None:
        """Add a pack to the draft with all below `tips` and not below `known`. Raises GitError when it is not whole."""
        revisions = "".join(f"{oid}\n" for oid in sorted(tips)) + "".join(
            f"^{oid}\n" for oid in sorted(known)
        )
        written = set(self._draft.glob("pack/*.idx"))
        await self._git("pack-objects", *_PACK, str(self._draft / "pack" / "pack"), stdin=revisions.encode())
        view = {"GIT_OBJECT_DIRECTORY": str(self._draft)}
        await self._git(
            "rev-list", "--objects", "--quiet", "--stdin", stdin=revisions.encode(), env_extra=view
        )
        for index in set(self._draft.glob("pack/*.idx")) - written:
            ids = b"".join(oid.hex().encode() + b"\n" for oid in _ids(index))
            sizes = await self._git("cat-file", "--batch-check=%(objectsize)", "--buffer", stdin=ids)
            on_disk = sum(file.lstat().st_size for file in index.parent.glob(f"{index.stem}.*"))
            self._usage.note(index.stem, on_disk, sum(map(int, sizes.stdout.split())))

    async def _git(self, *args: str, stdin: bytes, env_extra: dict[str, str] | None = None) -> Outcome:
        command = git_command(
            args, profile=Profile.OWN, env=self._store.env, git_dir=self._store.git_dir,
            stdin=stdin, env_extra=env_extra or {}, timeout_s=self._timeout_s,
        )  # fmt: skip
        return require_ok(await run_limited(replace(command, limits=self._limits)), f"git {args[0]}")

    def _switch(self, before: set[str]) -> None:
        """Give the relay the draft's packs, durably, and take away those of `before`."""
        indexes = list(self._draft.glob("pack/*.idx"))
        for index in indexes:
            others = [file for file in index.parent.glob(f"{index.stem}.*") if file != index]
            for file in (*others, index):  # git takes a pack for one that is there when it has its index
                file.rename(self._packs / file.name)
        self._store.sync()
        for ref, _ in _logs(self._store.git_dir):
            if ref.startswith(_OF_SAVES):
                (self._store.git_dir / "logs" / ref).unlink()
        for name in before - {index.stem for index in indexes}:
            _remove(self._packs, name)
        _remove_orphans(self._packs, until=time.time() - ORPHAN_S)

    def _clean(self, *, since: float) -> None:
        """Remove the draft, and what a git that was ended has left of it among the relay's packs."""
        shutil.rmtree(self._draft, ignore_errors=True)
        for leftover in self._packs.glob("tmp_*"):  # pushes write theirs elsewhere
            with suppress(FileNotFoundError):
                if leftover.lstat().st_mtime >= since:
                    leftover.unlink()


def sweep_draft(git_dir: Path, *, until: float) -> None:
    """Remove the draft of a repack that began before `until` (epoch) and was killed."""
    with suppress(FileNotFoundError):
        if (git_dir / DRAFT).lstat().st_mtime <= until:
            shutil.rmtree(git_dir / DRAFT, ignore_errors=True)


def _remove_orphans(packs: Path, *, until: float) -> None:
    """Remove packs without an index whose state has not changed since `until` (epoch)."""
    there = {path.name for path in packs.iterdir()}
    orphans = {name.partition(".")[0] for name in there if name.startswith("pack-")}
    for name in orphans - {name.removesuffix(".idx") for name in there if name.endswith(".idx")}:
        with suppress(FileNotFoundError):
            if max(path.lstat().st_ctime for path in packs.glob(f"{name}.*")) <= until:
                _remove(packs, name)


def _remove(packs: Path, name: str) -> None:
    """Remove a pack, its index first: without it nobody begins to read the rest."""
    for path in sorted(packs.glob(f"{name}.*"), key=lambda path: path.suffix != ".idx"):
        path.unlink(missing_ok=True)


def _logs(git_dir: Path) -> Iterator[tuple[str, set[Oid]]]:
    """Each ref that has a log, with the ids in it; those of nothing are left out."""
    top = git_dir / "logs"
    for path in list(top.rglob("*")):
        if path.is_file():
            text = path.read_text("utf-8", "replace")
            ids = {
                oid for line in text.splitlines() if (match := _LOGGED.match(line)) for oid in match.groups()
            }
            yield path.relative_to(top).as_posix(), {Oid.parse(oid) for oid in ids if oid.strip("0")}


def _ids(index: Path) -> Iterator[bytes]:
    """The ids in a pack's index of version 2, which is what git writes (gitformat-pack(5))."""
    data, size = index.read_bytes(), len(index.stem.removeprefix("pack-")) // 2
    if data[:8] != b"\377tOc\0\0\0\2":
        raise GitError(f"{index.name} is not the index of a pack of version 2")
    (count,) = struct.unpack_from(">I", data, 8 + 255 * 4)
    ids = memoryview(data)[8 + 256 * 4 :][: count * size]
    return (bytes(ids[at : at + size]) for at in range(0, len(ids), size))


async def _to_its_end(work: Callable[[], None]) -> None:
    """Do `work` in a thread; who is cancelled meanwhile goes when it is done."""
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        await asyncio.shield(task)
    finally:
        if not task.done():
            await asyncio.wait([task])
