"""A user's repository with its relay and a guest's clone, and how a guest that is no git speaks to the relay."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from coding_agents.gitsync.base import BaseStore, give, open_base
from coding_agents.gitsync.discover import discover
from coding_agents.gitsync.pktline import FLUSH
from coding_agents.gitsync.relay_repo import Relay, create_relay
from coding_agents.model.refs import Oid
from coding_agents.model.repo import RepoFacts
from support.relay_server import URL, RelayServer
from support.repos import BRANCH, commit, git_env, head, make_repo, sh

PUSH = b"git-receive-pack /workspace\0host=coding-agents\0"
FETCH = b"git-upload-pack /workspace\0host=coding-agents\0"


@dataclass
class Scene:
    """A user's repository with a private branch, its relay, and a guest's clone of the base."""

    user: Path
    guest: Path
    relay: Relay
    base_store: BaseStore
    base: Oid
    private: Oid
    sibling: Oid
    env: dict[str, str]
    tmp: Path


def make_scene(tmp_path: Path) -> Scene:
    """Everything of it below `tmp_path`."""
    env = git_env(tmp_path / "home")
    user = make_repo(tmp_path / "user", env=env)
    base = head(user, env=env)
    sh(user, "checkout", "-qb", "private", env=env)
    private = commit(user, "secret", "the crown jewels\n", env=env)
    sh(user, "checkout", "-q", "main", env=env)
    facts = discover(user, env=env)
    base_store = open_base(tmp_path / "data", facts, env=env)
    give(base_store, facts, base)
    sh(user, "checkout", "-qb", "elsewhere", env=env)
    sibling = commit(user, "sibling", "another session's base\n", env=env)
    sh(user, "checkout", "-q", "main", env=env)
    give(base_store, facts, sibling)
    relay = create_relay(
        tmp_path / "relay.git", base_store=base_store, branch=BRANCH, base=base, base_branch="main"
    )
    guest = tmp_path / "guest"
    guest.mkdir()
    sh(guest, "init", "-q", env=env)
    sh(guest, "remote", "add", "local", URL, env=env)
    return Scene(user, guest, relay, base_store, base, private, sibling, env, tmp_path)


def at_work(scene: Scene, server: RelayServer) -> dict[str, str]:
    """The guest's clone on the session's branch; the environment of its git."""
    env = server.guest_env(scene.env)
    sh(scene.guest, "fetch", "-q", "local", env=env)
    sh(scene.guest, "checkout", "-qB", BRANCH.short, f"local/{BRANCH.short}", env=env)
    return env


def relay_of(tmp_path: Path, facts: RepoFacts, env: dict[str, str]) -> Relay:
    """The relay of a session that began on `main` of the repository of `facts`."""
    store = open_base(tmp_path / "data", facts, env=env)
    assert facts.head is not None
    give(store, facts, facts.head)
    return create_relay(
        tmp_path / "relay.git", base_store=store, branch=BRANCH, base=facts.head, base_branch="main"
    )


def eventually(what: Callable[[], bool]) -> None:
    """The service finishes its own work after the client has its answer."""
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def read_all(link: socket.socket) -> bytes:
    """Everything up to the end of the conversation, however it ends."""
    received = b""
    with suppress(ConnectionResetError):
        while data := link.recv(65536):
            received += data
    return received


def read_advertisement(link: socket.socket) -> bytes:
    received = b""
    while not received.endswith(FLUSH):
        received += link.recv(65536)
    return received
