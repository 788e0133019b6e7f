"""Automatic saves while the agent works: its commits, files and inner repositories, touching neither index nor HEAD.

Each runs in a child process, so that the entry point stays at its post: signals, reports and the agent's end do
not wait for git. One runs at a time; what it found is remembered, so that nothing is pushed twice.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.changes import with_cache
from coding_agents_guest.deny import DenyList
from coding_agents_guest.events import Autosave, Autosaved, GuestConfig, encode_event, parse_event
from coding_agents_guest.gitwork import Git, GitFailedError, identity_environment
from coding_agents_guest.nested import save_nested
from coding_agents_guest.nestedref import AUTOSAVE_MESSAGE, LATEST
from coding_agents_guest.place import Place
from coding_agents_guest.pushing import Pushed, Pusher
from coding_agents_guest.records import asdict, dataclass, replace
from coding_agents_guest.snapshot import Snapshot, commit_snapshot, take_snapshot
from coding_agents_guest.unblock import unblocked
from coding_agents_guest.wire import WireError

_BUDGET_S = 60.0
_NICENESS = 10  # the agent's own work goes first
_INDEX = "coding-agents-autosave.index"
_MAX_ANSWER = 1 << 20
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Memory:
    """What the last automatic save pushed, also of the `nested` repositories by their places, and the stamp of the
    agent's index then."""

    pushed: Pushed = Pushed()
    index: str = ""
    nested: Mapping[str, Pushed] = {}

    def encode(self) -> bytes:
        nested = {where: asdict(pushed) for where, pushed in self.nested.items()}
        return json.dumps([asdict(self.pushed), self.index, nested]).encode("ascii")

    @classmethod
    def decode(cls, line: bytes) -> Memory:
        """Raises ValueError and TypeError."""
        pushed, index, nested = json.loads(line)
        return cls(Pushed(**pushed), index, {where: Pushed(**one) for where, one in nested.items()})


def autosave(
    config: GuestConfig, place: Place, order: Autosave, memory: Memory, deadline: float
) -> tuple[Autosaved, Memory]:
    """Save now what changed since `memory`. `deadline` is of time.monotonic. Never raises."""
    if not config.push:
        return Autosaved("", False, "push is off: the work stays in the session's volume"), memory
    git = Git(place.workspace, {**place.environment(), **identity_environment(config.identity)}, deadline)
    try:
        with unblocked(place.workspace):
            return _Autosave(config, place, git, order).run(memory)
    except Exception as error:  # noqa: BLE001 - whatever state it is in, the answer must come
        return Autosaved("", False, f"not saved: {error}"), memory


@dataclass(frozen=True)
class _Autosave:
    config: GuestConfig
    place: Place
    git: Git
    order: Autosave

    def run(self, memory: Memory) -> tuple[Autosaved, Memory]:
        """Raises GitFailedError and OSError."""
        git, before = self.git, memory.pushed
        git_dir = Path(git.text("rev-parse", "--absolute-git-dir"))
        head = git.answer("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        snapshot, stamp = self._snapshot(git_dir, head, memory)
        inner = git.within(GIT_INDEX_FILE=str(git_dir / _INDEX))

        def make(upon: str) -> str:
            commit = commit_snapshot(inner, snapshot, self.config, parent=upon, message=AUTOSAVE_MESSAGE)
            if commit or upon or not before.commit:
                return commit or upon
            return inner.text("commit-tree", snapshot.tree, "-m", AUTOSAVE_MESSAGE)  # all files are gone

        pusher = Pusher(inner, git_dir, self.place.relay, LATEST, self.config.base, make)
        pushed = pusher.push(snapshot.tree, head, before)
        missing = [*snapshot.trouble, *pushed.missing]
        if pushed.upon == head:
            self._push_branch(head)
        nested = save_nested(git, snapshot.nested, self.config, self.place.relay, memory.nested)
        missing += nested.failures
        report = Autosaved(pushed.commit, not missing, "; ".join((*missing, *snapshot.notes)))
        return report, Memory(pushed, stamp, nested.pushed)

    def _push_branch(self, head: str) -> None:
        """Push the agent's own commits, when that was asked for and HEAD is on the session's branch."""
        branch = f"refs/heads/{self.config.branch}"
        if self.order.branch and head and self.git.answer("symbolic-ref", "--quiet", "HEAD") == branch:
            self.git.run("push", "--quiet", "--no-verify", self.place.relay, f"+{head}:{branch}")

    def _snapshot(self, git_dir: Path, head: str, memory: Memory) -> tuple[Snapshot, str]:
        """The work tree as a tree, with an index of our own that lives on: only what changed is read again.

        It begins anew from the agent's index whenever that one changed, which says what is tracked, and when
        rules for what is ignored may have changed.
        """
        theirs, ours = git_dir / "index", git_dir / _INDEX
        with suppress(FileNotFoundError):
            ours.with_name(ours.name + ".lock").unlink()  # of a save that was killed
        stamp = _stamp(theirs)
        inner = with_cache(self.git.within(GIT_INDEX_FILE=str(ours)))
        deny = DenyList(self.config.deny)
        if stamp == memory.index and ours.exists():
            with suppress(GitFailedError):  # an index that is broken must not be in the way for ever
                snapshot = take_snapshot(inner, head=head, deny=deny, again=self.git, ask=True)
                if not any(path.rpartition("/")[2] == ".gitignore" for path in snapshot.changed):
                    return snapshot, stamp
        with suppress(FileNotFoundError):
            ours.unlink()
        with suppress(FileNotFoundError):
            shutil.copy2(theirs, ours)
        return take_snapshot(inner, head=head, deny=deny, ask=True), stamp


class Autosaver:
    """Automatic saves of one start of a container. `files` are to be watched; when one is readable, `collect`."""

    def __init__(self, config: GuestConfig, place: Place) -> None:
        self._config = config
        self._place = place
        self._memory = Memory()
        self._waiting: list[Autosave] = []
        self._answers = -1
        self._answer = b""
        self._child = 0

    @property
    def files(self) -> tuple[int, ...]:
        return (self._answers,) if self._child else ()

    def take(self, order: Autosave) -> None:
        """Begin a save, or have it begin after the one under way."""
        self._waiting.append(order)
        self._begin()

    def collect(self) -> Autosaved | None:
        """Take what the save under way says; its report once that is whole. Waits for nothing but a byte or the end.

        The agent can stop the child in the middle of a word: that must hold up its own saves alone.
        """
        data = os.read(self._answers, _CHUNK)
        self._answer += data
        if data and len(self._answer) < _MAX_ANSWER:
            return None
        answer = self._answer
        self.stop()
        report, self._memory = _decode(answer, self._memory)
        self._begin()
        return report

    def stop(self) -> None:
        """End a save under way; the agent's last save begins from nothing that it leaves."""
        if self._child:
            for kill in (os.kill, os.killpg):  # it may not have a group of its own yet
                with suppress(ProcessLookupError, PermissionError):
                    kill(self._child, signal.SIGKILL)
            with suppress(ChildProcessError):  # reaped with the orphans
                os.waitpid(self._child, 0)
            os.close(self._answers)
        self._child, self._answers, self._answer = 0, -1, b""

    def _begin(self) -> None:
        if self._child or not self._waiting:
            return
        order = self._waiting.pop(0)
        reading, writing = os.pipe()
        child = os.fork()
        if child:
            os.close(writing)
            self._child, self._answers = child, reading
            return
        _in_child(lambda: self._work(order, writing))

    def _work(self, order: Autosave, answers: int) -> None:
        os.nice(_NICENESS)
        deadline = time.monotonic() + _BUDGET_S
        report, memory = autosave(self._config, self._place, order, self._memory, deadline)
        lines = encode_event(report) + memory.encode()
        while lines:
            lines = lines[os.write(answers, lines) :]


def _in_child(work: Callable[[], None]) -> None:
    """Run `work` as a process of its own; never returns."""
    status = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        work()
        status = 0
    except BaseException as error:  # noqa: BLE001 - nothing of the entry point's may run in here
        print(f"coding-agents: automatic save: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def _decode(answer: bytes, before: Memory) -> tuple[Autosaved, Memory]:
    """What the child has said; a child that was killed has said nothing, and its index may be half written."""
    line, _, rest = answer.partition(b"\n")
    try:
        report = parse_event(line)
        if isinstance(report, Autosaved):
            return report, Memory.decode(rest)
    except (WireError, ValueError, TypeError):
        pass
    pushed = replace(before.pushed, tree="", head="")
    return Autosaved("", False, "not saved: the automatic save ended early"), Memory(pushed)


def _stamp(index: Path) -> str:
    try:
        found = index.stat()
    except FileNotFoundError:
        return ""
    return f"{found.st_ino} {found.st_mtime_ns} {found.st_size}"
