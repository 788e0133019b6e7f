"""Run a process whose output is bounded, and that nobody waits for longer than it lives itself.

`runner.run` reads to the end of the pipes, which a program left behind by the process may hold, and as much as comes.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import subprocess
import threading
import time
from collections.abc import Callable

from coding_agents.proc.runner import Command, Outcome, interruptible, kill_group, spawn

_CHUNK = 64 * 1024
_ERRORS = 64 * 1024
_TURN_S = 0.1  # so soon an end without an end of the pipes, or a cancellation, is noticed


def run_bounded(command: Command, *, most: int, stop: threading.Event | None = None) -> Outcome:
    """Run `command` to its end. Raises ProgramNotFoundError; never raises for a non-zero status.

    It is ended as if its time were over when it has written more than `most` bytes, or when `stop` is set; with it ends
    what it started, as far as that has stayed in its process group. Standard error is cut at 64 KiB.
    """
    began = time.monotonic()
    stdin = subprocess.PIPE if command.stdin is not None else subprocess.DEVNULL
    process = spawn(command, stdin=stdin)
    with process, interruptible(process.pid):
        try:
            out, err, whole = _converse(process, command, most, stop or threading.Event())
        finally:
            if process.poll() is None:
                kill_group(process.pid)
            process.wait()
    return Outcome(command.argv, process.returncode, out, err, time.monotonic() - began, not whole)


async def run_bounded_aside(command: Command, *, most: int) -> Outcome:
    """`run_bounded` for the event loop; who cancels it ends the process and what it started."""
    stop = threading.Event()
    work = asyncio.ensure_future(asyncio.to_thread(run_bounded, command, most=most, stop=stop))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([work])
        raise


def _converse(
    process: subprocess.Popen[bytes], command: Command, most: int, stop: threading.Event
) -> tuple[bytes, bytes, bool]:
    """What came from standard output and error, and whether it was all."""
    if process.stdout is None or process.stderr is None:
        raise AssertionError("a conversation needs pipes")
    out, err = bytearray(), bytearray()
    deadline = time.monotonic() + command.timeout_s
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ, _taking(out, most + 1))
        ready.register(process.stderr, selectors.EVENT_READ, _taking(err, _ERRORS))
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            ready.register(process.stdin, selectors.EVENT_WRITE, _sending(command.stdin or b""))
        while ready.get_map() or process.poll() is None:
            ended = process.poll() is not None
            if stop.is_set() or time.monotonic() >= deadline or len(out) > most:
                return bytes(out[:most]), bytes(err), False
            events = ready.select(_TURN_S)
            if ended and not events:
                break  # somebody whom it left behind holds a pipe
            for key, _ in events:
                if not key.data(key.fd):
                    ready.unregister(key.fileobj)
                    if key.fileobj is process.stdin:
                        process.stdin.close()
            if not ready.get_map():
                stop.wait(_TURN_S / 10)  # its pipes are closed, and it has not ended yet
    return bytes(out), bytes(err), True


def _taking(into: bytearray, most: int) -> Callable[[int], bool]:
    """Takes what can be read, `most` bytes of it; tells whether there may be more."""

    def take(descriptor: int) -> bool:
        data = os.read(descriptor, _CHUNK)
        into.extend(data[: most - len(into)])
        return bool(data)

    return take


def _sending(text: bytes) -> Callable[[int], bool]:
    """Sends what can be written; tells whether there is more. Who does not want it does not get it."""
    unsent = memoryview(text)

    def send(descriptor: int) -> bool:
        nonlocal unsent
        try:
            if unsent:
                unsent = unsent[os.write(descriptor, unsent[:_CHUNK]) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            return False
        return bool(unsent)

    return send
