"""Session records for tests."""

from __future__ import annotations

from typing import Any

from coding_agents.model.session import RepoRef, SessionRecord

REPO = RepoRef(
    kind="path",
    name="shop",
    work_tree="/home/u/shop",
    git_dir="/home/u/shop/.git",
    common_dir="/home/u/shop/.git",
    repo_id="a1b2c3d4e5f6",
    owner_uid=1000,
    owner_gid=1000,
    url="https://example.com/shop.git",
)


def session_record(session_id: str = "0123456789ab", **changes: Any) -> SessionRecord:
    """A record of an ordinary session, with `changes`."""
    fields: dict[str, Any] = {
        "id": session_id,
        "nonce": "n" * 32,
        "name": f"demo-shop-{session_id[:4]}",
        "agent": "demo",
        "repo": REPO,
        "branch": "demo/session-1",
        "network": "restricted",
        "engine": "docker",
        "mode": "command",
        "host_uid": 1000,
        "created_ms": 1000,
    }
    return SessionRecord(**{**fields, **changes})
