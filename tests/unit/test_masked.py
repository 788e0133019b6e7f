"""What a traceback shows of our values holds no secret."""

from __future__ import annotations

from pathlib import Path

from coding_agents.images.build import BuildSettings
from coding_agents.proc.runner import Command, Outcome

_SECRET = "s3cr3t"


def test_a_command_shows_neither_its_environment_nor_its_input() -> None:
    shown = repr(Command(("git", "push"), env={"TOKEN": _SECRET}, stdin=_SECRET.encode()))
    assert _SECRET not in shown
    assert shown.startswith("Command(argv=('git', 'push'), ")


def test_an_outcome_shows_no_output() -> None:
    assert _SECRET not in repr(Outcome(("git",), 1, _SECRET.encode(), _SECRET.encode(), 0.1))


def test_build_settings_do_not_show_the_users_environment() -> None:
    assert _SECRET not in repr(BuildSettings(Path("/x"), {"HTTPS_PROXY": _SECRET}, print))
