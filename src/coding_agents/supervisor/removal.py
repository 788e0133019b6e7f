"""Remove what a session has in the engine. Each piece is removed by the id or name in its record."""

from __future__ import annotations

from coding_agents.engine.api import Engine
from coding_agents.model.session import SessionRecord


def remove_engine_objects(engine: Engine, record: SessionRecord, *, volumes: bool) -> None:
    """Remove the session's containers and network, and its volumes when `volumes`. What is gone is fine.

    Raises EngineError for the first piece that the engine does not let go.
    """
    for container in (record.container_id or record.name, record.holder_id or f"{record.name}-holder"):
        if is_ours(engine, container, record):
            engine.remove(container, force=True)
    if record.network_name:
        engine.remove_network(record.network_name)
    if volumes:
        for volume in (record.volumes.workspace, record.volumes.home):
            if volume:
                engine.remove_volume(volume)


def is_ours(engine: Engine, container: str, record: SessionRecord) -> bool:
    """Whether a container belongs to this session: by its nonce, which no image and no other session knows."""
    state = engine.inspect(container)
    return state is not None and state.labels.get("coding-agents.nonce") == record.nonce
