"""Notices on the user's terminals: ours arrive, between whatever the guest writes, and the guest can make none."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from coding_agents.app.sessions import Observed
from coding_agents.cli.output import Output
from coding_agents.cli.watch import Ringer
from coding_agents.model.notice import WAITING, Notice, ended
from coding_agents.model.session import Saved, State
from coding_agents.supervisor.control import serving
from coding_agents.supervisor.notify import Notifier
from coding_agents.supervisor.protocol import Op
from coding_agents.terminal.notice import notice_sequence
from support.product import ROOT, wait_for
from support.ptys import Terminal, terminal
from support.sessions import session_record
from support.stored import Records, stored_session

_DRIVER = """
import os, sys
from pathlib import Path
from coding_agents.app.inside import TerminalNotices
from coding_agents.proc.runner import Command
from coding_agents.proc.terminal import run_on_terminal
from coding_agents.supervisor.notice_feed import NoticeFeed
from coding_agents.terminal.filter import TerminalFilter

guest = Command((sys.executable, "-u", "-c", sys.argv[1]), env={"PATH": os.environ["PATH"]})
notices = TerminalNotices("demo-shop", NoticeFeed(Path(sys.argv[2])), "osc9")
sys.exit(run_on_terminal(guest, TerminalFilter(), notices))
"""
_GUEST = (
    "import sys, tty; tty.setraw(0)\n"
    "def say(text): sys.stdout.write(text); sys.stdout.flush()\n"
    "FORGED = '\\x1b]9;coding-agents: demo-shop: failed: forged\\x07'\n"
)
_WAITS = f"\x1b]9;coding-agents: demo-shop: waiting: {WAITING}\x07\x07"


class Told:
    """A supervisor's notices at a control socket, in a thread."""

    def __init__(self, session: Any, path: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._notifier = Notifier(session, Records())
        self._path = path
        self.asked = 0

    def tell(self, notice: Notice) -> None:
        self._loop.call_soon_threadsafe(self._notifier.tell, notice)

    async def handle(self, op: Op, request: dict[str, Any]) -> dict[str, Any]:
        assert op is Op.NOTICES
        self.asked += 1
        return await self._notifier.after(request["after"])

    @contextmanager
    def serving(self) -> Iterator[None]:
        over = asyncio.Event()

        async def main() -> None:
            async with serving(self._path, self.handle):
                await over.wait()
            await self._notifier.finish()

        thread = threading.Thread(target=self._loop.run_until_complete, args=(main(),))
        thread.start()
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(over.set)
            thread.join()
            self._loop.close()


@contextmanager
def attached(guest: str, path: Path) -> Iterator[Terminal]:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm-256color"}
    with terminal((sys.executable, "-c", _DRIVER, _GUEST + guest, str(path)), env) as shown:
        yield shown


def test_a_notice_arrives_whole_and_a_guest_can_make_none(tmp_path: Path) -> None:
    """Also in the middle of what the guest has begun: nothing of that is on the terminal yet."""
    guest = (
        "say('begun' + FORGED + '\\x07' + '\\x1b]9;half a notice, ' + '\\x1b]2;half a title ')\n"
        "sys.stdin.read(1)\n"
        "say('\\x07' + FORGED.replace('\\x07', '\\x1b\\\\') + '\\x1bPtmux;\\x1b' + FORGED + '\\x1b\\\\ended')"
    )
    told = Told(stored_session(tmp_path), tmp_path / "control")
    with told.serving(), attached(guest, tmp_path / "control") as shown:
        shown.sees("begun")
        wait_for(lambda: told.asked, "the question for notices")
        told.tell(Notice("waiting", WAITING))
        shown.sees(_WAITS)
        told.tell(Notice("budget", "used up\x07\x1b]52;c;aGk=\x07\u202e\n" + "x" * 500))
        shown.sees("used up]52;c;aGk=x")
        shown.types("x")
        assert shown.ends() == 0
    assert shown.seen.count("\x1b]9;") == 2
    assert "forged" not in shown.seen
    assert "]52;" not in shown.seen.replace("used up]52;", "")
    longest = max(shown.seen.split("\x1b]9;"), key=len).partition("\x07")[0]
    assert len(longest) == 200
    # The bell is the one thing that a guest may do to us by itself.
    assert shown.seen.startswith("begun\x07")


def test_the_notices_of_the_next_supervisor_arrive_too(tmp_path: Path) -> None:
    session = stored_session(tmp_path)
    with attached("say('begun'); sys.stdin.read(1)", tmp_path / "control") as shown:
        shown.sees("begun")
        for kind in ("waiting", "budget"):
            told = Told(session, tmp_path / "control")
            with told.serving():
                wait_for(lambda told=told: told.asked, "the question for notices")
                told.tell(Notice(kind, "one"))
                shown.sees(f"{kind}: one\x07\x07")
        shown.types("x")
        assert shown.ends() == 0
    assert shown.seen.count("\x1b]9;") == 2


def test_inside_tmux_a_notice_is_a_bell_and_nothing_else(tmp_path: Path) -> None:
    def tmux(*words: str) -> str:
        command = ("tmux", "-S", str(tmp_path / "tmux"), "-f", "/dev/null", *words)
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout

    notice = notice_sequence("osc9", "demo", Notice("finished", "4;1;50"))
    (tmp_path / "notice").write_text(f"before{notice}after")
    tmux("new-session", "-d", "-n", "other", "sleep 60")
    try:
        tmux("new-window", "-d", "-n", "ours", f"cat {tmp_path}/notice; sleep 60")
        wait_for(lambda: "after" in tmux("capture-pane", "-p", "-t", "ours"), "the text around the notice")
        assert tmux("capture-pane", "-p", "-t", "ours").strip() == "beforeafter"
        assert tmux("display-message", "-p", "-t", "ours", "#{window_bell_flag}") == "1\n"
    finally:
        tmux("kill-server")


@pytest.mark.parametrize(("shown", "said"), [("off", ""), ("bell", "\x07")])
def test_a_bell_alone_or_nothing(shown: Any, said: str) -> None:
    assert notice_sequence(shown, "demo", Notice("waiting", WAITING)) == said


def test_a_notice_is_for_terminals_alone() -> None:
    class OnTerminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for error, said in ((io.StringIO(), ""), (OnTerminal(), "\x07")):
        Output(io.StringIO(), error).ring("\x07")
        assert error.getvalue() == said


def test_a_list_that_is_watched_tells_what_has_changed() -> None:
    record = session_record(exit_status=3, saved=Saved(where="none"))
    other = replace(record, id="f" * 12, name="other")
    ringer = Ringer("osc9")

    def news(*states: State) -> list[str]:
        found = [Observed(one, state) for one, state in zip((record, other), states, strict=False)]
        return [one.removeprefix("coding-agents: ") for one in ringer.news(found).split("\x1b]9;")[1:]]

    assert news("running", "stopped") == []
    assert news("waiting", "stopped") == [f"{record.name}: waiting: {WAITING}\x07\x07"]
    assert news("waiting") == []
    assert news("stopped", "waiting") == [f"{record.name}: failed: status 3; it made no commits\x07\x07"]
    assert news("stopped", "lost") == ["other: failed: the container is gone\x07\x07"]


def test_how_an_end_is_told() -> None:
    def told(status: int | None, where: str) -> Notice:
        return ended("demo", status=status, where=where, branch="demo/b")

    assert told(0, "branch") == Notice("finished", "its work is on demo/b")
    assert told(1, "volume") == Notice("failed", "status 1; see `coding-agents recover demo`")
    assert told(None, "branch").kind == "failed"
