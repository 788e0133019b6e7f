"""The user's own git credentials, asked of the host's git and its helpers, which may not ask the user in turn."""

from __future__ import annotations

from pathlib import Path

from coding_agents.brokers.credential.answer import MAX_ANSWER, AnswerError, Credential, parse_answer
from coding_agents.brokers.credential.request import CredentialRequest, fill_input
from coding_agents.config.environ import HostEnvironment
from coding_agents.errors import CredentialError
from coding_agents.proc.bounded import run_bounded
from coding_agents.proc.git import Profile, git_command
from coding_agents.proc.git_user import NO_REPOSITORY

FILL_S = 10.0
"""So long a helper may take: one that waits for longer waits for a person."""


def git_credential(
    env: HostEnvironment, request: CredentialRequest, *, user: str = "", timeout_s: float = FILL_S
) -> Credential:
    """The credential that the user's git has for `request`, of the account `user` if one is named. Blocks.

    Nothing is stored and nothing of a repository counts. Raises CredentialError, in whose text is no word of an answer.
    """
    # What git and helpers say of a failure is not repeated either: a helper's debug output may hold the token.
    outcome = run_bounded(
        git_command(
            ("credential", "fill"),
            profile=Profile.AS_USER,
            env=env.for_git() | _for_helpers(env),
            git_dir=NO_REPOSITORY,
            cwd=Path("/"),
            stdin=fill_input(request, user),
            timeout_s=timeout_s,
        ),
        most=MAX_ANSWER,
    )
    if outcome.timed_out:
        raise CredentialError(
            f"a credential helper of the host gave no whole answer for {request.url} within {timeout_s:g} s",
            hint="It may wait for you, locked or with a window: unlock it, then try again.",
        )
    if not outcome.ok:
        raise CredentialError(
            f"this host has no credential for {request.url} that needs no question",
            hint=f"On the host, log in there once: git ls-remote {request.url}",
        )
    try:
        return parse_answer(outcome.stdout, request, user)
    except AnswerError as error:
        raise CredentialError(
            f"{error}: {request.url}", hint="See what the host's `git credential fill` says for it."
        ) from None


def _for_helpers(env: HostEnvironment) -> dict[str, str]:
    """Where helpers find keyrings and agents that are open already; nothing by which they could open a window."""
    names = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "GNUPGHOME", "GH_CONFIG_DIR")
    return {name: env.environ[name] for name in names if name in env.environ}
