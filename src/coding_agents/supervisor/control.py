"""The supervisor's control socket: one request a connection, answered by a handler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from coding_agents.errors import SupervisorError
from coding_agents.supervisor.protocol import MAX_LINE, Op, decode, encode, failure, told

Handler = Callable[[Op, dict[str, Any]], Awaitable[dict[str, Any]]]

_ACCEPTING_TURNS = 5  # of the event loop: more than asyncio needs from accept(2) to the callback
_LAST_WORDS_S = 1.0


@asynccontextmanager
async def serving(path: Path, handler: Handler) -> AsyncIterator[None]:
    """Answer requests on a Unix socket at `path` while the block runs; the socket is gone afterwards.

    Who has connected by then is still heard, so that `handler` can send them away: an end without an answer would
    leave them in doubt whether it has taken the request.
    """

    open_connections: set[asyncio.Task[None]] = set()
    unheard: set[asyncio.Task[None]] = set()

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            for known in (open_connections, unheard):
                known.add(task)
                task.add_done_callback(known.discard)

        async def heard(op: Op, request: dict[str, Any]) -> dict[str, Any]:
            unheard.discard(task)
            return await handler(op, request)

        try:
            writer.write(encode(await _answer(reader, heard)))
            await writer.drain()
        except ConnectionError:
            pass  # whoever asked has gone
        finally:
            writer.close()  # also after a bug of ours: who asked must not wait for ever

    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(on_connection, path, limit=MAX_LINE)
    path.chmod(0o600)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        # Before close(), which forgets a connection that is half accepted: neither served nor ended (CPython 3.11).
        for _ in range(_ACCEPTING_TURNS):
            await asyncio.sleep(0)
        server.close()
        if unheard:
            await asyncio.wait(tuple(unheard), timeout=_LAST_WORDS_S)
        # One by one, not by asyncio.run, which cancels all tasks at once: a process that a question is just
        # starting (Ctrl-C during a launch) would then be waited for without end (CPython 3.11).
        for task in tuple(open_connections):
            task.cancel()
        await asyncio.gather(*open_connections, return_exceptions=True)


async def _answer(reader: asyncio.StreamReader, handler: Handler) -> dict[str, Any]:
    try:
        request = decode(await reader.readline())
        try:
            op = Op(request.pop("op", None))
        except ValueError:
            raise SupervisorError("unknown request on the control socket") from None
        return {"ok": True, **await handler(op, request)}
    except Exception as error:  # noqa: BLE001 - who asked must hear of a mistake of ours as well
        return failure(told(error))
