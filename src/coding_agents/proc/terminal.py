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
from typing import TYPE_CHECKING, Protocol

from coding_agents.errors import Terminated
from coding_agents.proc.runner import TURN_S, Command, interruptible, kill_group, spawn

if TYPE_CHECKING:
    import subprocess

_CHUNK = 65536
_MAX_TYPED = 65536  # what is typed or pasted ahead of a program that does not read; then our terminal waits
_GIVE_BACK_S = 1.0  # for a terminal that takes nothing more
_END = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
_LFLAG, _CC = 3, 6  # places in what tcgetattr gives


class Screen(Protocol):
    """Makes output fit for the user's terminal; `finish` gives what undoes all that `feed` let through."""

    def feed(self, data: bytes, /) -> bytes: ...

    def finish(self) -> bytes: ...


def run_on_terminal(command: Command, screen: Screen, *, stdin: int = 0, stdout: int = 1) -> int:
    """Run `command` on a terminal of its own, shown on ours; returns its exit status (128+n on a signal).

    `stdin` and `stdout` are terminals. Raises Terminated on SIGTERM, on SIGHUP and when our terminal has gone; the
    command is ended then. The command's time limit does not count: the user ends it.
    """
    found = termios.tcgetattr(stdin)
    master, slave = os.openpty()
    try:
        try:
            termios.tcsetattr(slave, termios.TCSANOW, found)
            _copy_size(stdout, master)
            process = spawn(command, stdin=slave, output=slave)
        finally:
            os.close(slave)
        with process, interruptible(process.pid):
            status = _Relay(process, master, screen, stdin=stdin, stdout=stdout, found=found).run()
    finally:
        os.close(master)
    return 128 - status if status < 0 else status


class _Relay:
    """Passes bytes on in both directions until the command has ended."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        master: int,
        screen: Screen,
        *,
        stdin: int,
        stdout: int,
        found: list[int | list[bytes | int]],
    ) -> None:
        self._process, self._master, self._screen = process, master, screen
        self._stdin, self._stdout, self._found = stdin, stdout, found
        self._typed = b""
        os.set_blocking(master, False)

    def run(self) -> int:
        handlers = {signal.SIGWINCH: self._resize, signal.SIGCONT: self._resume, signal.SIGHUP: self._hang_up}
        with _handling(handlers):
            try:
                tty.setraw(self._stdin, termios.TCSANOW)  # what has been typed already is the command's
                while self._turn():
                    pass
                return self._wait()
            except BaseException:
                kill_group(self._process.pid)
                raise
            finally:
                self._give_back()

    def _turn(self) -> bool:
        """Wait for something to do and do it; False when nothing more can come."""
        ended = self._process.poll() is not None  # asked first: what it wrote before that is readable by now
        reading = [self._master, *([self._stdin] if len(self._typed) < _MAX_TYPED else [])]
        readable, writable, _ = select.select(reading, [self._master] if self._typed else [], [], TURN_S)
        if self._master in writable:
            self._pass_typed()
        if self._stdin in readable:
            self._take_typed()
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
        self._interrupt(data)
        self._typed += data

    def _interrupt(self, data: bytes) -> None:
        """Let Ctrl-C end a client that has not made its terminal raw yet, such as one whose engine is silent.

        Its terminal controls no session, so that the kernel does not do it.
        """
        attributes = termios.tcgetattr(self._master)
        key = attributes[_CC][termios.VINTR]
        if attributes[_LFLAG] & termios.ISIG and isinstance(key, bytes) and key in data:
            self._signal(signal.SIGINT)

    def _pass_typed(self) -> None:
        with suppress(BlockingIOError):
            try:
                self._typed = self._typed[os.write(self._master, self._typed) :]
            except BlockingIOError:
                raise
            except OSError:  # the command has ended: nobody reads this any more
                self._typed = b""

    def _write(self, data: bytes, *, patience_s: float | None = None) -> None:
        """Write all of `data` to our terminal, or as much as it takes while each piece waits `patience_s` at most."""
        while data:
            if not select.select([], [self._stdout], [], TURN_S if patience_s is None else patience_s)[1]:
                if patience_s is not None:
                    return
                continue
            try:
                data = data[os.write(self._stdout, data) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise Terminated from error

    def _wait(self) -> int:
        while (status := self._process.poll()) is None:
            time.sleep(0.005)
        return status

    def _give_back(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _END)
        try:
            with suppress(Terminated):
                self._write(self._screen.finish(), patience_s=_GIVE_BACK_S)
            with suppress(termios.error):
                termios.tcsetattr(self._stdin, termios.TCSANOW, self._found)
                # What mouse and focus still reported must not be typed into the shell.
                termios.tcflush(self._stdin, termios.TCIFLUSH)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _resize(self, *_: object) -> None:
        _copy_size(self._stdout, self._master)
        self._signal(signal.SIGWINCH)

    def _resume(self, *_: object) -> None:
        """Somebody had stopped us: the shell has made the terminal its own meanwhile."""
        with suppress(termios.error):
            tty.setraw(self._stdin, termios.TCSANOW)
        self._resize()

    def _hang_up(self, *_: object) -> None:
        raise Terminated

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _copy_size(source: int, target: int) -> None:
    with suppress(OSError):
        size = fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(target, termios.TIOCSWINSZ, size)


@contextmanager
def _handling(handlers: Mapping[signal.Signals, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
