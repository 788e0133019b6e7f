"""Runs an engine command that talks while it works (build, pull) and hands on its lines as they come."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from coding_agents.proc import runner
from coding_agents.proc.runner import Command, Outcome

_KEPT_LINES = 400
_CHUNK = 64 * 1024


def follow(command: Command, on_line: Callable[[str], None]) -> Outcome:
    """Run `command` to its end, each line of both its outputs to `on_line` without its end.

    The Outcome holds the last lines as `stderr`, and as `stdout` those of standard output alone.
    Ends the whole process group when the time is over, or when `on_line` or Ctrl-C interrupts.
    """
    return asyncio.run(_follow(command, on_line))


async def _follow(command: Command, on_line: Callable[[str], None]) -> Outcome:
    began = time.monotonic()
    process = await runner.start(command)
    out: deque[str] = deque(maxlen=_KEPT_LINES)
    both: deque[str] = deque(maxlen=_KEPT_LINES)
    timed_out = False

    async def read(stream: asyncio.StreamReader, kept: deque[str]) -> None:
        async for line in _lines(stream):
            kept.append(line)
            both.append(line)
            on_line(line)

    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise AssertionError("runner.start gives pipes")
    process.stdin.close()
    try:
        with runner.interruptible(process.pid):
            async with asyncio.timeout(command.timeout_s):
                async with asyncio.TaskGroup() as group:
                    group.create_task(read(process.stdout, out))
                    group.create_task(read(process.stderr, deque()))
                await process.wait()
    except TimeoutError:
        timed_out = True
    except BaseExceptionGroup as group:  # what `on_line` raised, without the task group's wrapping
        raise group.exceptions[0] from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return Outcome(
        command.argv,
        process.returncode if process.returncode is not None else -signal.SIGKILL,
        "\n".join(out).encode("utf-8", "surrogateescape"),
        "\n".join(both).encode("utf-8", "surrogateescape"),
        time.monotonic() - began,
        timed_out,
    )


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Lines, also of a program that writes one without an end for ever: pieces of at most 64 KiB."""
    rest = b""
    while chunk := await stream.read(_CHUNK):
        *whole, rest = (rest + chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if len(rest) > _CHUNK:
            whole, rest = [*whole, rest], b""
        for line in whole:
            yield line.decode("utf-8", "replace")
    if rest:
        yield rest.decode("utf-8", "replace")
