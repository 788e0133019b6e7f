"""Take a session whose record cannot be read out of the way, without losing anything of its work.

Without a record there is no salvage: nobody knows which repository the work belongs to. So nothing is
removed. The session's directory, with the relay and the audit log in it, moves to a named place; what the
engines hold for it is found by the session's id, stopped, and named, for a person to take the work out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from coding_agents.config.environ import HostEnvironment
from coding_agents.engine.api import Engine
from coding_agents.engine.find import find_engine
from coding_agents.errors import CodingAgentsError, EngineNotFoundError
from coding_agents.quota.image import Image
from coding_agents.quota.window import release
from coding_agents.sandbox.spec import LABEL
from coding_agents.store.sessions import BrokenSession, SessionStore
from coding_agents.supervisor.client import SupervisorClient

_ENGINES = ("docker", "podman")
_STOP_S = 120


class Left(msgspec.Struct, frozen=True):
    """What one engine still holds for a session, by name."""

    engine: str
    containers: tuple[str, ...]
    networks: tuple[str, ...]
    volumes: tuple[str, ...]


class SetAside(msgspec.Struct, frozen=True):
    """Where the session's directory is now, what the engines hold, and engines that did not answer, with why."""

    directory: Path
    left: tuple[Left, ...]
    silent: tuple[str, ...]


def set_aside(env: HostEnvironment, store: SessionStore, session: BrokenSession) -> SetAside:
    """Stop what runs of the session and move its directory aside.

    Raises StoreError, also while a verb works on the session, and the engine's errors when a container does
    not stop; then everything is as it was.
    """
    left: list[Left] = []
    silent: list[str] = []
    with store.lock(session.id):
        for name in _ENGINES:
            try:
                engine = find_engine(name, env.environ)
            except EngineNotFoundError:
                continue
            except CodingAgentsError as error:
                silent.append(error.message)
                continue
            left += _stopped(engine, name, session.id)
        SupervisorClient(session.directory, store.control_socket(session.id), dict(env.environ)).quit()
        release(Image(session.directory))
        return SetAside(store.set_aside(session.id), tuple(left), tuple(silent))


def _stopped(engine: Engine, name: str, session_id: str) -> Iterator[Left]:
    """Stop the session's containers; yields what the engine holds for it, if anything."""
    mine = {f"{LABEL}session": session_id}
    containers = engine.find(mine)
    # The agent's container first: its guest commits to the volume, and lives in the holder's namespace.
    for state in sorted(containers, key=lambda state: not state.config.network.startswith("container:")):
        if state.running:
            engine.stop(state.id, timeout_s=_STOP_S)
    found = Left(
        name,
        tuple(sorted(state.name for state in containers)),
        tuple(sorted(engine.list_networks(mine))),
        tuple(sorted(engine.list_volumes(mine))),
    )
    if found.containers or found.networks or found.volumes:
        yield found
