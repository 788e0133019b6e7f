"""The supervisor's control socket: whoever asks gets an answer, or the end of the connection, never silence."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coding_agents.errors import SessionStateError, SupervisorGoneError
from coding_agents.supervisor.control import serving
from coding_agents.supervisor.protocol import Op, decode, encode


async def _ask(path: Path, line: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(line)
    async with asyncio.timeout(5):
        answer = await reader.readline()
    writer.close()
    return answer


def _answer_to(path: Path, line: bytes) -> bytes:
    async def handler(op: Op, request: dict[str, Any]) -> dict[str, Any]:
        if op is Op.SALVAGE:
            raise NameError("a bug of ours")
        if op is Op.STOP:
            raise SessionStateError("the session is running", hint="Stop it first.")
        return {"phase": "running"}

    async def run() -> bytes:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        async with serving(path, handler):
            return await _ask(path, line)

    return asyncio.run(run())


def test_an_answer_and_an_error_arrive(tmp_path: Path) -> None:
    socket = tmp_path / "s"
    assert decode(_answer_to(socket, encode({"op": "status"}))) == {"ok": True, "phase": "running"}
    refused = decode(_answer_to(socket, encode({"op": "stop"})))
    assert (refused["ok"], refused["code"], refused["hint"]) == (False, "session-state", "Stop it first.")


def test_garbage_is_refused(tmp_path: Path) -> None:
    for line in (b"\n", b"[]\n", b'{"op":"rm"}\n', b'{"op":[]}\n', b"\xff\n"):
        assert decode(_answer_to(tmp_path / "s", line))["ok"] is False


def test_a_bug_in_a_handler_is_told(tmp_path: Path) -> None:
    answer = decode(_answer_to(tmp_path / "s", encode({"op": "salvage"})))
    assert (answer["ok"], answer["code"]) == (False, "supervisor")
    assert answer["message"] == "the supervisor failed: NameError: a bug of ours"
    assert "in handler" in answer["details"]


def test_the_socket_is_private_and_gone_afterwards(tmp_path: Path) -> None:
    async def handler(op: Op, request: dict[str, Any]) -> dict[str, Any]:
        return {}

    async def mode() -> int:
        async with serving(tmp_path / "s", handler):
            return stat.S_IMODE((tmp_path / "s").stat().st_mode)

    before = os.umask(0)
    try:
        assert asyncio.run(mode()) == 0o600
    finally:
        os.umask(before)
    assert not (tmp_path / "s").exists()


async def _leaving(path: Path, connect: Callable[[], None], *, turns: int) -> None:
    """Serve until `connect` has returned and the event loop has turned so often; every question is sent away."""

    async def handler(op: Op, request: dict[str, Any]) -> dict[str, Any]:
        raise SupervisorGoneError("the supervisor is leaving")

    async with serving(path, handler):
        connect()
        for _ in range(turns):
            await asyncio.sleep(0)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 20])
@pytest.mark.parametrize("asks_after_s", [None, 0.1])
def test_who_has_connected_before_the_end_learns_that_nobody_took_the_request(
    tmp_path: Path, asks_after_s: float | None, turns: int
) -> None:
    """Not accepted yet, half accepted, waited for."""
    path = tmp_path / "s"
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(5)
    line = encode({"op": "attach"})

    def connect() -> None:
        client.connect(str(path))
        if asks_after_s is None:
            client.sendall(line)
        else:
            asyncio.get_running_loop().call_later(asks_after_s, client.sendall, line)

    with client:
        asyncio.run(_leaving(path, connect, turns=turns))
        answer = client.recv(65536)
    assert decode(answer)["code"] == SupervisorGoneError.code
