"""`agents list|show|check`, with our manifests and with a user's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.product import ROOT

MINE = """
name = "mine"
title = "Mine"
[command]
interactive = ["mine"]
"""


def agents(home: Path, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {"HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src"), **environ}
    command = (sys.executable, "-m", "coding_agents", "agents", *args)
    return subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, check=False)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / ".config/coding-agents/agents/mine.toml"
    path.parent.mkdir(parents=True)
    path.write_text(MINE)
    return path


def test_all_agents_are_listed_with_version_and_login(tmp_path: Path, mine: Path) -> None:
    done = agents(tmp_path, "list", "--json", ANTHROPIC_API_KEY="sk-secret-of-the-host")
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert set(found) == {"claude", "codex", "copilot", "demo", "gemini", "opencode", "mine"}
    assert found["claude"]["versions"] == {"@anthropic-ai/claude-code-linux-*": "2.1.330"}
    assert found["claude"]["login"] == "API key from ANTHROPIC_API_KEY"
    assert found["codex"]["login"] == "no login: run `coding-agents login codex`"
    assert found["mine"] == {
        "name": "mine", "title": "Mine", "versions": {}, "model": "", "login": "", "pinned": "", "age": "",
        "stale_days": 0,
        "manifest": str(mine), "problem": "",
    }  # fmt: skip
    assert "sk-secret" not in done.stdout + agents(tmp_path, "list", ANTHROPIC_API_KEY="sk-secret").stdout


def test_a_manifest_is_shown_and_makes_nothing_of_a_terminal(tmp_path: Path, mine: Path) -> None:
    assert (
        json.loads(agents(tmp_path, "show", "codex", "--json").stdout)["command"]["interactive"][0] == "codex"
    )
    mine.write_text(MINE + "# \u202e\n")
    shown = agents(tmp_path, "show", "mine")
    assert shown.stderr == f"{mine}:\n"
    assert "\\u202e" in shown.stdout
    assert 'title = "Mine"' in shown.stdout
    assert agents(tmp_path, "show", "none").returncode == 21


def test_what_is_wrong_with_one_manifest_hides_no_other(tmp_path: Path, mine: Path) -> None:
    assert agents(tmp_path, "check").returncode == 0
    mine.write_text(MINE.replace("interactive", "interactiv"))
    done = agents(tmp_path, "check")
    assert done.returncode == 21
    assert f"fail  mine: {mine}: object contains unknown field `interactiv`" in done.stdout
    assert "Did you mean 'interactive'?" in done.stdout
    assert done.stdout.count("ok    ") == 6
    assert agents(tmp_path, "check", "claude").stdout == "ok    claude\n"
    mine.write_text(MINE + '[packages.x]\npackage = "x"\nversion = "1"\nintegrity = {}\n')
    assert "integrity is empty" in agents(tmp_path, "check", "mine").stdout
