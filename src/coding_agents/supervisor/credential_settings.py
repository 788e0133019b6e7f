"""What git is told in a session about credentials: whom it asks. No part of it is a guard, and none a secret."""

from __future__ import annotations

from coding_agents.model.gitconfig import Section
from coding_agents.sandbox.guest import CONFIG_DIRECTORY
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.credentials_kept import read_given
from coding_agents.supervisor.guest_program import is_this_versions

_HELPER = "/usr/lib/coding-agents/git-credential"
AUTH_DIRECTORY = "auth"
"""Of the configuration volume: copies of the user's own files that hold logins."""


def credential_settings(session: SessionContext) -> tuple[Section, ...]:
    """The host is asked by path; and the user's own stored credentials, where the session was given them."""
    if not is_this_versions(session.env.data_dir, session.record.guest_digest):
        return ()
    helpers = [("helper", _HELPER)]
    if "git-credentials" in read_given(session.directory).files:
        stored = f"{CONFIG_DIRECTORY}/{AUTH_DIRECTORY}/git-credentials/.git-credentials"
        # Read-only: git's own helper would wait for a lock, and complain, with each login that worked.
        helpers.append(
            ("helper", f'!f() {{ test "$1" != get || git credential-store --file={stored} get; }}; f')
        )
    return (Section("credential", (*helpers, ("useHttpPath", "true"))),)
