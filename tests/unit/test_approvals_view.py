"""A push as a person sees it, and the keys that answer it: hostile text stays text."""

from __future__ import annotations

import os
import pty
from pathlib import Path
from typing import Any

import msgspec

from coding_agents.app.approvals import Asked
from coding_agents.cli.approvals_view import lines
from coding_agents.model.approval import Shown, Wanted, ask
from coding_agents.store.sessions import SessionStore
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.merge_request import gh_command, push_options
from coding_agents.terminal.keys import discard_typed, single_keys
from support.host import host_environment
from support.sessions import session_record

EVIL = "x\x1b]52;c;eA==\x07\u202e\r\npush     approved"
WANTED = Wanted("s", "https://a.example/x", "refs/heads/topic", "a" * 40, "b" * 40, True, "f", True, "main")
SHOWN = Shown(
    "a" * 40, 90, 90, 1, 0, ((f"b{EVIL}", EVIL, EVIL),), (EVIL,), 90, 1, (("block", "ci", EVIL, EVIL),)
)  # fmt: skip


def asked(tmp_path: Path, **changes: Any) -> Asked:
    env = host_environment(tmp_path)
    approval = ask(WANTED, SHOWN, now_ms=1).evolve(reason=EVIL, said=EVIL, **changes)
    return Asked(SessionContext(env, SessionStore(env.state_dir), session_record()), approval)


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    shown = list(lines(asked(tmp_path)))
    text = "\n".join(shown)
    assert text.replace("\n", "").isprintable()
    assert "\\x1b]52" in text
    assert "FORCE    it replaces commits" in text
    assert "a request is opened into main" in text
    assert "and 89 more commit(s)" in text
    assert (
        sum(line.startswith("push     approved") for line in text.splitlines()) <= 1
    )  # of `said`, behind `origin:`


def test_what_comes_as_more_than_one_byte_is_no_key() -> None:
    outer, inner = pty.openpty()
    try:
        with single_keys(inner) as keys:
            for sent, expected in (
                (b"a", "a"), (b"\x1b[0n", ""), (b"aa", ""), (b"\x1b]11;rgb:0/0/0\x1b\\", ""), (b"\xc3\xa4", ""),
            ):  # fmt: skip
                os.write(outer, sent)
                assert keys.get(5) == expected
            assert keys.get(0.01) == ""
            os.write(outer, b"a")
            keys.discard()
            assert keys.get(0.05) == ""
        discard_typed(os.open("/dev/null", os.O_RDONLY))
    finally:
        os.close(outer)
        os.close(inner)


def test_gh_is_given_words(tmp_path: Path) -> None:
    wanted = msgspec.structs.replace(WANTED, url="git@github.com:team/app.git", target="--web")
    shown = msgspec.structs.replace(SHOWN, commits=(("b", "Ada", "--repo=evil/x \x1b[0m"),))
    approval = asked(tmp_path).approval.evolve(wanted=wanted, shown=shown)
    command = gh_command(approval, "demo-x", env={"PATH": "/bin", "GH_TOKEN": "t", "AWS_SECRET": "s"})
    assert command is not None
    assert command.argv[:3] == ("gh", "pr", "create")
    assert command.argv[3:6] == ("--repo=github.com/team/app", "--head=topic", "--base=--web")
    assert command.argv[6] == "--title=--repo=evil/x \\x1b[0m"
    assert all(word.startswith("--") for word in command.argv[3:])
    assert set(command.env) >= {"PATH", "GH_TOKEN", "GH_PROMPT_DISABLED"}
    assert "AWS_SECRET" not in command.env
    assert push_options(wanted) == ()


def test_elsewhere_the_push_itself_asks() -> None:
    assert push_options(WANTED) == ("merge_request.create", "merge_request.target=main")
    assert push_options(msgspec.structs.replace(WANTED, merge_request=False)) == ()
    for url in ("https://notgithub.example/t/a", "https://a.example/github.com/x", "/srv/github.com/t/a"):
        assert push_options(msgspec.structs.replace(WANTED, url=url)) != ()
