"""What git is told in a session, beside what the image says: one text, composed here of what each part wants.

It is for the agent's convenience. The agent may set its own git to anything else, and no guard depends on it: those
are on the host. So is what would be a secret: the text goes through the engine's command line.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable

from coding_agents.model.gitconfig import Section, render
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.credential_settings import credential_settings
from coding_agents_guest.gitconfig import MAX_TEXT

Part = Callable[[SessionContext], tuple[Section, ...]]

_PARTS: tuple[Part, ...] = (credential_settings,)
"""Each part's sections for a session; of a setting with one value git takes the last. None may raise."""


def git_settings(session: SessionContext) -> str:
    """The text of /run/coding-agents/gitconfig for a session's next channel."""
    return render(tuple(section for part in _PARTS for section in part(session)))


def git_config_option(session: SessionContext) -> tuple[str, ...]:
    """The bridge's option that carries the text, packed: an argument has at most 128 KiB (execve(2)).

    None where there is no text: a session's program is as old as the session, and may not know the option.
    """
    text = git_settings(session).encode("utf-8", "surrogateescape")
    if not text:
        return ()
    if len(text) > MAX_TEXT:
        raise AssertionError(f"git's settings of a session are {len(text)} bytes long")
    return "--git-config", base64.b64encode(zlib.compress(text, 9)).decode("ascii")
