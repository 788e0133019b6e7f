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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.changes import with_cache
from coding_agents_guest.deny import DenyList
from coding_agents_guest.events import Autosave, Autosaved, GuestConfig, encode_event, parse_event
from coding_agents_guest.gitwork import Git, GitFailedError, identity_environment
from coding_agents_guest.lfs import Sent, send_large_files
from coding_agents_guest.nested import save_nested
from coding_agents_guest.nestedref import AUTOSAVE_MESSAGE, LATEST
from coding_agents_guest.place import Place
from coding_agents_guest.records import asdict, dataclass, replace
from coding_agents_guest.refused import Taken, push_taken
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
    """What the last automatic save pushed: `commit`, made of `tree` while HEAD was `parent`.

    `upon` is the commit's own parent: HEAD, unless the relay refused that. `lacks` and `why` are as in
    `refused.Taken`, `missing` tells a person what else it lacks. `index` is the stamp of the agent's index then,
    `nested` the tips of the repositories inside.
    """

    commit: str = ""
    tree: str = ""
    parent: str = ""
    upon: str = ""
    lacks: Sequence[str] = ()
    why: str = ""
    missing: Sequence[str] = ()
    index: str = ""
    nested: Mapping[str, str] = {}


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
        git_dir = Path(self.git.text("rev-parse", "--absolute-git-dir"))
        head = self.git.answer("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        snapshot, stamp = self._snapshot(git_dir, head, memory)
        if not memory.commit or (snapshot.tree, head) != (memory.tree, memory.parent):
            memory = self._push_new(git_dir, snapshot, head, memory)
        elif memory.upon == head and (branch := self._branch(head)):
            self._push(*branch)
        nested = save_nested(self.git, snapshot.nested, self.config, self.place.relay, memory.nested)
        missing = [*snapshot.trouble, *nested.failures, *filter(None, (*memory.missing, memory.why))]
        report = Autosaved(memory.commit, not missing, "; ".join((*missing, *snapshot.notes)))
        return report, replace(memory, index=stamp, nested=nested.tips)

    def _branch(self, head: str) -> list[str]:
        """What pushes the agent's own commits, when that was asked for and HEAD is on the session's branch."""
        branch = f"refs/heads/{self.config.branch}"
        on_branch = self.order.branch and self.git.answer("symbolic-ref", "--quiet", "HEAD") == branch
        return [f"+{head}:{branch}"] if on_branch and head else []

    def _push_new(self, git_dir: Path, snapshot: Snapshot, head: str, memory: Memory) -> Memory:
        """Push a state that differs from the last one. Raises GitFailedError.

        What the relay refuses keeps nothing else from being saved: neither a file, nor commits that hold one.
        """
        git = self.git.within(GIT_INDEX_FILE=str(git_dir / _INDEX))
        # What was refused with HEAD is not sent again while that is the same.
        again = bool(memory.commit) and head == memory.parent
        first, *others = dict.fromkeys((memory.upon if again else head, memory.upon or self.config.base))
        try:
            return self._push_upon(git, first, snapshot, head, memory)
        except GitFailedError:
            for upon in others:
                with suppress(GitFailedError):  # the first one tells why
                    return self._push_upon(git, upon, snapshot, head, memory)
            raise

    def _push_upon(self, git: Git, upon: str, snapshot: Snapshot, head: str, memory: Memory) -> Memory:
        """Push the files as a commit upon `upon`, with the agent's branch if that is HEAD. Raises GitFailedError."""
        commit = commit_snapshot(git, snapshot, self.config, parent=upon, message=AUTOSAVE_MESSAGE) or upon
        if not commit:
            return memory
        large = self._send_large(Path(git.environment["GIT_INDEX_FILE"]).parent, commit, memory.commit)
        branch = self._branch(head) if upon == head else []
        before = Taken(memory.commit, memory.lacks, memory.why) if upon == memory.upon else Taken()
        taken = push_taken(lambda oid: self._push(f"+{oid}:{LATEST}", *branch), git, commit, upon, before)
        without = "" if upon == head else f"the commits beyond {upon[:12]} are not taken, their files are"
        return Memory(
            taken.commit,
            tree=snapshot.tree,
            parent=head,
            upon=upon,
            lacks=taken.lacks,
            why=taken.why,
            missing=(without, large.why and large.told()),
            nested=memory.nested,
        )

    def _push(self, *refspecs: str) -> None:
        self.git.run("push", "--quiet", "--no-verify", self.place.relay, *refspecs)

    def _send_large(self, git_dir: Path, commit: str, before: str) -> Sent:
        """Push the content of large files that the last save did not have, ahead of what names them."""
        known = [oid for oid in (self.config.base, before) if oid]
        return send_large_files(
            self.git, git_dir, tips=[commit], known=known, relay=self.place.relay, scratch=git_dir
        )

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
        lines = encode_event(report) + json.dumps(asdict(memory)).encode("ascii")
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
            return report, Memory(**json.loads(rest))
    except (WireError, ValueError, TypeError):
        pass
    return Autosaved("", False, "not saved: the automatic save ended early"), Memory(before.commit)


def _stamp(index: Path) -> str:
    try:
        found = index.stat()
    except FileNotFoundError:
        return ""
    return f"{found.st_ino} {found.st_mtime_ns} {found.st_size}"
