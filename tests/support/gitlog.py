"""What really ran: a `git` in front of the real one that writes down each call, and this process's own starts."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import msgspec

from coding_agents.proc.git import Profile, git_command

_WRAPPER = """#!{python} -IS
import json, os, sys
call = {{"argv": sys.argv[1:], "env": dict(os.environ), "leads_session": os.getsid(0) == os.getpid()}}
with open({log!r}, "a") as log:
    log.write(json.dumps(call) + "\\n")
os.execv({real!r}, ["git", *sys.argv[1:]])
"""

_PROFILES = tuple(Profile)
# What single calls add to the environment of their profile (`env_extra`), each without a program to run.
_ADDED = frozenset({"GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_ALLOC_LIMIT",
                    "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_AUTHOR_DATE", "GIT_COMMITTER_NAME",
                    "GIT_COMMITTER_EMAIL", "GIT_COMMITTER_DATE", "GIT_CONFIG_COUNT"})  # fmt: skip
_ADDED_KEYS = frozenset({"core.splitIndex", "core.untrackedCache", "index.sparse", "index.skipHash", "index.version",
                         "lfs.storage", "lfs.url", "lfs.skipdownloaderrors"})  # fmt: skip
_ADDED_ARGUMENTS = frozenset({"safe.bareRepository", "core.fsync", "pack.writeReverseIndex", "transfer.hideRefs",
                              "receive.maxInputSize", "receive.denyNonFastForwards", "core.packedGitWindowSize",
                              "core.packedGitLimit", "core.commitGraph", "merge.renameLimit"})  # fmt: skip


class Call(msgspec.Struct, frozen=True):
    """One start of git: its arguments, its whole environment, and whether it leads a session of its own."""

    argv: tuple[str, ...]
    env: dict[str, str]
    leads_session: bool

    @property
    def verb(self) -> str:
        """`push` of `-c … --git-dir=… push`."""
        words = iter(self.argv)
        for word in words:
            if word == "-c":
                next(words)
            elif not word.startswith("-"):
                return word
        return self.argv[-1] if self.argv else ""

    def wrong(self) -> str:
        """What tells this call from one that `proc.git` described and `proc.runner` started; empty if nothing."""
        if not self.leads_session:
            return "not started by the runner"
        reasons = [self._differs(profile) for profile in _PROFILES]
        return "" if "" in reasons else min(reasons, key=len)

    def _differs(self, profile: Profile) -> str:
        expected = git_command((), profile=profile, env=self.env)
        fixed = expected.argv[1:]
        if self.argv[: len(fixed)] != fixed:
            return "lacks the fixed settings"
        more = _settings(self.argv[len(fixed) :])
        if unknown := {key.partition("=")[0] for key in more} - _ADDED_ARGUMENTS:
            return f"has further settings: {sorted(unknown)}"
        if missing := {name for name, value in expected.env.items() if self.env.get(name) != value}:
            return f"environment: {sorted(missing)}"
        extra = {name: value for name, value in self.env.items() if name not in expected.env}
        keys = {extra.pop(name) for name in [*extra] if name.startswith("GIT_CONFIG_KEY_")}
        unknown = {name for name in extra if not name.startswith("GIT_CONFIG_VALUE_")} - _ADDED
        unknown |= {key for key in keys if key not in _ADDED_KEYS and not key.startswith(("url.", "filter."))}
        unknown |= {key for key in _filters(self.env) if key in keys}
        return f"environment: {sorted(unknown)}" if unknown else ""


def _filters(env: dict[str, str]) -> set[str]:
    """The settings of filters that a call adds and that do not switch one off."""
    pairs = {
        env[name]: env.get(name.replace("_KEY_", "_VALUE_"), "")
        for name in env
        if name.startswith("GIT_CONFIG_KEY_")
    }
    return {key for key, value in pairs.items() if key.startswith("filter.") and value not in ("", "false")}


def _settings(argv: tuple[str, ...]) -> list[str]:
    """What `-c` names in front of git's verb."""
    found = []
    words = iter(argv)
    for word in words:
        if word == "-c":
            found.append(next(words))
        elif not word.startswith("--"):
            break
    return found


@dataclass(frozen=True)
class GitLog:
    """A directory for the front of PATH with a `git` that writes its calls to `path` and becomes the real one."""

    directory: Path
    path: Path

    @classmethod
    def make(cls, place: Path) -> GitLog:
        real = shutil.which("git")
        assert real is not None
        log = cls(place / "bin", place / "calls.jsonl")
        log.directory.mkdir(parents=True)
        wrapper = log.directory / "git"
        wrapper.write_text(_WRAPPER.format(python=sys.executable, log=str(log.path), real=real))
        wrapper.chmod(0o755)
        return log

    def before(self, env: Mapping[str, str]) -> dict[str, str]:
        """`env` in which this git is found first."""
        return {**env, "PATH": f"{self.directory}:{env['PATH']}"}

    def calls(self) -> list[Call]:
        """All calls so far."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [msgspec.convert(json.loads(line), Call) for line in lines]


@dataclass
class Starts:
    """Processes that this interpreter started, by the file in src/ that asked for each."""

    inside: Path
    by: list[tuple[str, str]] = field(default_factory=list)
    on: bool = False

    def __call__(self, event: str, _: tuple[object, ...]) -> None:
        if self.on and event in _EVENTS and (asked := self._asked(sys._getframe())):
            self.by.append((event, asked))

    def _asked(self, frame: FrameType | None) -> str:
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(self.inside):
                return path.relative_to(self.inside).as_posix()
            frame = frame.f_back
        return ""


_EVENTS = frozenset(
    {
        "subprocess.Popen",
        "os.posix_spawn",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.system",
        "os.spawn",
        "pty.spawn",
    }
)


@contextmanager
def watching(inside: Path) -> Iterator[Starts]:
    """While the block runs, note every start of a process that code in the directory `inside` causes.

    A hook of Python's own (PEP 578) cannot be taken away again; it stays, and is idle.
    """
    starts = Starts(inside)
    sys.addaudithook(starts)
    starts.on = True
    try:
        yield starts
    finally:
        starts.on = False
