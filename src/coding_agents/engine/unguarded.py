"""Containers without our walls: what `verify` aims at, and what it compares a session with. Never for an agent.

There is no way to name a mount but one directory, a device or a privilege: what is asked for is what everybody gets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from coding_agents.engine.program import EngineProgram, label_flags

AS_HOST = "host"
"""The network of the engine's machine itself."""


class Plain(msgspec.Struct, frozen=True, kw_only=True):
    """A container of an image of ours. `walled` takes its capabilities, for one that only answers.

    `network` is a network's name, AS_HOST, or "" for the engine's default; `user` is "" for the image's own;
    `shared` a directory that is mounted at /workspace, which must be a temporary one of the caller's.
    """

    image: str
    argv: tuple[str, ...]
    labels: Mapping[str, str]
    network: str = ""
    user: str = ""
    shared: Path | None = None
    walled: bool = False


def plain_argv(plain: Plain, flags: Sequence[str] = ()) -> tuple[str, ...]:
    """The arguments of the engine's program; `flags` are the engine's own (`Features.create_flags`)."""
    walls = (
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--read-only",
        "--pids-limit=64",
        "--memory=256m",
    )
    return (
        "run",
        "--detach",
        "--pull=never",
        *flags,
        *(walls if plain.walled else ()),
        *((f"--network={plain.network}",) if plain.network else ()),
        *((f"--user={plain.user}",) if plain.user else ()),
        *((f"--volume={plain.shared}:/workspace",) if plain.shared is not None else ()),
        *label_flags(plain.labels),
        f"--entrypoint={plain.argv[0]}",
        plain.image,
        *plain.argv[1:],
    )


def run_plain(engine: EngineProgram, plain: Plain) -> str:
    """Start one in the background; its id. Raises EngineError."""
    outcome = engine.run("start a container to aim at", plain_argv(plain, engine.features.create_flags))
    return outcome.text().split()[-1]


def create_subnet(engine: EngineProgram, name: str, *, subnet: str, labels: Mapping[str, str]) -> None:
    """Make a bridge with this range of addresses. Raises EngineError."""
    words = (
        "network",
        "create",
        *engine.features.network_flags,
        *label_flags(labels),
        f"--subnet={subnet}",
        name,
    )
    engine.run(f"create network {name}", words)


def addresses_of(engine: EngineProgram, container: str) -> dict[str, str]:
    """The IPv4 address of a running container in each of its networks, as the engine tells."""
    networks = ((engine.inspect_one("container", container) or {}).get("NetworkSettings") or {}).get(
        "Networks"
    ) or {}
    return {name: str(one["IPAddress"]) for name, one in networks.items() if one.get("IPAddress")}
