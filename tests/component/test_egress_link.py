"""The proxy's line to the host: orders whole or not at all, events until they are recorded, and one host at a time."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from coding_agents_guest.egress import link
from coding_agents_guest.egress.ledger import Limits
from coding_agents_guest.egress.link import Link
from coding_agents_guest.egress.orders import Orders, orders_json
from coding_agents_guest.egress.outbox import Outbox
from coding_agents_guest.egress.rules import Rules, parse_rule
from support.egress import link_client, uid_of
from support.guest import short_directory


@pytest.fixture(autouse=True)
def both_ends_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "peer_uid", uid_of)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Short: sockets stand in it, whose paths have 107 bytes."""
    with short_directory() as directory:
        yield directory


def order(version: int, *rules: str, **more: Any) -> dict[str, object]:
    orders = Orders(Rules([parse_rule(rule, "user") for rule in rules]), Limits(up=7), False, None)
    return {"version": version, **orders_json(orders), **more}


@dataclass
class Host:
    """The other end."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def say(self, value: object) -> None:
        self.writer.write(value if isinstance(value, bytes) else json.dumps(value).encode() + b"\n")

    async def hear(self) -> Any:
        line = await asyncio.wait_for(self.reader.readline(), 10)
        return json.loads(line) if line else None

    async def ended(self) -> bool:
        with suppress(ConnectionError):
            while await asyncio.wait_for(self.reader.readline(), 10):
                pass
        return True


@dataclass
class Scene:
    path: Path
    outbox: Outbox = field(default_factory=Outbox)
    taken: list[Orders] = field(default_factory=list)
    hosts: list[Host] = field(default_factory=list)

    async def host(self) -> Host:
        one = Host(*await asyncio.open_unix_connection(self.path))
        self.hosts.append(one)
        return one

    @property
    def rules(self) -> list[str]:
        return [rule.text for rule in self.taken[-1].rules.opened] if self.taken else []


@asynccontextmanager
async def linked(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path / "link.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.fspath(scene.path))
    listener.listen()
    serving = asyncio.ensure_future(Link(scene.outbox, scene.taken.append).serve(listener))
    try:
        yield scene
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        for host in scene.hosts:
            host.writer.close()
            with suppress(OSError):
                await host.writer.wait_closed()
        await asyncio.sleep(0.02)


def test_orders_are_in_force_when_it_says_so(tmp_path: Path) -> None:
    async def scene() -> None:
        async with linked(tmp_path) as here:
            host = await here.host()
            assert set(await host.hear()) == {"boot"}
            host.say(order(3, "a.example"))
            assert await host.hear() == {"version": 3}
            assert here.rules == ["a.example"]
            host.say(order(4, "b.example"))
            assert await host.hear() == {"version": 4}
            assert (here.rules, here.taken[-1].limits) == (["b.example"], Limits(up=7))

    asyncio.run(scene())


@pytest.mark.parametrize(
    "said",
    [
        order(2, "b.example", opened=[["user", "b.example"], ["user", "10.0.0.1"]]),
        order(2, "b.example", limits={"x": 1}),
        order(2, "b.example", limits=None), {"version": 2}, {"taken": "1"}, {"taken": -1}, [], 1, None, "x",
        b"nonsense\n", b"\xff\n", b"[" * 100_000 + b"\n", b"x" * 300_000, b"{}\n",
    ],
    ids=range(15),
)  # fmt: skip
def test_what_is_no_order_changes_nothing_and_ends_the_line_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: object
) -> None:
    monkeypatch.setattr(link, "_MAX_LINE", 200_000)

    async def scene() -> None:
        async with linked(tmp_path) as here:
            host = await here.host()
            host.say(order(1, "a.example"))
            host.say(said)
            assert await host.ended()
            assert here.rules == ["a.example"]
            again = await here.host()
            await again.hear()
            again.say(order(9, "c.example"))
            assert await again.hear() == {"version": 9}

    asyncio.run(scene())


def test_events_are_told_in_order_and_again_until_they_are_recorded(tmp_path: Path) -> None:
    async def scene() -> None:
        async with linked(tmp_path) as here:
            here.outbox.put({"n": 1})
            first = await here.host()
            boot = await first.hear()
            assert await first.hear() == {"number": 1, "event": {"n": 1}}
            here.outbox.put({"n": 2})
            assert await first.hear() == {"number": 2, "event": {"n": 2}}
            first.say({"taken": 1})
            second = await here.host()
            assert await second.hear() == boot, "it is the same proxy"
            told = [await second.hear()]
            if told[0]["number"] == 1:  # it had not read yet that one is recorded
                told = [await second.hear()]
            assert told == [{"number": 2, "event": {"n": 2}}]
            assert await first.ended(), "a newer line takes the place of an older"
            second.say({"taken": 2})
            second.say(order(1))
            await second.hear()
            assert here.outbox.after(0) == []

    asyncio.run(scene())


def test_another_user_is_told_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "peer_uid", lambda connection: os.geteuid() + 1)

    async def scene() -> None:
        async with linked(tmp_path) as here:
            here.outbox.put({"n": 1})
            host = await here.host()
            with suppress(ConnectionError):
                host.say(order(1, "a.example"))
                assert await asyncio.wait_for(host.reader.read(), 10) == b""
            assert here.taken == []

    asyncio.run(scene())


def test_the_hosts_program_carries_both_ways_and_ends_with_either(tmp_path: Path) -> None:
    async def scene() -> None:
        async with linked(tmp_path) as here:
            process = await asyncio.create_subprocess_exec(
                *link_client(here.path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert process.stdin is not None
            assert process.stdout is not None
            rules = [f"h{number}.example" for number in range(20_000)]
            process.stdin.write(json.dumps(order(5, *rules)).encode() + b"\n")
            assert "boot" in json.loads(await process.stdout.readline())
            for number in range(2000):
                here.outbox.put({"n": number, "text": "x" * 200})
            seen = [json.loads(await process.stdout.readline()) for _ in range(2001)]
            assert {"version": 5} in seen
            assert len(here.rules) == 20_000
            process.stdin.close()
            assert await asyncio.wait_for(process.wait(), 10) == 0
        done = await asyncio.to_thread(
            subprocess.run, link_client(here.path), capture_output=True, timeout=20, check=False
        )
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.startswith(b"link: ")

    asyncio.run(scene())
