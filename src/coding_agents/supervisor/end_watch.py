"""Learns of a container's end where the channel does not: Docker's client of an exec in gVisor outlives the container.

(Docker 20.10 with runsc 2022 and 2024: killed, out of memory or out of threads, the exec is never reported as ended.)
"""

from __future__ import annotations

import asyncio

from coding_agents.engine.api import Engine
from coding_agents.proc.runner import kill_group, start

_PAUSE_S = 2.0


async def until_ended(engine: Engine, container: str) -> None:
    """Return when the container has ended, or is gone; an engine that does not say is asked again."""
    while True:
        process = await start(engine.wait_command(container))
        try:
            if process.stdout is not None:
                await process.stdout.read()
            if await process.wait() == 0:
                return
        finally:
            if process.returncode is None:
                kill_group(process.pid)
                await process.wait()
        state = await asyncio.to_thread(engine.inspect, container)
        if state is None or not state.running:
            return
        await asyncio.sleep(_PAUSE_S)
