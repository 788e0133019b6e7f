"""What git is told in a session, beside what the image says: one text, composed here of what each part wants, and a
second one for commits in the session's own repository.

It is for the agent's convenience. The agent may set its own git to anything else, and no guard depends on it: those
are on the host. So is what would be a secret: the text goes through the engine's command line.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable

from coding_agents.model.gitconfig import Section, render
from coding_agents.model.signing import LIVE
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.credential_settings import credential_settings
from coding_agents.supervisor.origin_kept import origin_sections
from coding_agents.workspace.dotgit import WORKSPACE
from coding_agents_guest.gitconfig import COMMITS, MAX_TEXT
from coding_agents_guest.paths import SOCKETS

_PROGRAMS = "/usr/lib/coding-agents"

Part = Callable[[SessionContext], tuple[Section, ...]]


def _include_commits(session: SessionContext) -> tuple[Section, ...]:
    """`commit_settings`, in the session's repository, its submodules and linked work trees.

    In others, such as those that tests of the project make, nobody expects names, trailers or signatures.
    """
    if not session.record.committer_name:
        return ()
    path = (("path", f"{SOCKETS}/{COMMITS}"),)
    return tuple(Section("includeIf", path, f"gitdir:{WORKSPACE}/.git{below}") for below in ("", "/"))


def commit_settings(session: SessionContext) -> str:
    """The text of COMMITS: who commits are by, who commits them, what stands at their end, and who signs them."""
    record = session.record
    if not record.committer_name:  # launched by a version that told them apart in nothing
        return ""
    sections = (
        Section("author", (("name", record.author_name), ("email", record.author_email))),
        Section("committer", (("name", record.committer_name), ("email", record.committer_email))),
        Section("coding-agents", tuple(("trailer", line) for line in record.trailers)),
    )
    if record.signing not in LIVE:
        return render(sections)
    key = f"key::{record.signing_key}" if record.signing_format == "ssh" else record.signing_key
    signed = (
        Section("user", (("signingKey", key),)),
        Section("commit", (("gpgSign", "true"),)),
        Section("gpg", (("format", record.signing_format), ("program", f"{_PROGRAMS}/sign-openpgp"))),
        Section("gpg", (("program", f"{_PROGRAMS}/sign-ssh"),), "ssh"),
    )
    return render((*sections, *signed))


_PARTS: tuple[Part, ...] = (origin_sections, credential_settings, _include_commits)
"""Each part's sections for a session; of a setting with one value git takes the last. None may raise."""


def git_settings(session: SessionContext) -> str:
    """The text of /run/coding-agents/gitconfig for a session's next channel."""
    return render(tuple(section for part in _PARTS for section in part(session)))


def git_config_option(session: SessionContext) -> tuple[str, ...]:
    """The bridge's options that carry the texts, packed: an argument has at most 128 KiB (execve(2)).

    None where there is no text: a session's program is as old as the session, and may not know the option.
    """
    return (
        *_packed("--git-config", git_settings(session)),
        *_packed("--git-commits", commit_settings(session)),
    )


def _packed(option: str, said: str) -> tuple[str, ...]:
    text = said.encode("utf-8", "surrogateescape")
    if not text:
        return ()
    if len(text) > MAX_TEXT:
        raise AssertionError(f"git's settings of a session are {len(text)} bytes long")
    return option, base64.b64encode(zlib.compress(text, 9)).decode("ascii")
