"""What a session costs an agent's own program until it speaks: every start is a cold one, in a new container."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.rows import Row, in_turn, milliseconds
from bench.user import User

AGENTS = ("claude", "codex", "copilot", "gemini", "opencode")
_COUNT = 3


def measure(user: User) -> Iterator[Row]:
    """Each agent's program with its version, against the same one in a container without walls and repository."""
    repo = user.repository({"README.md": b"hello\n"})
    for agent in AGENTS:
        value, baseline = in_turn(_COUNT, partial(_inside, user, repo, agent), partial(_bare, user, agent))
        yield Row(
            what=f"cold start of `{agent}`, restricted",
            value=value,
            unit="ms",
            against=f"`{user.engine} run --rm IMAGE {agent} --version`",
            baseline=baseline,
            max_ratio=1.0,
            slack=600.0,
        )


def _inside(user: User, repo: Path, agent: str) -> float:
    command = (agent, "--version")
    return user.first_byte_ms(repo, "--network-proxy", "restricted", agent=agent, command=command)


def _bare(user: User, agent: str) -> float:
    image = f"coding-agents-{agent}:local"
    return milliseconds(
        lambda: user.engine_run("run", "--rm", "--network", "none", image, agent, "--version")
    )
