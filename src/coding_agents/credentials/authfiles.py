"""The user's own configurations that hold logins, for those who want sessions to have them all the same.

Each is a name in the setting `credentials.files`. It is copied as it is at each start; where it lies inside, the agent
can read it, take it away, and use it like its owner.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from coding_agents.config.environ import HostEnvironment
from coding_agents.credentials.private import MAX_FILE, read_private
from coding_agents.errors import CredentialError
from coding_agents.model.masked import Masked

# By name: where a file lies inside, below the home directory, and where it may lie on the host (the first that is
# there); `@` is the directory of configurations, else it is below the user's home.
_FILES: Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]] = MappingProxyType(
    {
        "claude": ((".claude/.credentials.json", (".claude/.credentials.json",)),),
        "codex": ((".codex/auth.json", (".codex/auth.json",)),),
        "gh": (
            (".config/gh/hosts.yml", ("@gh/hosts.yml",)),
            (".config/gh/config.yml", ("@gh/config.yml",)),
        ),
        "git-credentials": ((".git-credentials", (".git-credentials", "@git/credentials")),),
        "gitconfig": ((".gitconfig", (".gitconfig", "@git/config")),),
        "github-copilot": (
            (".config/github-copilot/apps.json", ("@github-copilot/apps.json",)),
            (".config/github-copilot/hosts.json", ("@github-copilot/hosts.json",)),
        ),
        "mcp-secrets.env": ((".mcp-secrets.env", ("@coding-agents/mcp-secrets.env",)),),
    }
)
_OPEN_TO_OTHERS = frozenset({"gitconfig"})  # by its nature: most are readable by all


class AuthFile(Masked, frozen=True):
    """One file: the name that it was asked for by, where it lies inside, below the home directory, and its content."""

    MASKED = frozenset({"content"})

    name: str
    inside: str
    content: bytes


def read_auth_files(env: HostEnvironment, names: Iterable[str]) -> tuple[AuthFile, ...]:
    """The files of `names` that this host has. Raises CredentialError for one that others can read or replace."""
    return tuple(
        AuthFile(name, inside, content)
        for name in names
        for inside, places in _FILES[name]
        if (content := _first(env, name, places)) is not None
    )


def places_inside(name: str) -> tuple[str, ...]:
    """Where the files of `name` lie inside, when they are there."""
    return tuple(inside for inside, _ in _FILES[name])


def _first(env: HostEnvironment, name: str, places: Iterable[str]) -> bytes | None:
    for place in places:
        path = env.config_home / place[1:] if place.startswith("@") else env.home / place
        try:
            return _plain(path) if name in _OPEN_TO_OTHERS else read_private(path, home=env.home, follow=True)
        except (FileNotFoundError, NotADirectoryError):
            continue
    return None


def _plain(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise FileNotFoundError(path)
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CredentialError(
            f"cannot read {path}: {(error.strerror or str(error)).lower()}", hint=f"Check the mode of {path}."
        ) from error
    if len(content) > MAX_FILE:
        raise CredentialError(
            f"{path} is larger than {MAX_FILE >> 20} MiB", hint="Leave it out of credentials.files."
        )
    return content
