"""Commands whose output a person on the host sees, made safe on its way; `proc.terminal` has those on a terminal."""

from __future__ import annotations

import os
import subprocess
import threading
from typing import IO, Protocol

from coding_agents.proc.runner import Command, interruptible, kill_group, spawn


def run_filtered(command: Command, *, out: Sink, err: Sink, stdin: bool = False) -> int:
    """Run `command` with its output going through two sinks as it comes; returns its exit status (128+n on a signal).

    `stdin` gives it our own standard input. The command's time limit does not count: the user ends it.
    """
    return Filtered(command, stdin=stdin).pour(out=out, err=err)


class Filtered:
    """A command that runs; its output waits until `pour` takes it. Without `pour`, `end` is called."""

    def __init__(self, command: Command, *, stdin: bool = False) -> None:
        self._process = spawn(command, stdin=None if stdin else subprocess.DEVNULL)

    def pour(self, *, out: Sink, err: Sink) -> int:
        """Pass the output on through two sinks until the end; returns the exit status (128+n on a signal)."""
        process = self._process
        with process, interruptible(process.pid):
            readers = [
                threading.Thread(target=_pour, args=(source, sink), daemon=True)
                for source, sink in ((process.stdout, out), (process.stderr, err))
            ]
            try:
                for reader in readers:
                    reader.start()
                for reader in readers:
                    reader.join()
                status = process.wait()
            except BaseException:
                kill_group(process.pid)
                raise
        return 128 - status if status < 0 else status

    def end(self) -> None:
        """Kill the command; whatever it has written is lost. Harmless after its end."""
        with self._process as process:
            if process.poll() is None:
                kill_group(process.pid)


class Sink(Protocol):
    """Takes output as it comes; `finish` is called once at its end."""

    def __call__(self, chunk: bytes, /) -> None: ...

    def finish(self) -> None: ...


def _pour(source: IO[bytes] | None, sink: Sink) -> None:
    if source is None:
        raise AssertionError("the command's output is a pipe")
    try:
        while chunk := os.read(source.fileno(), 65536):
            sink(chunk)
        sink.finish()
    except OSError:  # whoever read our output has gone, or its disk is full: the command is to find that, too
        source.close()
