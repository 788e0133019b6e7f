"""A running session from outside: told what to do next, seen to wait, watched, and its user notified."""

from __future__ import annotations

import os
import pty
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from model_stub.server import serving
from support.product import Product, wait_for

pytestmark = [pytest.mark.engine, pytest.mark.alike]


def test_what_is_told_arrives_as_typed(product: Product, repo: Path) -> None:
    product.launch(repo, "-d", "--name", "ear")
    product.exec("demo-ear", "tmux new-window -t agent 'cat > /tmp/told'; tmux select-window -t agent:1")
    product.run("tell", "demo-ear", "first; line $(id)\nsecond 'line'")
    typed = "first; line $(id)\nsecond 'line'\n"
    wait_for(lambda: product.exec("demo-ear", "cat /tmp/told").out == typed, "what was told, as typed")
    told = [one for one in product.audit("demo-ear") if one["type"] == "told"]
    assert [one["detail"] for one in told] == [{"characters": "31"}]


def test_control_characters_and_sessions_without_a_terminal_are_refused(product: Product, repo: Path) -> None:
    name = product.launch_detached(repo, "sleep 60")
    assert "has no terminal" in product.run("tell", name, "x", status=19).err
    assert "control character" in product.run("tell", name, "a\x1b[201~b", status=2).err
    assert "nothing to tell" in product.run("tell", name, "  ", status=2).err


def test_a_session_that_waits_is_seen_and_its_user_notified(product: Product, repo: Path) -> None:
    note = product.home / "notices"
    with serving("hello") as model:
        product.extra |= {
            "CODING_AGENTS_MODEL_UPSTREAM": model.url,
        }
        program = product.home / "note"
        program.write_text(f'#!/bin/sh\necho "$1 $2" >> {note}\n')
        program.chmod(0o755)
        product.extra["CODING_AGENTS_NOTIFY_COMMAND"] = str(program)
        args = ("--agent", "claude", "--network-proxy", "restricted", "-d", "--name", "wait")
        product.run("launch", str(repo), *args)
        name = "claude-wait"
        wait_for(lambda: "bypass" in product.screen(name), "the agent's screen")
        assert product.state(name) == "running"
        product.run("tell", name, "say hello")
        wait_for(lambda: product.state(name) == "waiting", "the state waiting")
        wait_for(lambda: "Hello from the scripted model." in product.screen(name), "the answer on the screen")
        wait_for(lambda: note.exists() and note.read_text() == f"waiting {name}\n", "the notice")
        shown = watched(product)
        assert re.search(rf"{name} +waiting +\d+[smh] +claude/\S+ +restricted +\d+", shown)
        product.run("stop", name)
        wait_for(
            lambda: f"{name}\n" in note.read_text().removeprefix(f"waiting {name}\n"), "the notice of the end"
        )


def watched(product: Product) -> str:
    """What `list --watch` shows on a terminal, ended by Ctrl-C."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(product.home)
        os.execve(sys.executable, (sys.executable, "-m", "coding_agents", "list", "--watch"), product.env)
    seen = b""
    deadline = time.monotonic() + 30
    while b"NAME" not in seen and time.monotonic() < deadline:
        seen += os.read(terminal, 65536)
    time.sleep(0.3)
    seen += os.read(terminal, 65536) if b"claude" not in seen else b""
    os.kill(pid, signal.SIGINT)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130
    return seen.decode()
