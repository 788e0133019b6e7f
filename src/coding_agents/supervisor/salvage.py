"""Salvage: a one-shot container of our own image that reads a session's volume and pushes what it holds.

It runs whenever the relay's tip is not known to equal the volume, and before anything is removed. The
volume is hostile: it is mounted read-only, the container has no network and no capability, and what it
pushes arrives through the relay like any guest's push, under refs that only salvage may write.
"""

from __future__ import annotations

import asyncio
import os

from msgspec.structs import replace

from coding_agents.engine.apparmor import profiles_loaded
from coding_agents.errors import EngineError, ImageBuildError
from coding_agents.gitsync.relay import RelayService
from coding_agents.gitsync.relay_repo import Identity
from coding_agents.sandbox.invariants import check_spec
from coding_agents.sandbox.plan import plan_salvage
from coding_agents.sandbox.spec import LABEL, Role
from coding_agents.supervisor.context import BASE_IMAGE, SessionContext, plan_input_of
from coding_agents.supervisor.disk import disk_opened_beside
from coding_agents.supervisor.guest_link import GuestLink, OnReport
from coding_agents.supervisor.guest_program import GuestProgram, ensure_guest_volume
from coding_agents_guest.events import GuestConfig, Salvaged
from coding_agents_guest.mux import Stream

# Hashing 100k files takes well under a minute; a hostile volume must end some time, too.
_TIMEOUT_S = 600.0


async def salvage(
    session: SessionContext, relay: RelayService, config: GuestConfig, on_report: OnReport
) -> Salvaged:
    """Push what the session's volume holds to the relay's salvage refs; returns what the container found.

    Raises EngineError when the volume is gone, ImageBuildError when our base image is, and the errors of
    engine and channel; the volume is untouched in every case, so a later try can succeed.
    """
    engine = session.engine
    if not await asyncio.to_thread(session.has_volume):
        raise _volume_is_gone(session)
    image = await asyncio.to_thread(engine.image_id, BASE_IMAGE)
    if image is None:
        raise ImageBuildError(f"{BASE_IMAGE} is missing", hint="Run `coding-agents images build base`.")
    mark = os.urandom(4).hex()
    # Today's program, and not that of the launch: it is the one that speaks with us. A full disk need not keep it.
    program = await asyncio.to_thread(GuestProgram.of_this_version, session.env.data_dir, keep=False)
    await asyncio.to_thread(ensure_guest_volume, engine, program, image, suffix=mark)
    facts = plan_input_of(
        session.record,
        base_image=image,
        host_cpus=engine.info.cpus or None,
        apparmor=profiles_loaded(engine.info),
    )
    spec = plan_salvage(replace(facts, guest_volume=program.volume, guest_digest=program.digest))
    # A name of its own: `<name>-salvage` may be another session's.
    spec = replace(spec, name=f"{spec.name}-{mark}")
    check_spec(spec)

    async def serve_relay(stream: Stream) -> None:
        await relay.serve(stream, identity=Identity.SALVAGE)

    await asyncio.to_thread(_remove_leftovers, session)
    link = GuestLink({"relay": serve_relay}, on_report)
    container, ours = "", False
    try:
        async with disk_opened_beside(session):
            container = await asyncio.to_thread(engine.create, spec)
            ours = await asyncio.to_thread(session.has_volume)  # for as long as it has a container now
            if not ours:
                raise _volume_is_gone(session)
            await link.open(engine.start_attached_command(container))
        return await link.until_salvaged(config, _TIMEOUT_S)
    finally:
        await link.close()
        if container:
            await asyncio.to_thread(engine.remove, container, force=True)
            if not ours:
                await asyncio.to_thread(_remove_impostor, session)


def _remove_leftovers(session: SessionContext) -> None:
    """Remove helpers of this session that a killed supervisor left behind."""
    mine = {f"{LABEL}nonce": session.record.nonce, f"{LABEL}type": Role.HELPER.value}
    for state in session.engine.find(mine):
        session.engine.remove(state.id, force=True)


def _volume_is_gone(session: SessionContext) -> EngineError:
    return EngineError(f"the session's volume {session.record.volumes.workspace} does not exist any more")


def _remove_impostor(session: SessionContext) -> None:
    """Remove the empty volume that the engine made because ours was lost just before the container was made."""
    volume = session.record.volumes.workspace
    if session.engine.volume_labels([volume]).get(volume) == {}:
        session.engine.remove_volume(volume)
