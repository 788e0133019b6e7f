"""What of the user's own credentials a session was given: what verbs keep of it, and the supervisor reads.

Apart from what serves them, so that a launch loads no asyncio. What counts is what was given *and* is in the settings
still: the banner has told of it, and what is taken back is taken back at once.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec

from coding_agents.errors import StoreError
from coding_agents.model.release import GIVEN_FILE, Given
from coding_agents.model.settings import Settings
from coding_agents.store.files import read_record, write_atomic
from coding_agents_guest.paths import SOCKETS

_TOKEN_FILE = "credential-token"  # noqa: S105 - a name
_TOKEN_PREFIX = "coding-agents-session-"  # noqa: S105 - it tells whoever finds one what it is


def settings_given(settings: Settings) -> Given:
    """What the settings give to sessions."""
    return Given(settings.credentials_release, settings.credentials_ssh_agent, settings.credentials_files)


def write_given(directory: Path, given: Given) -> None:
    """Keep in a session's directory what it was given. Raises StoreError."""
    path = directory / GIVEN_FILE
    if given or path.exists():
        write_atomic(path, msgspec.json.format(msgspec.json.encode(given), indent=2) + b"\n")


def read_given(directory: Path) -> Given:
    """What a session was given; nothing where there is no whole list."""
    try:
        return msgspec.json.decode(read_record(directory / GIVEN_FILE), type=Given)
    except (OSError, ValueError, StoreError):
        return Given()


def agent_environment(directory: Path) -> dict[str, str]:
    """The variable that leads programs inside to the user's ssh-agent, where the session was given a key of it."""
    return {"SSH_AUTH_SOCK": str(SOCKETS / "ssh-agent.sock")} if read_given(directory).ssh_agent else {}


def still_given(directory: Path, settings: Settings) -> Given:
    """What of it the settings name still."""
    given, now = read_given(directory), settings_given(settings)
    return Given(
        tuple(one for one in given.release if one in now.release),
        tuple(one for one in given.ssh_agent if one in now.ssh_agent),
        tuple(one for one in given.files if one in now.files),
    )


def session_token(directory: Path) -> str:
    """The session's own token, made when it is asked for first. Raises StoreError."""
    path = directory / _TOKEN_FILE
    try:
        token = read_record(path).decode("ascii", "replace").strip()
    except FileNotFoundError:
        token = ""
    if not token.startswith(_TOKEN_PREFIX):
        token = _TOKEN_PREFIX + secrets.token_hex(24)
        write_atomic(path, f"{token}\n".encode())
    return token
