"""The guest's real containers on a real engine: the program's volume, a channel, a relay behind it."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from coding_agents.channel.pyz import build_guest_pyz, guest_digest
from coding_agents.sandbox.guest import GUEST_DIRECTORY
from coding_agents.sandbox.plan import PlanInput, SessionPlan, plan_filler, plan_session
from coding_agents.sandbox.spec import Network
from coding_agents_guest.events import MAX_LINE, Event, GuestConfig, encode_event, parse_event
from coding_agents_guest.mux import Stream
from support.engines import EngineUnderTest
from support.specs import identity

GIT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}


GUEST_PROGRAM = build_guest_pyz()
GUEST_DIGEST = guest_digest(GUEST_PROGRAM)


def tarred(files: dict[str, bytes], *, uid: int = 0, mode: int = 0o644) -> bytes:
    """A tar of files with one owner."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.uid, entry.gid = len(content), mode, uid, uid
            archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def guest_volume(engine: EngineUnderTest, program: bytes = GUEST_PROGRAM) -> str:
    """A volume with the guest's program (or another), filled as a launch fills it."""
    volume = engine.volume()
    labels = tuple(engine.labels.items())
    spec = plan_filler(
        volume=volume,
        guest_digest=GUEST_DIGEST,
        image=engine.image,
        suffix="fill",
        version="0",
        extra_labels=labels,
    )
    filler = engine.api.create(spec)
    content = tarred({"guest.pyz": program})
    engine.api.copy_in(filler, GUEST_DIRECTORY, lambda out: out.write(content) and None)
    engine.api.remove(filler)
    return volume


def plan(
    engine: EngineUnderTest, volume: str, *, network: Network, options: tuple[str, ...] = ()
) -> PlanInput:
    """What a session on this engine is planned from."""
    return PlanInput(
        identity=identity(network=network, name=engine.fresh_name()),
        image=engine.image,
        base_image=engine.image,
        guest_volume=volume,
        guest_digest=GUEST_DIGEST,
        host_cpus=engine.api.info.cpus,
        holder_options=options,
        extra_labels=tuple(engine.labels.items()),
    )


def make_volumes(engine: EngineUnderTest, session: SessionPlan) -> None:
    for volume in (session.workspace, session.home):
        engine.api.create_volume(volume.name, labels=dict(volume.labels))


def restricted_session(engine: EngineUnderTest, volume: str) -> tuple[PlanInput, SessionPlan]:
    """The plan of a session without a network, with its volumes made."""
    facts = plan(engine, volume, network=Network.RESTRICTED)
    session = plan_session(facts)
    make_volumes(engine, session)
    return facts, session


@dataclass
class Host:
    """The host's side of a channel: takes events, answers some, serves git from a bare repository."""

    relay: Path
    config: GuestConfig
    on_event: Callable[[Event, Stream], Awaitable[None]]
    events: list[Event] = field(default_factory=list)

    async def serve(self, stream: Stream) -> None:
        """An `OnStream` for `open_channel`."""
        if stream.service == "events":
            await self._events(stream)
        elif stream.service == "relay":
            await self._git(stream)
        else:
            raise AssertionError(f"unexpected service {stream.service}")

    async def _events(self, stream: Stream) -> None:
        buffer = b""
        while data := await stream.read():
            buffer += data
            assert len(buffer) <= MAX_LINE
            while b"\n" in buffer:
                line, buffer = buffer.split(b"\n", 1)
                self.events.append(parse_event(line))
                await self.on_event(self.events[-1], stream)

    async def _git(self, stream: Stream) -> None:
        request = b""
        while len(request) < 4 or len(request) < int(request[:4], 16):
            request += await stream.read(
                4 - len(request) if len(request) < 4 else int(request[:4], 16) - len(request)
            )
        command, _, parameters = request[4:].partition(b" ")
        assert parameters.split(b"\0")[:2] == [b"/workspace", b"host=coding-agents"]
        assert command in (b"git-receive-pack", b"git-upload-pack")
        process = await asyncio.create_subprocess_exec(
            *("git", command.decode().removeprefix("git-"), str(self.relay)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=GIT,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        await asyncio.gather(_inwards(stream, process.stdin), _outwards(process.stdout, stream))
        await process.wait()


async def send(stream: Stream, event: Event) -> None:
    await stream.write(encode_event(event))


async def _inwards(stream: Stream, stdin: asyncio.StreamWriter) -> None:
    try:
        while data := await stream.read():
            stdin.write(data)
            await stdin.drain()
    except ConnectionError:
        pass
    finally:
        stdin.close()


async def _outwards(stdout: asyncio.StreamReader, stream: Stream) -> None:
    while data := await stdout.read(65536):
        await stream.write(data)
    stream.write_eof()
