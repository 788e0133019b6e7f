"""The guest's configuration, as it goes through the control socket and into a salvage container."""

from __future__ import annotations

import json

from coding_agents.errors import SupervisorError
from coding_agents.model.session import SessionRecord
from coding_agents.supervisor.context import SessionContext
from coding_agents.workspace.deny import load_deny_list
from coding_agents.workspace.launch_state import WORKTREE_REF
from coding_agents_guest.events import Go, GuestConfig, Identity, encode_event, parse_event
from coding_agents_guest.records import asdict
from coding_agents_guest.wire import WireError


def to_plain(config: GuestConfig) -> dict[str, object]:
    """`config` as JSON-able values. Raises SupervisorError for what the guest would refuse."""
    try:
        encode_event(Go(config))
    except WireError as error:
        raise SupervisorError(
            "the session's configuration cannot be sent to the guest", details=str(error)
        ) from error
    return asdict(config)


def parse_config(plain: object) -> GuestConfig:
    """The configuration that `to_plain` gave. Raises SupervisorError."""
    try:
        event = parse_event(json.dumps({"type": "go", "config": plain}).encode())
    except WireError as error:
        raise SupervisorError(
            "malformed guest configuration on the control socket", details=str(error)
        ) from error
    if not isinstance(event, Go):
        raise AssertionError("a go event is a Go")
    return event.config


def salvage_config(session: SessionContext) -> GuestConfig:
    """What a salvage container must know to find and name the work."""
    record = session.record
    return GuestConfig(
        session=record.id,
        branch=record.branch,
        identity=identity_of_author(record),
        base=record.base,
        launch_tree=launch_tree(session),
        first_start=False,
        message=message_of(record),
        deny=load_deny_list().patterns,
    )


def launch_tree(session: SessionContext) -> str:
    """The tree of the user's uncommitted work at launch, "" when there was none."""
    return session.relay.store.resolve(f"{WORKTREE_REF}^{{tree}}") or ""


def identity_of_author(record: SessionRecord) -> Identity:
    """Who commits are by and who commits them: the user of the repository, the agent, or both."""
    return Identity(record.author_name, record.author_email, record.committer_name, record.committer_email)


def message_of(record: SessionRecord) -> str:
    """What the commit says that saves uncommitted work."""
    return "\n\n".join(part for part in (record.message.rstrip(), "\n".join(record.trailers)) if part)
