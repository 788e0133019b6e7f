"""Getting the work out of a volume whose session ended without a save: the one-shot container's program.

The volume is hostile and mounted read-only. It is read with a git directory of our own, so its
configuration, hooks and filters do not count; its commits and files are taken as data, and the relay checks
what we push like any push of an agent. What the volume holds beyond the relay ends in three kinds of refs
there: `head` (its HEAD), `worktree` (its files, on top of it), `heads/…` (branches that HEAD lacks).

Standard input and output are the channel: this process is bridge and client in one.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from coding_agents_guest import __version__
from coding_agents_guest.deny import DenyList
from coding_agents_guest.events import (
    MAX_LINE,
    Failed,
    Go,
    GuestConfig,
    Ready,
    Salvaged,
    encode_event,
    parse_event,
)
from coding_agents_guest.gitwork import Git, GitFailedError, identity_environment
from coding_agents_guest.mux import Mux, Stream
from coding_agents_guest.place import Place
from coding_agents_guest.probe import read_facts
from coding_agents_guest.records import dataclass
from coding_agents_guest.snapshot import commit_snapshot, take_snapshot
from coding_agents_guest.sockets import Gateway, UnsafeDirectoryError, bind_unix, check_directory
from coding_agents_guest.stdio import open_stdio
from coding_agents_guest.wire import PROTOCOL, Hello, WireError

REFS = "refs/coding-agents/salvage"
DEFAULT_MESSAGE = "Uncommitted work, salvaged (coding-agents)"

_BUDGET_S = 300.0
_RELAY_CONNECTIONS = 8
_MAX_BRANCHES = 100
_MAX_INDEX_BYTES = 512 << 20
_MAX_RULES_BYTES = 1 << 20
# What decides how files become blobs and which are ignored. Everything else in the volume's configuration,
# above all what names a program, has no say; LFS files are taken whole: their filter is a program too.
_TAKEN_SETTINGS = re.compile(
    r"core\.(?:autocrlf|checkstat|eol|filemode|ignorecase|precomposeunicode|symlinks|trustctime)"
    r"\n[A-Za-z]{1,12}"
)
_NO_FILTERS = ("filter.lfs.clean=", "filter.lfs.smudge=", "filter.lfs.process=", "filter.lfs.required=false")


def main(arguments: Sequence[str]) -> int:
    """Run a salvage over standard input and output; takes no arguments. Returns 0 when a report was sent."""
    if arguments:
        print("salvage: takes no arguments", file=sys.stderr)
        return 2
    try:
        asyncio.run(serve(Place()))
    except (UnsafeDirectoryError, WireError, OSError) as error:
        print(f"salvage: {error}", file=sys.stderr)
        return 1
    return 0


async def serve(place: Place) -> None:
    """Speak with the host: ready, wait for go, salvage, report. Raises OSError or WireError without one."""
    check_directory(place.sockets, owner_uid=os.geteuid())
    listener = bind_unix(place.sockets / "relay.sock")
    reader, writer = await open_stdio()
    mux = Mux(reader, writer, on_open=_refuse, hello=Hello(PROTOCOL, __version__, read_facts()))
    gateway = Gateway(mux)
    carrying = asyncio.ensure_future(mux.run())
    try:
        await gateway.serve(listener, "relay", limit=_RELAY_CONNECTIONS)
        events = mux.open("events", os.geteuid())
        await events.write(encode_event(Ready()))
        config = await _wait_for_go(events)
        deadline = time.monotonic() + _BUDGET_S
        report = await asyncio.get_running_loop().run_in_executor(None, salvage, config, place, deadline)
        await events.write(encode_event(report))
        events.write_eof()
        await mux.flush()
    finally:
        await gateway.close()
        mux.close()
        await carrying


async def _refuse(stream: Stream) -> None:
    stream.reset("no such service")


async def _wait_for_go(events: Stream) -> GuestConfig:
    buffer = b""
    while b"\n" not in buffer:
        data = await events.read()
        buffer += data
        if not data or len(buffer) > MAX_LINE:
            raise WireError("no go")
    event = parse_event(buffer.split(b"\n")[0])
    if not isinstance(event, Go):
        raise WireError("something else than go")
    return event.config


def salvage(config: GuestConfig, place: Place, deadline: float) -> Salvaged | Failed:
    """Push what the volume at `place.workspace` holds. `deadline` is of time.monotonic.

    Never raises. Salvaged means that HEAD and all files but those left out are in the relay: `head` is the
    volume's HEAD, "" when it is unborn or broken; what else is to be known is in the notes. Everything
    less is Failed, so that nobody takes the volume for saved.
    """
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="salvage-") as scratch:
        try:
            git = _fresh_git(config, place, Path(scratch), deadline)
            return _Salvage(config, place, git, notes).run()
        except Exception as error:  # noqa: BLE001 - whatever a hostile volume causes, the answer must come
            return Failed("salvage", "; ".join((*notes, str(error))))


def _fresh_git(config: GuestConfig, place: Place, scratch: Path, deadline: float) -> Git:
    """git with a git directory of our own, made here, and the volume as its work tree."""
    variables = {
        **place.environment(),
        **identity_environment(config.identity),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ALLOW_PROTOCOL": "git:file",
    }
    git = Git(scratch, variables, deadline, settings=_NO_FILTERS)
    object_format = "sha256" if len(config.base) == 64 else "sha1"
    git_dir = scratch / "salvage.git"
    git.run("init", "--quiet", "--bare", f"--object-format={object_format}", str(git_dir))
    return git.within(
        GIT_DIR=str(git_dir), GIT_WORK_TREE=str(place.workspace), GIT_INDEX_FILE=str(scratch / "index")
    )


@dataclass(frozen=False)
class _Salvage:
    """One salvage under way. `git` works on a git directory of our own with the volume as its work tree."""

    config: GuestConfig
    place: Place
    git: Git
    notes: list[str]

    def run(self) -> Salvaged:
        """Raises GitFailedError and OSError."""
        source = self.place.workspace / ".git"
        self._prepare(source)
        relay_tip = self._relay_tip()
        head = self._read_head(source)
        if head and head != relay_tip:
            self._push(head, f"{REFS}/head")
        worktree, left_out = self._commit_worktree(source, head or relay_tip)
        if worktree:
            self._push(worktree, f"{REFS}/worktree")
        self._push_branches(source, head or relay_tip)
        return Salvaged(head, worktree, not worktree, left_out, tuple(self.notes))

    def _prepare(self, source: Path) -> None:
        """Let our git directory borrow the volume's objects and take over its rules for files."""
        git_dir = Path(self.git.environment["GIT_DIR"])
        self.git.run("config", "core.bare", "false")
        if not source.is_dir():
            self.notes.append("the volume has no git directory")
            return
        if (source / "objects").is_dir():
            (git_dir / "objects/info/alternates").write_text(f"{source}/objects\n")
        for rules in ("info/exclude", "info/attributes"):
            _take_file(source / rules, git_dir / rules, _MAX_RULES_BYTES)
        listed = self.git.answer(
            "config", "--file", str(source / "config"), "--no-includes", "--null", "--list"
        )
        for setting in listed.split("\0"):
            if _TAKEN_SETTINGS.fullmatch(setting):
                self.git.run("config", *setting.split("\n"))

    def _relay_tip(self) -> str:
        """The commit that the relay has for the session's branch; its history is fetched only when needed."""
        listed = self.git.text("ls-remote", self.place.relay, f"refs/heads/{self.config.branch}")
        return listed.split("\t")[0]

    def _read_head(self, source: Path) -> str:
        """The volume's HEAD, with its whole history at hand; "" when it is unborn or broken."""
        if self._fetch(source, "+HEAD:refs/volume/head"):
            return self.git.text("rev-parse", "refs/volume/head^{commit}")
        if self.config.base:
            self.notes.append("the volume's own history cannot be read")
        self._fetch(self.place.relay, f"+refs/heads/{self.config.branch}:refs/relay/tip")
        return ""

    def _push_branches(self, source: Path, head: str) -> None:
        """Push the volume's branches that `head` does not contain. Raises GitFailedError when one stays behind."""
        if not self._fetch(source, "+refs/heads/*:refs/volume/heads/*") or not head:
            return
        listed = self.git.answer(
            "for-each-ref", f"--no-merged={head}", "--format=%(refname)", "refs/volume/heads"
        ).split("\n")
        listed = [ref for ref in listed if ref]  # names may hold other characters that end a line
        for ref in listed[:_MAX_BRANCHES]:
            name = ref[len("refs/volume/heads/") :]
            self._push(ref, f"{REFS}/heads/{name}")
            self.notes.append(f"branch {name} is not part of HEAD: it is kept in {REFS}/heads/{name}")
        if len(listed) > _MAX_BRANCHES:
            raise GitFailedError(f"{len(listed) - _MAX_BRANCHES} more branches were not salvaged")

    def _commit_worktree(self, source: Path, parent: str) -> tuple[str, tuple[str, ...]]:
        """Commit the files on top of `parent`. Returns the commit ("" if not needed) and what it lacks."""
        index = Path(self.git.environment["GIT_INDEX_FILE"])
        deny = DenyList(self.config.deny)
        try:
            _take_file(source / "index", index, _MAX_INDEX_BYTES)
            snapshot = take_snapshot(self.git, head=parent, deny=deny)
        except GitFailedError:
            self.notes.append("the volume's index cannot be used")
            for leftover in (index, index.with_name("index.lock")):
                with suppress(FileNotFoundError):
                    leftover.unlink()
            if parent:
                self.git.run("read-tree", parent)
            snapshot = take_snapshot(self.git, head=parent, deny=deny)
        message = self.config.message.strip() or DEFAULT_MESSAGE
        commit = commit_snapshot(self.git, snapshot, self.config, parent=parent, message=message)
        return commit, snapshot.left_out

    def _fetch(self, source: object, refspec: str) -> bool:
        options = (
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--update-shallow",
            "--no-auto-maintenance",
        )
        return self.git.agrees("fetch", *options, str(source), refspec)

    def _push(self, what: str, ref: str) -> None:
        self.git.run("push", "--quiet", "--no-verify", self.place.relay, f"+{what}:{ref}")


def _take_file(source: Path, target: Path, limit: int) -> None:
    """Copy a regular file of at most `limit` bytes, if there is one."""
    with suppress(OSError):
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if file.seek(0, os.SEEK_END) <= limit:
                file.seek(0)
                target.parent.mkdir(exist_ok=True)
                with target.open("wb") as copy:
                    shutil.copyfileobj(file, copy)
                # An index younger than it was would hide what changed in the second of its last writing.
                times = os.fstat(file.fileno())
                os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
