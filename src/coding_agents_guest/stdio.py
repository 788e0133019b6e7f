"""Standard input and output as asyncio streams: the guest's end of the channel's carrier."""

from __future__ import annotations

import asyncio
import os


async def open_stdio() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Descriptors 0 and 1 as a reader and a writer.

    Both are moved away first, and replaced by /dev/null and standard error: a stray `print` must not get
    into the stream of frames.
    """
    loop = asyncio.get_running_loop()
    incoming, outgoing = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(incoming, "rb", 0))
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), os.fdopen(outgoing, "wb", 0)
    )
    return reader, asyncio.StreamWriter(transport, protocol, None, loop)
