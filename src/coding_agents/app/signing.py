"""Who a new session's commits are by, and whose key signs them: decided at launch, and kept in its record."""

from __future__ import annotations

import os
from typing import get_args

import msgspec

from coding_agents.brokers.sign.config import read_config
from coding_agents.config.environ import HostEnvironment
from coding_agents.errors import SigningError
from coding_agents.model.audit import RecordType
from coding_agents.model.manifest import AgentManifest
from coding_agents.model.repo import Identity, RepoFacts
from coding_agents.model.settings import Settings
from coding_agents.model.signing import LIVE, Mode
from coding_agents.proc.git import owner_of
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.protocol import Op


class Signing(msgspec.Struct, frozen=True):
    """Whose key signs: `key` is its public half, or what gpg knows it by; `note` says why nobody signs, for people."""

    mode: Mode = "off"
    format: str = ""
    key: str = ""
    note: str = ""


class People(msgspec.Struct, frozen=True):
    """Who a session's commits are by, who commits them, and what stands at their end."""

    author: Identity
    committer: Identity
    trailers: tuple[str, ...]


def people_of(settings: Settings, manifest: AgentManifest, user: Identity | None, session: str) -> People:
    """The user writes and the agent commits in the user's name, so that a signature never says that it was the user.

    Without a user that git knows both are the agent.
    """
    bot = _bot(settings, manifest)
    user = Identity(_line(user.name), _line(user.email)) if user is not None else None
    committer = Identity(f"{user.name} ({manifest.title})", user.email) if user is not None else bot
    author = bot if user is None or settings.identity_as_agent else user
    lines = {"agent": f"Agent: {manifest.title}", "session": f"Session: {session}"}
    return People(author, committer, tuple(lines[name] for name in settings.identity_trailers))


def plan_signing(settings: Settings, repo: RepoFacts, env: HostEnvironment) -> Signing:
    """Whose key signs a session's commits. Raises SigningError when that is to be the user's, and cannot.

    With `auto` that is a note: whoever did not ask for signatures is not kept from working.
    """
    asked = settings.signing_mode
    if asked not in ("user", "auto"):
        return Signing(next(mode for mode in get_args(Mode) if mode == asked))
    config = read_config(env.for_git(), repo.git_dir, owner_of(repo))
    if asked == "auto" and not config.signs:
        return Signing()
    from coding_agents.brokers.sign.signer import users_signer  # most launches do without

    try:
        signer = users_signer(config, env.for_git(), owner_of(repo))
    except SigningError as error:
        if asked == "user":
            raise
        return Signing(note=f"commits are not signed: {error.message}")
    return Signing("user", signer.format, signer.shown)


def give_key(session: SessionContext) -> None:
    """Make the key of a session's own where it signs with one; it stays on this host. Raises SigningError."""
    if session.record.signing != "session":
        return
    from coding_agents.brokers.sign.own_key import make_key

    path = session.env.environ.get("PATH", os.defpath)
    key = make_key(session.directory, comment=f"coding-agents session {session.record.id}", path=path)
    session.update(signing_format="ssh", signing_key=key)


def record_key(session: SessionContext) -> None:
    """Have the supervisor record whose key signs, where one does while the session runs."""
    record = session.record
    if record.signing in LIVE:
        session.supervisor().ask(
            Op.RECORD,
            type=RecordType.SIGNING_KEY.value,
            subject=record.signing_key,
            detail={"mode": record.signing, "format": record.signing_format},
        )


def _line(text: str) -> str:
    """What git writes of a name in a file of settings, too: it has no room for control characters."""
    return "".join(char for char in text if char.isprintable())


def _bot(settings: Settings, manifest: AgentManifest) -> Identity:
    name, _, address = settings.identity_bot.partition(" <")
    if name:
        return Identity(name, address.removesuffix(">"))
    return Identity(manifest.title, f"{manifest.name}@localhost")
