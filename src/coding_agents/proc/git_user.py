"""Git as the user: with their own configuration, credentials and helpers, for what a session has asked for.

The user does not look, so that nothing may ask them: no terminal, no askpass program, no window (a desktop's variables
are not passed on), ssh in batch mode. And what a session has caused reaches only what the host has chosen: a literal
address, whose rewriting (`url.*.insteadOf`) was done when it was chosen; no redirect is followed, no hook runs, and the
repository is one of ours or none. The user's own global and system configuration counts; no repository of theirs does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from coding_agents.errors import GitError
from coding_agents.proc.git import REMOTE_ENV, Profile, git_command, require_ok
from coding_agents.proc.limits import ProcessLimits
from coding_agents.proc.runner import Command, run

__all__ = ["NO_REPOSITORY", "REMOTE_ENV", "literal", "require_literal", "user_command"]

NO_REPOSITORY = Path("/dev/null")
"""As a git directory: git looks for no repository, wherever it is started (setup.c)."""

# A master connection of ssh that stays behind would hold our pipes open; and the agent of the user is theirs alone.
_SSH = "ssh -oBatchMode=yes -oControlMaster=no -oForwardAgent=no"


def user_command(
    args: Sequence[str],
    *,
    env: Mapping[str, str],
    git_dir: Path = NO_REPOSITORY,
    settings: Sequence[tuple[str, str]] = (),
    stdin: bytes | None = None,
    limits: ProcessLimits | None = None,
    timeout_s: float,
) -> Command:
    """`git ARGS` as the user whose environment is `env`, in our repository `git_dir` or in none; for `proc.bounded`.

    `settings` win over every file; they go by the environment, so that an address in them may hold a password. git is
    asked once how the user runs ssh, which takes some milliseconds.
    """
    added = {"GIT_CONFIG_COUNT": str(len(settings))} if settings else {}
    for number, (key, value) in enumerate(settings):
        added |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    if not _own_ssh(env):
        added["GIT_SSH_COMMAND"] = _SSH
    command = git_command(
        args, profile=Profile.AS_USER, env=env, git_dir=git_dir, cwd=Path("/"), stdin=stdin,
        env_extra=added, timeout_s=timeout_s,
    )  # fmt: skip
    return replace(command, limits=limits)


def literal(url: str) -> tuple[tuple[str, str], ...]:
    """Settings by which git takes `url` as it is: the longest rule of rewriting wins (git-config(1), url.*)."""
    return ((f"url.{url}.insteadOf", url), (f"url.{url}.pushInsteadOf", url))


def require_literal(url: str, *, env: Mapping[str, str], timeout_s: float = 10.0) -> None:
    """Raises GitError when git would reach another address than `url` all the same: a rule for exactly `url`."""
    command = user_command(
        ("ls-remote", "--get-url", url), env=env, settings=literal(url), timeout_s=timeout_s
    )
    answer = require_ok(run(command), "git ls-remote --get-url").text().removesuffix("\n")
    if answer != url:
        raise GitError(
            "your git rewrites the very address of this repository",
            hint="Remove the setting url.*.insteadOf that names exactly it, and set it as the remote's address.",
        )


def _own_ssh(env: Mapping[str, str]) -> bool:
    """Whether the user has chosen how ssh is run. Without a terminal that cannot ask them either."""
    if "GIT_SSH" in env or "GIT_SSH_COMMAND" in env:
        return True
    command = git_command(
        ("config", "--get", "core.sshCommand"),
        profile=Profile.AS_USER,
        env=env,
        git_dir=NO_REPOSITORY,
        cwd=Path("/"),
    )
    return run(command).ok
