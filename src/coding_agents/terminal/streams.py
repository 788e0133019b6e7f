"""Our own standard streams when they take no more: a closed pipe, a full disk."""

from __future__ import annotations

import io
import os
from typing import BinaryIO, TextIO

from coding_agents.errors import ReaderGoneError, StoreError


class ResultStream(io.TextIOWrapper):
    """Standard output that fails with our own errors, whoever writes to it: click, too, with its help."""

    @classmethod
    def around(cls, stream: TextIO) -> ResultStream:
        """A stream that takes the place of `stream`, which is not usable any more."""
        encoding, errors = stream.encoding, stream.errors
        return cls(stream.detach(), encoding=encoding, errors=errors)  # type: ignore[attr-defined]

    def write(self, text: str, /) -> int:
        """Write all of `text` at once: it is part of a result. Raises ReaderGoneError, StoreError."""
        if text == "":  # so does click try whether this is a stream of text; it swallows what goes wrong
            return 0
        try:
            written = super().write(text)
            super().flush()
        except OSError as error:
            raise unwritten(self, error) from error
        return written


def unwritten(stream: TextIO | BinaryIO, error: OSError) -> ReaderGoneError | StoreError:
    """What to raise when `stream` did not take a result; it is dropped."""
    drop(stream)
    if isinstance(error, BrokenPipeError):
        return ReaderGoneError()
    return StoreError(
        f"cannot write the result: {(error.strerror or str(error)).lower()}",
        hint="Free some space where standard output leads, or send it elsewhere.",
    )


def drop(stream: TextIO | BinaryIO) -> None:
    """Let a stream that cannot be written to any more end in /dev/null, also at the interpreter's exit."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, stream.fileno())
    os.close(devnull)
