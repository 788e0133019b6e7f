"""Completions as a shell gets them: the script is sourced, the real program answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coding_agents.store.sessions import SessionStore
from support.sessions import session_record

_SESSIONS = ("demo-shop-main", "demo-shop-session-1", "claude-app-x")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    store = SessionStore(tmp_path / ".local/state/coding-agents")
    for number, name in enumerate(_SESSIONS):
        session = f"{number:012x}"
        store.create(session)
        store.save(session_record(session, name=name))
    (store.create("dddddddddddd") / "session.json").write_text("{")
    program = tmp_path / "bin/coding-agents"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={os.pathsep.join(sys.path)} exec {sys.executable} -m coding_agents "$@"\n'
    )
    program.chmod(0o755)
    return tmp_path


def _run(home: Path, *argv: str, **environ: str) -> str:
    done = subprocess.run(
        argv,
        env={"PATH": f"{home / 'bin'}:{os.defpath}", "HOME": str(home), **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def _bash(home: Path, *words: str) -> list[str]:
    """What bash offers for the last of `words`, with the script sourced as our help says."""
    script = (
        'eval "$(coding-agents completions bash)"\n'
        f"COMP_WORDS=(coding-agents {' '.join(words)}); COMP_CWORD={len(words)}\n"
        "_coding_agents_completion coding-agents\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    return _run(home, "bash", "--norc", "-c", script).split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["connect", "demo"], ["demo-shop-main", "demo-shop-session-1"]),
        (["remove", "--force", "d"], ["demo-shop-main", "demo-shop-session-1", "dddddddddddd"]),
        (["audit", "verify", "--session", "cl"], ["claude-app-x"]),
        (["launch", "--agent", "de"], ["demo"]),
        (["launch", "--network-proxy", "r"], ["restricted"]),
        (["images", "build", "--engine", "p"], ["podman"]),
        (["config", "set", "network.m"], ["network.mode"]),
        (["rec"], ["recover"]),
    ],
)
def test_bash_offers(words: list[str], offered: list[str], home: Path) -> None:
    assert _bash(home, *words) == offered


@pytest.mark.parametrize(("shell", "first"), [("zsh", "plain"), ("fish", "plain,demo-shop-main")])
def test_the_other_shells_are_answered(shell: str, first: str, home: Path) -> None:
    """Their scripts ask in this way; the shells themselves may not be installed."""
    words = "coding-agents stop demo-shop-m"
    asked = {"COMP_WORDS": words, "COMP_CWORD": "2" if shell == "zsh" else "demo-shop-m"}
    out = _run(home, "coding-agents", _CODING_AGENTS_COMPLETE=f"{shell}_complete", **asked)
    assert out.splitlines()[0] == first
    assert "demo-shop-main" in out
    assert "claude" not in out


def test_a_state_that_cannot_be_read_offers_nothing(home: Path) -> None:
    sessions = home / ".local/state/coding-agents/sessions"
    sessions.rename(home / "elsewhere")
    sessions.write_text("")
    assert _bash(home, "connect", "demo") == []
    agents = home / ".config/coding-agents/agents"
    agents.mkdir(parents=True)
    (agents / "x.toml").write_text("= =")
    assert _bash(home, "launch", "--agent", "de") == []
