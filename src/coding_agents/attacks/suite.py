"""Runs many attacks side by side, each in a process of its own that is ended when its time is over."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import Any

MOST_BYTES = 4 << 20  # of one result


def run(calls: list[list[Any]], limit_s: float, at_once: int) -> dict[str, dict[str, Any]]:
    """Run each [key, module, function, arguments]; gives key to {"value" or "error", "ms"}.

    A call that needs more than `limit_s` seconds among others is tried once more, alone and with three times as many.
    """
    found = _run(calls, limit_s, at_once)
    for one in calls:
        if found[one[0]].get("error") == "time limit":
            found |= _run([one], 3 * limit_s, 1)
    return found


def _run(calls: list[list[Any]], limit_s: float, at_once: int) -> dict[str, dict[str, Any]]:
    waiting = list(reversed(calls))
    running: dict[
        int, tuple[str, int, float, list[bytes]]
    ] = {}  # by the pipe: key, process, start, what came
    found: dict[str, dict[str, Any]] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            key, module, function, arguments = waiting.pop()
            pipe, process = _start(module, function, arguments)
            running[pipe] = (key, process, time.monotonic(), [])
        ready, _, _ = select.select(list(running), [], [], 0.05)
        for pipe, (key, process, began, pieces) in list(running.items()):
            over = time.monotonic() - began > limit_s
            if pipe in ready:
                piece = os.read(pipe, 1 << 16)
                pieces.append(piece)
                if piece and sum(map(len, pieces)) < MOST_BYTES:
                    continue
            elif not over:
                continue
            running.pop(pipe)
            os.close(pipe)
            for end in (os.kill, os.killpg):  # a child of its own may have changed its group
                with suppress(OSError):
                    end(process, signal.SIGKILL)
            os.waitpid(process, 0)
            ms = round((time.monotonic() - began) * 1000)
            found[key] = {**(_result(pieces) if pipe in ready else {"error": "time limit"}), "ms": ms}
    return found


def _start(module: str, function: str, arguments: list[Any]) -> tuple[int, int]:
    readable, writable = os.pipe()
    child = os.fork()
    if child:
        os.close(writable)
        return readable, child
    try:
        os.setsid()
        value = getattr(sys.modules[f"coding_agents.attacks.{module}"], function)(*arguments)
        told = {"value": value}
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is told
        told = {"error": f"{type(error).__name__}: {error}"[:300]}
    with os.fdopen(writable, "wb") as pipe:
        pipe.write(json.dumps(told).encode())
    os._exit(0)


def _result(pieces: list[bytes]) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(b"".join(pieces))
    except ValueError:
        return {"error": "it ended without a result"}
    return told
