"""Remove what a session has in the engine: everything that carries its nonce, and nothing else.

Names prove nothing: two users of one engine may both have a repository called `app`. The nonce is random,
known to the session's record alone, and a label of everything that was made for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from coding_agents.engine.api import Engine
from coding_agents.sandbox.spec import LABEL


def remove_engine_objects(engine: Engine, nonce: str) -> None:
    """Remove the containers, networks and volumes of the session with this nonce. What is gone is fine.

    Raises EngineError for the first piece that the engine does not let go.
    """
    remove_labelled(engine, {f"{LABEL}nonce": nonce})


def remove_labelled(engine: Engine, mine: Mapping[str, str]) -> None:
    """The same for all that carries these labels, of which one must be nobody else's. Raises EngineError."""
    # The agent's container lives in the holder's namespace, so it goes first.
    for state in sorted(
        engine.find(mine), key=lambda state: state.config.network.startswith("container:"), reverse=True
    ):
        engine.remove(state.id, force=True)
    for network in engine.list_networks(mine):
        engine.remove_network(network)
    for volume in engine.list_volumes(mine):
        engine.remove_volume(volume)
