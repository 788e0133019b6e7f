"""Who the requests of a session's agent to its model are from, for people."""

from __future__ import annotations

import time

from coding_agents.credentials.standing import credential_source
from coding_agents.errors import CodingAgentsError
from coding_agents.images.manifests import load_manifest
from coding_agents.supervisor.context import SessionContext, session_settings


def model_told(session: SessionContext) -> str:
    """One short text; "" for an agent without a model."""
    try:
        manifest = load_manifest(session.record.agent, session.env.config_dir / "agents")
        if manifest.model is None:
            return ""
        gateway = session_settings(session).model_upstream
        source = credential_source(manifest, session.env, now_ms=time.time_ns() // 1_000_000)
    except CodingAgentsError as error:
        return f"not reached: {error.message}"
    by = f"by {source}" if source else ""
    if gateway:
        return f"{gateway} {by or 'without a login'}"
    return by or f"no login on this host: run `coding-agents login {manifest.name}`"
