"""Single keys of a person at a terminal, told apart from what terminals send by themselves."""

from __future__ import annotations

import os
import select
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK = 256


class Keys:
    """Reads from the terminal with this descriptor, which is in the right mode."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def get(self, timeout_s: float) -> str:
        """The key that was pressed, "" when none was in time.

        Whatever comes as more than one byte at once is none: an arrow key, a paste, and the answer of a terminal to a
        question that hostile output has asked it.
        """
        readable, _, _ = select.select([self._fd], [], [], timeout_s)
        if not readable:
            return ""
        data = os.read(self._fd, _CHUNK)
        return data.decode("ascii") if len(data) == 1 and data.isascii() else ""

    def discard(self) -> None:
        """Forget what was typed so far."""
        discard_typed(self._fd)


@contextmanager
def single_keys(fd: int) -> Iterator[Keys]:
    """Keys without Enter and without their echo while the block runs; Ctrl-C works as ever."""
    before = termios.tcgetattr(fd)
    changed = termios.tcgetattr(fd)
    changed[3] &= ~(termios.ICANON | termios.ECHO)
    termios.tcsetattr(fd, termios.TCSAFLUSH, changed)
    try:
        yield Keys(fd)
    finally:
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)


def discard_typed(fd: int) -> None:
    """Forget what was typed at the terminal with this descriptor before it is asked; one that is none is fine."""
    with suppress(termios.error):
        termios.tcflush(fd, termios.TCIFLUSH)
