"""A program on a terminal of its own, as a person sees it and types into it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from support.product import Product


@dataclass
class Terminal:
    """The outer side of a pseudo-terminal and the program on it."""

    pid: int
    fd: int
    raw: bytes = b""

    @property
    def seen(self) -> str:
        return self.raw.decode("utf-8", "replace")

    @property
    def modes(self) -> list[Any]:
        """What `tcgetattr` says of the program's side."""
        return termios.tcgetattr(self.fd)

    def sees(self, text: str, *, timeout_s: float = 30.0) -> None:
        """Wait until `text` has been shown."""
        deadline = time.monotonic() + timeout_s
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} not in {self.seen[-5000:]!r}"
            self.read(0.1)

    def types(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def leaves_tmux(self) -> None:
        """Ctrl-b d, after a moment: tmux takes keys that follow others within a millisecond for pasted text."""
        time.sleep(0.1)
        self.types("\x02d")

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def signals(self, number: int) -> None:
        os.kill(self.pid, number)

    def ends(self, *, timeout_s: float = 30.0) -> int:
        """The exit status, when the program has ended and all that it wrote has been read."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                while self.read(0.0):
                    pass
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, f"still running after {self.seen[-5000:]!r}"

    def read(self, timeout_s: float) -> bool:
        """Take what has been shown meanwhile; False when there was nothing."""
        if not select.select([self.fd], [], [], timeout_s)[0]:
            return False
        with suppress(OSError):  # the other end has closed it
            data = os.read(self.fd, 65536)
            self.raw += data
            return data != b""
        return False


@contextmanager
def terminal(
    argv: Sequence[str], env: Mapping[str, str], *, rows: int = 24, columns: int = 80
) -> Iterator[Terminal]:
    """Run `argv` on a pseudo-terminal; what is left of it is killed at the end of the block."""
    ready, go = os.pipe()
    pid, fd = pty.fork()
    if pid == 0:
        os.close(go)
        os.read(ready, 1)  # the terminal has its size before the program looks
        os.execve(argv[0], argv, env)
    shown = Terminal(pid, fd)
    shown.resize(rows, columns)
    os.close(go)
    os.close(ready)
    try:
        yield shown
    finally:
        if shown.pid:
            os.kill(shown.pid, signal.SIGKILL)
            os.waitpid(shown.pid, 0)
        if shown.fd != -1:
            os.close(shown.fd)


@contextmanager
def on_terminal(product: Product, *words: str, term: str = "xterm-256color") -> Iterator[Terminal]:
    """Run `coding-agents WORDS` on a pseudo-terminal of 24 x 80."""
    env = {**product.env, "TERM": term}
    with terminal((sys.executable, "-m", "coding_agents", *words), env) as shown:
        yield shown


def shell_agent(product: Product) -> None:
    """Give the user an agent of their own, `shell`, whose command is a shell."""
    path = product.home / ".config/coding-agents/agents/shell.toml"
    path.parent.mkdir(parents=True)
    path.write_text(
        'name = "shell"\ntitle = "Shell"\n[command]\ninteractive = ["bash", "--norc"]\n'
        'headless = ["bash", "-c", "{prompt}"]\n'
    )
