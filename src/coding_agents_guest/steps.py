"""The start sequence inside the container: a table of steps, each timed and reported.

Numbers and order are those of the specification (its startup sequence has eight steps). A number that is
missing here belongs to a part that does not exist yet: 4 git credentials, 6 MCP secrets. Step 5, MCP configuration,
is the host's: a read-only volume that is there before the container starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Callable

from coding_agents_guest.events import GuestConfig
from coding_agents_guest.gitwork import Git, GitFailedError
from coding_agents_guest.place import Place
from coding_agents_guest.records import dataclass
from coding_agents_guest.restamp import restamp

_TRAILERS = Path("/usr/lib/coding-agents/commit-trailers")


class StepError(Exception):
    """A step cannot be done; the message says why."""


@dataclass(frozen=True)
class Setup:
    """What a step works on."""

    config: GuestConfig
    place: Place
    git: Git


@dataclass(frozen=True)
class Step:
    """`act` does the step and returns what it adds to the environment of the agent. It raises StepError."""

    number: int
    name: str
    act: Callable[[Setup], Mapping[str, str]]

    def take(self, setup: Setup) -> Mapping[str, str]:
        """Do the step. Raises StepError for everything that can go wrong."""
        try:
            return self.act(setup)
        except (GitFailedError, OSError) as error:
            raise StepError(str(error)) from error


def _take_workspace(setup: Setup) -> Mapping[str, str]:
    """The host has filled the workspace; before the agent has ever run, it must be what was planned.

    From then on git knows its files by all that it looks at elsewhere.
    """
    if not setup.place.workspace.is_dir():
        raise StepError(f"{setup.place.workspace} is missing")
    if setup.config.first_start:
        setup.git.run("rev-parse", "--git-dir")
        head = setup.git.answer("rev-parse", "--verify", "--quiet", "HEAD")
        if head != setup.config.base:
            raise StepError(f"HEAD is at {head or 'no commit'} instead of {setup.config.base or 'no commit'}")
        restamp(setup.place.workspace)
    return {}


def _set_remotes(setup: Setup) -> Mapping[str, str]:
    """`local` is the host's relay and the default of every push; `origin` is only reached by name."""
    values = {
        "remote.local.url": setup.place.relay,
        "remote.local.fetch": "+refs/heads/*:refs/remotes/local/*",
        "remote.pushDefault": "local",
        "push.default": "current",
    }
    if setup.config.origin:
        values["remote.origin.url"] = setup.config.origin
        values["remote.origin.fetch"] = "+refs/heads/*:refs/remotes/origin/*"
    if setup.config.first_start:  # later the agent may have had reasons to change them
        for name, value in values.items():
            setup.git.run("config", "--local", "--replace-all", name, value)
    return {}


def _make_branch(setup: Setup) -> Mapping[str, str]:
    """Put HEAD on the session's branch without touching the work tree or the index; set who commits."""
    config, git = setup.config, setup.git
    if not config.first_start:
        return {}
    branch = f"refs/heads/{config.branch}"
    if config.base:
        git.run("update-ref", "-m", "coding-agents: session's branch", branch, config.base)
    git.run("symbolic-ref", "-m", "coding-agents: session's branch", "HEAD", branch)
    for name, value in (("user.name", config.identity.name), ("user.email", config.identity.email)):
        if value and not git.answer("config", "--get", name):
            git.run("config", "--global", name, value)  # for repositories that the agent makes inside, too
            git.run("config", "--local", name, value)  # some agents hide the global file from their commands
    _name_commits(git)
    return {}


def _name_commits(git: Git) -> None:
    """Give the repository the hook that new ones get from the image's template; one that is there stays."""
    if not _TRAILERS.exists():  # an image from before
        return
    hooks = Path(git.text("rev-parse", "--absolute-git-dir")) / "hooks"
    hooks.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        (hooks / "prepare-commit-msg").symlink_to(_TRAILERS)


def _install_dotnet(setup: Setup) -> Mapping[str, str]:
    """The .NET preview, if it was asked for. A later start uses what is there, without a network."""
    config, home = setup.config, setup.place.home
    if config.first_start and not config.dotnet_channel:
        return {}
    from coding_agents_guest.dotnet import DotnetError, install_dotnet, installed_dotnet  # with urllib: slow

    environment = {**setup.place.environment(), **config.env}
    try:
        if not config.first_start:
            return installed_dotnet(home, environment=environment)
        return install_dotnet(
            config.dotnet_channel, index_url=config.dotnet_index, home=home, environment=environment
        )
    except DotnetError as error:
        raise StepError(str(error)) from error


STEPS = (
    Step(1, "workspace", _take_workspace),
    Step(2, "remotes", _set_remotes),
    Step(3, "branch", _make_branch),
    Step(7, "dotnet-preview", _install_dotnet),
)
SESSION_STEP = "session"
"""The eighth and last step, which entrypoint.py takes: it starts what the others prepare."""
