"""Commands inside a running session for a person on the host: exec, attach, logs.

Whatever comes out is the guest's: it is made safe on its way to a terminal or a pipe, unless asked raw.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import BinaryIO, Self

from coding_agents.app.sessions import require_open_gate
from coding_agents.errors import ReaderGoneError, StoreError
from coding_agents.model.audit import RecordType
from coding_agents.model.notice import Shown
from coding_agents.model.registry import environment
from coding_agents.proc.foreground import Filtered, run_filtered
from coding_agents.proc.runner import Command
from coding_agents.proc.terminal import Messages, run_on_terminal
from coding_agents.sandbox.guest import guest_argv
from coding_agents.sandbox.spec import AGENT_USER, HOME, WORKSPACE
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.credentials_kept import agent_environment
from coding_agents.supervisor.notice_feed import NoticeFeed
from coding_agents.supervisor.protocol import Op
from coding_agents.supervisor.registry_kept import read_given
from coding_agents.terminal.escape import StreamEscaper
from coding_agents.terminal.filter import TerminalFilter
from coding_agents.terminal.notice import notice_sequence
from coding_agents.terminal.streams import unwritten
from coding_agents_guest.paths import REGISTRY_PORT

_ENVIRONMENT = (("HOME", HOME), ("LANG", "C.UTF-8"))
_MARK = "CODING_AGENTS_TERMINAL"  # marks what runs on one terminal of the host
# What the base image has descriptions of, and our filter passes what they say. All others understand xterm.
_TERMS = frozenset(
    {"xterm", "xterm-256color", "screen", "screen-256color", "tmux", "tmux-256color", "linux", "vt100", "vt220",
     "rxvt-unicode", "rxvt-unicode-256color"}
)  # fmt: skip


def run_inside(session: SessionContext, argv: Sequence[str], *, raw: bool) -> int:
    """Run a command as the agent's user; returns its exit status. Raises SessionStateError while the gate is closed."""
    require_open_gate(session)
    _record(session, RecordType.EXEC, argv[0])
    if session.env.stdin_tty and session.env.stdout_tty:
        return _on_terminal(session, argv)
    command = session.engine.exec_command(
        session.record.container_id,
        argv,
        user=AGENT_USER,
        interactive=True,
        workdir=WORKSPACE,
        env=_environment(session),
    )
    return show_output(command, raw=raw, stdin=True)


def attach(session: SessionContext, *, control: bool, notices: Shown) -> int:
    """Attach this terminal to the session's tmux; read-only when somebody else is attached, unless `control`.

    Meanwhile it tells of the session's notices, as `notices` says how.
    """
    require_open_gate(session)
    clients = session.engine.exec(
        session.record.container_id, ("tmux", "list-clients", "-t", "agent"), user=AGENT_USER
    )
    read_only = ("-r",) if clients.ok and clients.stdout.strip() and not control else ()
    _record(session, RecordType.ATTACHED, "read-only" if read_only else "control")
    argv = ("tmux", "attach-session", *read_only, "-t", "agent")
    if notices == "off":
        return _on_terminal(session, argv)
    with closing(NoticeFeed(session.store.control_socket(session.record.id))) as feed:
        return _on_terminal(session, argv, TerminalNotices(session.record.name, feed, notices))


class TerminalNotices:
    """The notices of a session as bytes for the terminal that is attached to it."""

    def __init__(self, session: str, feed: NoticeFeed, shown: Shown) -> None:
        self._session, self._feed, self._shown = session, feed, shown

    @property
    def fd(self) -> int | None:
        return self._feed.fd

    def take(self) -> bytes:
        told = (notice_sequence(self._shown, self._session, notice) for notice in self._feed.take())
        return "".join(told).encode()


def _environment(session: SessionContext) -> tuple[tuple[str, str], ...]:
    """What a person's commands get: where the container's own settings end, the session's package indexes are."""
    more = environment(read_given(session.directory), REGISTRY_PORT) | agent_environment(session.directory)
    return (*_ENVIRONMENT, *more.items())


def _on_terminal(session: SessionContext, argv: Sequence[str], messages: Messages | None = None) -> int:
    """Run a command as the agent's user on our terminal, filtered; what interrupts us hangs it up."""
    name, value = _MARK, secrets.token_hex(8)
    term = session.env.environ.get("TERM", "")
    env = (*_environment(session), ("TERM", term if term in _TERMS else "xterm-256color"), (name, value))
    container = session.record.container_id
    command = session.engine.exec_command(
        container, argv, user=AGENT_USER, interactive=True, tty=True, workdir=WORKSPACE, env=env
    )
    try:
        return run_on_terminal(command, TerminalFilter(), messages)
    except BaseException:
        # The engine lets it run on when its client is gone, and a tmux client would make the next viewer read only.
        session.engine.exec(
            container, guest_argv(session.record.guest_digest, "hangup", f"{name}={value}"), user=AGENT_USER
        )
        raise


def show_output(command: Command, *, raw: bool, stdin: bool = False) -> int:
    """Run `command` with its output made safe on ours; returns its exit status.

    Raises ReaderGoneError, or StoreError, when our standard output took no more.
    """
    out = _filter(sys.stdout.buffer, raw=raw)
    status = run_filtered(command, out=out, err=_filter(sys.stderr.buffer, raw=raw), stdin=stdin)
    if out.failure is not None:
        raise out.failure
    return status


class Follower:
    """Shows what a session's command writes. Ended by leaving the block."""

    def __init__(self) -> None:
        self._log: Filtered | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._log is not None:
            self._log.end()

    def begin(self, session: SessionContext) -> None:
        """Open the log of a session that runs a command; it may be before its gate opens."""
        if session.record.mode == "command" and self._log is None:
            command = session.engine.logs_command(session.record.container_id, follow=True)
            self._log = Filtered(command)

    def show(self, session: SessionContext) -> StoreError | None:
        """Pass the output on until the command ends; returns why our standard output took no more.

        The session goes on when nobody reads it. Docker 20.10 does not follow a last line that has no end, so the
        log is read once more for what is missing.
        """
        self.begin(session)
        log, self._log = self._log, None
        if log is None:
            raise AssertionError("only a session of mode command has output")
        out, err = _filter(sys.stdout.buffer, raw=False), _filter(sys.stderr.buffer, raw=False)
        log.pour(out=out, err=err)
        return _rest_of(session, out, err)


def _rest_of(session: SessionContext, out: _Safe, err: _Safe) -> StoreError | None:
    engine, container = session.engine, session.record.container_id
    if out.failure is None and engine.inspect(container) is not None:  # `--rm` may have been faster
        rest = engine.logs_command(container, follow=False)
        run_filtered(rest, out=_After(out, out.taken), err=_After(err, err.taken))
    return out.failure if isinstance(out.failure, StoreError) else None


class _Safe:
    """A sink that escapes what it is given and passes it on at once.

    `taken` counts the bytes, `failure` tells why the stream below took no more of them.
    """

    def __init__(self, target: BinaryIO, escaper: StreamEscaper | None) -> None:
        self._target = target
        self._escaper = escaper
        self.taken = 0
        self.failure: ReaderGoneError | StoreError | None = None

    def __call__(self, chunk: bytes) -> None:
        self.taken += len(chunk)
        self._write(chunk if self._escaper is None else self._escaper.feed(chunk))

    def finish(self) -> None:
        if self._escaper is not None:
            self._write(self._escaper.finish())

    def _write(self, data: bytes) -> None:
        try:
            self._target.write(data)
            self._target.flush()
        except OSError as error:
            self.failure = unwritten(self._target, error)
            raise  # so that the command finds its pipe closed, as it would without us


class _After:
    """A sink that leaves out the first `skip` bytes."""

    def __init__(self, sink: _Safe, skip: int) -> None:
        self._sink = sink
        self._skip = skip

    def __call__(self, chunk: bytes) -> None:
        left, self._skip = chunk[self._skip :], max(0, self._skip - len(chunk))
        if left:
            self._sink(left)

    def finish(self) -> None:
        self._sink.finish()


def _filter(target: BinaryIO, *, raw: bool) -> _Safe:
    return _Safe(target, None if raw else StreamEscaper(colours=target.isatty()))


def _record(session: SessionContext, kind: RecordType, subject: str) -> None:
    session.supervisor().ask(Op.RECORD, type=kind.value, subject=subject)
