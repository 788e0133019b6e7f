"""Running git inside the container, bounded in time and without hooks, prompts or editors.

The repository belongs to the agent, which has our uid: nothing here is protected from it. The settings only
keep its hooks and habits from holding up or changing what we save.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from coding_agents_guest.events import Identity
from coding_agents_guest.records import dataclass, replace

_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.splitIndex=false",
    "core.safecrlf=false",
    # What is one name on a disk that does not tell A from a is two files here, and both are work.
    "core.ignoreCase=false",
    # Size and second alone do not tell a file from another one that was renamed over it.
    "core.checkStat=default",
    "core.trustCtime=true",
    # Names that the relay's fsck refuses: git then leaves out the one file, and not the push all.
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "core.quotePath=false",
    "commit.gpgSign=false",
    "push.gpgSign=false",
    "push.followTags=false",
    "push.recurseSubmodules=no",
    "fetch.recurseSubmodules=false",
    "submodule.recurse=false",
    "i18n.commitEncoding=utf-8",
    "gc.auto=0",
    "maintenance.auto=false",
    "credential.helper=",
    "protocol.allow=never",
    "protocol.git.allow=always",
    "protocol.file.allow=always",
)
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_EDITOR": "true",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "LC_ALL": "C.UTF-8",
}


class GitFailedError(Exception):
    """A git command ended with a status that its caller did not expect, or ran out of time."""


@dataclass(frozen=True)
class Git:
    """git in `directory`. `deadline` (of time.monotonic) bounds every command; `settings` come after ours."""

    directory: Path
    environment: Mapping[str, str]
    deadline: float
    settings: tuple[str, ...] = ()

    def within(self, **variables: str) -> Git:
        """The same git with more environment variables (GIT_INDEX_FILE, GIT_DIR, …)."""
        return replace(self, environment={**self.environment, **variables})

    def run(self, *arguments: str, stdin: bytes = b"", expected: tuple[int, ...] = (0,)) -> bytes:
        """Standard output of one command. Raises GitFailedError for another status than `expected`."""
        status, output, errors = self._finish(arguments, stdin)
        if status not in expected:
            raise _failure(arguments, status, errors)
        return output

    def text(self, *arguments: str) -> str:
        """Standard output without its line end; undecodable bytes become surrogates."""
        return os.fsdecode(self.run(*arguments)).rstrip("\n")

    def answer(self, *arguments: str) -> str:
        """Like `text`, but "" when the command says no (a missing ref, an unset value)."""
        status, output, _ = self._finish(arguments, b"")
        return os.fsdecode(output).rstrip("\n") if status == 0 else ""

    def status(self, *arguments: str, expected: tuple[int, ...]) -> int:
        """The status of one command. Raises GitFailedError for another one than `expected`."""
        status, _, errors = self._finish(arguments, b"")
        if status not in expected:
            raise _failure(arguments, status, errors)
        return status

    def agrees(self, *arguments: str) -> bool:
        """Whether a command that answers by its status says yes."""
        return self._finish(arguments, b"")[0] == 0

    def paths(self, *arguments: str) -> list[str]:
        """The NUL-separated paths that a command prints."""
        return _split(self.run(*arguments))

    def paths_and_warnings(self, *arguments: str) -> tuple[list[str], str]:
        """Like `paths`, with what the command said on standard error."""
        status, output, errors = self._finish(arguments, b"")
        if status != 0:
            raise _failure(arguments, status, errors)
        return _split(output), os.fsdecode(errors)

    def warnings(self, *arguments: str, stdin: bytes) -> str:
        """What a command said on standard error. Raises GitFailedError when it fails."""
        status, _, errors = self._finish(arguments, stdin)
        if status != 0:
            raise _failure(arguments, status, errors)
        return os.fsdecode(errors)

    def status_and_output(
        self, *arguments: str, stdin: bytes = b"", discard: bool = False
    ) -> tuple[int, bytes]:
        """The exit status and the standard output, which with `discard` is not kept."""
        return self._finish(arguments, stdin, subprocess.DEVNULL if discard else subprocess.PIPE)[:2]

    def _finish(
        self, arguments: tuple[str, ...], stdin: bytes, stdout: int = subprocess.PIPE
    ) -> tuple[int, bytes, bytes]:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise _too_late(arguments)
        argv = ["git"]
        for setting in (*_SETTINGS, *self.settings):
            argv += ["-c", setting]
        process = subprocess.Popen(
            [*argv, *arguments],
            cwd=self.directory,
            env={**_ENVIRONMENT, **self.environment},
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(stdin, timeout=left)
        except subprocess.TimeoutExpired:
            _end(process)
            raise _too_late(arguments) from None
        return process.returncode, output or b"", errors


def identity_environment(identity: Identity) -> dict[str, str]:
    """The variables that make commits be by `identity`."""
    return {
        "GIT_AUTHOR_NAME": identity.name,
        "GIT_AUTHOR_EMAIL": identity.email,
        "GIT_COMMITTER_NAME": identity.committer_name or identity.name,
        "GIT_COMMITTER_EMAIL": identity.committer_email or identity.email,
    }


def _failure(arguments: tuple[str, ...], status: int, errors: bytes) -> GitFailedError:
    lines = errors.decode("utf-8", "replace").strip().splitlines()[-6:]
    return GitFailedError(f"git {arguments[0]} ended with {status}: " + " / ".join(lines))


def _too_late(arguments: tuple[str, ...]) -> GitFailedError:
    return GitFailedError(f"git {arguments[0]} ran out of time")


def _split(output: bytes) -> list[str]:
    return [os.fsdecode(path) for path in output.split(b"\0") if path]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the command with its helpers, but never wait for one that got away with our pipes."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
