"""Loading our AppArmor profiles, which only root can do: what is to be run, shown first, and then run.

The programs are the system's own, by their full paths: nothing of a user's PATH is run as root.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

import msgspec

from coding_agents.config.environ import HostEnvironment
from coding_agents.engine.api import EngineInfo
from coding_agents.engine.apparmor import can_confine, kernel_has_apparmor, profiles_loaded
from coding_agents.errors import EnforcementError, ProgramNotFoundError
from coding_agents.proc import runner
from coding_agents.proc.runner import Command
from coding_agents.sandbox.apparmor import installed_path, text

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_ENV = {"PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8"}


class Loading(msgspec.Struct, frozen=True):
    """What loads the profiles: `commands` in their order, the first of which is given the profiles to write."""

    path: str
    commands: tuple[Command, ...]

    def shown(self) -> tuple[str, ...]:
        """A line for each command, as it is run."""
        return tuple(
            f"{command.shown()}{' < our profiles' if command.stdin else ''}" for command in self.commands
        )


def nothing_to_load(info: EngineInfo | None) -> str:
    """Why there is nothing to load on this host for this engine (None: none answers), or ""."""
    if not kernel_has_apparmor():
        return "the kernel of this host has no AppArmor: there is nothing to load"
    if info is None:
        return ""
    if not info.is_local:
        return f"the engine runs on {info.machine[0] or 'another machine'}: load the profiles there"
    if not can_confine(info):
        return f"{info.title} does not use AppArmor here (a rootless engine cannot): nothing would change"
    return "the profiles are loaded already" if profiles_loaded(info) else ""


def plan_loading(env: HostEnvironment, *, path: str = SYSTEM_PATH) -> Loading:
    """The commands that write our profiles to where a boot finds them, and load them; nothing is run yet.

    Raises ProgramNotFoundError, and EnforcementError when the parser of this host does not understand them.
    """
    parser, tee = _program("apparmor_parser", path), _program("tee", path)
    content = text().encode("ascii")
    checked = runner.run(Command((parser, "-Q", "-K"), env=_ENV, stdin=content))
    if not checked.ok:
        raise EnforcementError(
            "this host's apparmor_parser does not understand our profiles",
            details=checked.describe(),
            hint="They are written for AppArmor 3 or later.",
        )
    prefix = () if env.uid == 0 else (_program("sudo", path), "-n", "--")
    target = installed_path()
    return Loading(
        target,
        (
            Command((*prefix, tee, target), env=_ENV, stdin=content),
            Command((*prefix, parser, "-r", "-W", target), env=_ENV),
        ),
    )


def load(loading: Loading, *, say: Callable[[str], None], again: str) -> None:
    """Run the commands. Raises EnforcementError naming the one that failed; `again` runs all this as root."""
    for command in loading.commands:
        outcome = runner.run(command)
        if not outcome.ok:
            wants_password = command.argv[1:2] == ("-n",) and b"password" in outcome.stderr
            raise EnforcementError(
                "sudo asks for a password, which it cannot do from here"
                if wants_password
                else "the AppArmor profiles are not loaded",
                details=outcome.describe(),
                hint=f"As root: {again}" if wants_password else f"See what it says; {loading.path} may stay.",
            )
        say(f"done: {command.shown()}")


def _program(name: str, path: str) -> str:
    found = shutil.which(name, path=path)
    if found is None:
        hints = {
            "apparmor_parser": "Install the package apparmor.",
            "sudo": "Run `coding-agents doctor --fix` as root.",
        }
        raise ProgramNotFoundError(f"{name} is not installed", hint=hints.get(name, ""))
    return found
