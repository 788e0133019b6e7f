"""A command on a pseudo-terminal of ours, between the user's terminal and whatever the command lets through.

The user's terminal is raw meanwhile, so that every key is the command's, Ctrl-C too; what the command writes goes
through a `Screen`. At the end, however it comes, the terminal is given back as it was found.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Protocol

from coding_agents.errors import Terminated
from coding_agents.proc.runner import TURN_S, Command, interruptible, kill_group, spawn

_Handler = Callable[[int, FrameType | None], object]
_CHUNK = 65536
_MAX_TYPED = 65536  # what is typed or pasted ahead of a program that does not read; then our terminal waits
_GIVE_BACK_S = 1.0  # for a terminal that takes nothing more
_LFLAG, _CC = 3, 6  # places in what tcgetattr gives


class Screen(Protocol):
    """Makes output fit for the user's terminal; `finish` gives what undoes all that `feed` let through."""

    def feed(self, data: bytes, /) -> bytes: ...

    def finish(self) -> bytes: ...


class Messages(Protocol):
    """What we have to say on the user's terminal ourselves, between what the command writes."""

    @property
    def fd(self) -> int | None:
        """Readable when there may be something; None while nothing can come."""

    def take(self) -> bytes:
        """What is to be written now. Never waits."""


def run_on_terminal(
    command: Command, screen: Screen, messages: Messages | None = None, *, stdin: int = 0, stdout: int = 1
) -> int:
    """Run `command` on a terminal of its own, shown on ours; returns its exit status (128+n on a signal).

    Messages are written between whole pieces of the screen's: nothing that the command has begun can take them in.
    `stdin` and `stdout` are terminals. Raises KeyboardInterrupt on SIGINT from outside, Terminated on SIGTERM, on
    SIGHUP and when our terminal has gone; the command is ended then. Its time limit does not count: the user ends it.
    """
    relay = _Relay(screen, messages, stdin=stdin, stdout=stdout)
    with _handling(relay.handlers):
        status = relay.run(command)
    return 128 - status if status < 0 else status


class _Relay:
    """Passes bytes on in both directions until the command has ended.

    What is to end us is raised by our own loop, not by a signal's handler: that might be in the middle of
    subprocess, whose lock would then stay taken.
    """

    def __init__(self, screen: Screen, messages: Messages | None, *, stdin: int, stdout: int) -> None:
        self._messages = messages
        self._screen, self._stdin, self._stdout = screen, stdin, stdout
        self._found = termios.tcgetattr(stdin)
        self._typed = b""
        self._end: BaseException | None = None
        self._may_raise = False
        self._attached = False

    @property
    def handlers(self) -> Mapping[signal.Signals, _Handler]:
        return {
            signal.SIGINT: lambda *_: self._end_by(KeyboardInterrupt()),
            signal.SIGTERM: lambda *_: self._end_by(Terminated()),
            signal.SIGHUP: lambda *_: self._end_by(Terminated()),
            signal.SIGWINCH: lambda *_: self._resize(),
            signal.SIGCONT: lambda *_: self._resume(),
        }

    def run(self, command: Command) -> int:
        """Start the command and stay until its end; called once. Returns its status, negative for a signal."""
        self._master, slave = os.openpty()
        try:
            try:
                termios.tcsetattr(slave, termios.TCSANOW, self._found)
                _copy_size(self._stdout, self._master)
                self._process = spawn(command, stdin=slave, output=slave)
            finally:
                os.close(slave)
            os.set_blocking(self._master, False)
            with self._process, interruptible(self._process.pid):
                return self._stay()
        finally:
            os.close(self._master)

    def _stay(self) -> int:
        try:
            self._attached = True
            self._resume()
            while self._turn():
                pass
            while (status := self._process.poll()) is None:
                self._require_no_end()
                time.sleep(0.005)
        except BaseException:
            kill_group(self._process.pid)
            raise
        finally:
            self._give_back()
        self._require_no_end()
        return status

    def _end_by(self, error: BaseException) -> None:
        self._end = error
        if self._may_raise:  # a write that waits for our terminal would go on waiting
            raise error

    def _require_no_end(self) -> None:
        if self._end is not None:
            raise self._end

    def _turn(self) -> bool:
        """Wait for something to do and do it; False when nothing more can come."""
        self._require_no_end()
        ended = self._process.poll() is not None  # asked first: what it wrote before that is readable by now
        said = None if self._messages is None else self._messages.fd
        typing = len(self._typed) < _MAX_TYPED
        reading = [self._master, *([self._stdin] if typing else []), *([] if said is None else [said])]
        readable, writable, _ = select.select(reading, [self._master] if self._typed else [], [], TURN_S)
        if self._master in writable:
            self._pass_typed()
        if self._stdin in readable:
            self._take_typed()
        if self._messages is not None and said in readable:
            self._write(self._messages.take())
        return self._show() if self._master in readable else not ended

    def _show(self) -> bool:
        try:
            data = os.read(self._master, _CHUNK)
        except BlockingIOError:
            return True
        except OSError:  # so does Linux say that nobody has the other side open any more
            return False
        self._write(self._screen.feed(data))
        return data != b""

    def _take_typed(self) -> None:
        try:
            data = os.read(self._stdin, _CHUNK)
        except OSError:
            data = b""
        if not data:  # a raw terminal has no end of file but this
            raise Terminated
        self._typed += self._interrupt(data)

    def _interrupt(self, data: bytes) -> bytes:
        """Let Ctrl-C end a client that has not made its terminal raw yet, such as one whose engine is silent.

        Its terminal controls no session, so that the kernel does not do it. Returns `data` without the key: for it the
        kernel would drop what waits on the terminal, and that may be the answer to the signal.
        """
        attributes = termios.tcgetattr(self._master)
        key = attributes[_CC][termios.VINTR]
        if not attributes[_LFLAG] & termios.ISIG or not isinstance(key, bytes) or key not in data:
            return data
        self._signal(signal.SIGINT)
        return data.replace(key, b"")

    def _pass_typed(self) -> None:
        with suppress(BlockingIOError):
            try:
                self._typed = self._typed[os.write(self._master, self._typed) :]
            except BlockingIOError:
                raise
            except OSError:  # the command has ended: nobody reads this any more
                self._typed = b""

    def _write(self, data: bytes) -> None:
        """Write all of `data` to our terminal, however long it takes. Raises Terminated when it has gone."""
        self._may_raise = True
        try:
            while data:
                self._require_no_end()
                data = self._write_some(data, patience_s=TURN_S)
        finally:
            self._may_raise = False

    def _write_some(self, data: bytes, *, patience_s: float) -> bytes:
        """Returns what is left of `data`: all of it when our terminal takes nothing for so long."""
        if not select.select([], [self._stdout], [], patience_s)[1]:
            return data
        try:
            return data[os.write(self._stdout, data) :]
        except BlockingIOError:
            return data
        except OSError as error:
            raise Terminated from error

    def _give_back(self) -> None:
        self._attached = False
        with suppress(Terminated):
            self._write_some(self._screen.finish(), patience_s=_GIVE_BACK_S)
        with suppress(termios.error):
            termios.tcsetattr(self._stdin, termios.TCSANOW, self._found)
            # What mouse and focus still reported must not be typed into the shell.
            termios.tcflush(self._stdin, termios.TCIFLUSH)

    def _resume(self) -> None:
        """Take the terminal: at the beginning, and when somebody had stopped us and a shell has made it its own."""
        if self._attached:
            with suppress(termios.error):
                tty.setraw(self._stdin, termios.TCSANOW)  # what has been typed already is the command's
            self._resize()

    def _resize(self) -> None:
        if self._attached:
            _copy_size(self._stdout, self._master)
            self._signal(signal.SIGWINCH)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _copy_size(source: int, target: int) -> None:
    with suppress(OSError):
        size = fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(target, termios.TIOCSWINSZ, size)


@contextmanager
def _handling(handlers: Mapping[signal.Signals, _Handler]) -> Iterator[None]:
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
