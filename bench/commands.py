"""What a command costs that does nothing but answer: `--help`, `list` with 50 sessions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.rows import Row, in_turn, milliseconds
from bench.user import User
from coding_agents.model.session import RepoRef, SessionRecord
from coding_agents.store.sessions import SessionStore

_COUNT = 9
_SESSIONS = 50
_BARE_PYTHON = (sys.executable, "-c", "pass")


def measure(user: User) -> Iterator[Row]:
    """Against a Python that starts and ends, which is the least that a command written in it costs."""
    _make_sessions(SessionStore(user.home / ".local/state/coding-agents"), user.engine)

    def bare() -> float:
        return milliseconds(lambda: subprocess.run(_BARE_PYTHON, check=True))

    for what, args, most in (
        ("`--help`", ("--help",), 100.0),
        (f"`list --all`, {_SESSIONS} sessions that ended", ("list", "--all"), 200.0),
    ):
        command = partial(user.run, *args)
        value, baseline = in_turn(_COUNT, partial(milliseconds, command), bare)
        yield Row(
            what=what, value=value, unit="ms", against="`python -c pass`", baseline=baseline, max_value=most
        )


def _make_sessions(store: SessionStore, engine: str) -> None:
    repo = RepoRef(
        kind="path",
        name="bench",
        work_tree="/bench",
        git_dir="/bench/.git",
        common_dir="/bench/.git",
        repo_id="a1b2c3d4e5f6",
        owner_uid=0,
        owner_gid=0,
    )
    for number in range(_SESSIONS):
        record = SessionRecord(
            id=f"{number:012x}",
            nonce=f"{number:032x}",
            name=f"demo-bench-session-{number}",
            agent="demo",
            repo=repo,
            branch=f"demo/session-{number}",
            network="restricted",
            engine="docker" if engine == "docker" else "podman",
            mode="command",
            host_uid=0,
            created_ms=1000 + number,
            phase="stopped",
        )
        store.create(record.id)
        store.save(record)


def forget_sessions(home: Path) -> None:
    """Remove the made-up sessions: the engine has nothing of them."""
    store = SessionStore(home / ".local/state/coding-agents")
    for number in range(_SESSIONS):
        store.remove(f"{number:012x}")
