"""`coding-agents approvals` over sessions whose pushes wait; what it hands on is in tests/e2e/test_origin.py."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from coding_agents.model.approval import Approval, Shown, Wanted, ask
from coding_agents.store.approvals import ApprovalStore
from coding_agents.store.sessions import SessionStore
from support.host import host_environment
from support.product import Product
from support.ptys import Terminal, on_terminal
from support.sessions import session_record

SHOWN = Shown("", 1, 1, 1, 0, (("b" * 40, "Ada", "Evil \x1b]0;x\x07 subject"),), ("work",), 0, 0, ())


@pytest.fixture
def product(tmp_path: Path) -> Product:
    return Product("docker", tmp_path)


def waits(home: Path, branch: str = "topic", **changes: Any) -> Approval:
    """A push that waits in the one session of this home."""
    store = SessionStore(host_environment(home).state_dir)
    record = session_record()
    if not store.directory(record.id).exists():
        store.create(record.id)
        store.save(record)
    wanted = Wanted(record.id, "https://a.example/x", f"refs/heads/{branch}", "", "b" * 40, False, "f" * 64)
    approval = ask(wanted, SHOWN, now_ms=time.time_ns() // 1_000_000).evolve(**changes)
    ApprovalStore(store.directory(record.id)).save(approval)
    return approval


def test_what_waits_is_listed_and_shown(product: Product) -> None:
    assert product.run("approvals", "list", "--json").json == []
    first, old = waits(product.home), waits(product.home, "old", expires_ms=1)
    done = waits(product.home, "done", state="pushed")
    listed = product.run("approvals", "list", "--json").json
    assert [one["id"] for one in listed] == [first.id]
    assert listed == [first.to_public("demo-shop-0123")]
    everything = product.run("approvals", "list", "-a", "--json").json
    assert {one["id"]: one["state"] for one in everything} == {
        first.id: "pending", old.id: "expired", done.id: "pushed",
    }  # fmt: skip
    assert first.id in product.run("approvals").out
    shown = product.run("approvals", "show", first.id[:6]).out
    assert "Evil \\x1b]0;x" in shown
    assert "\x1b" not in shown


def test_nothing_is_approved_without_a_terminal_or_y(product: Product) -> None:
    approval = waits(product.home)
    refused = product.run("approvals", "approve", approval.id, status=2)
    assert "no terminal to ask on" in refused.err
    assert product.run("approvals", "watch", status=2).out == ""
    for args in (("show", "ffff"), ("approve", "ffff", "-y"), ("deny", "ffff")):
        assert "was asked for" in product.run("approvals", *args, status=28).err
    other = waits(product.home, "other")
    start = next((n for n in range(10) if approval.id[:n] != other.id[:n]), 0) - 1
    assert "no push" in product.run("approvals", "show", "", status=28).err
    if start > 0:
        assert "Write more" in product.run("approvals", "show", approval.id[:start], status=28).err


def typed(terminal: Terminal, key: str, until: str) -> None:
    """Type a key by itself, again where it came too early."""
    for _ in range(30):
        terminal.read(0.3)
        terminal.types(key)
        with suppress(AssertionError):
            return terminal.sees(until, timeout_s=1)
    raise AssertionError(terminal.seen)


def test_keys_that_answer_nothing(product: Product) -> None:
    """What was typed before it is shown, and what comes at once as more than a key, decides nothing."""
    approval = waits(product.home)
    with on_terminal(product, "approvals", "watch") as terminal:
        terminal.types("aaaa")
        terminal.sees("a approve")
        terminal.types("\x1b[0na")
        typed(terminal, "s", "q leaves")
        terminal.types("q")
        assert terminal.ends() == 0
    with on_terminal(product, "approvals", "approve", approval.id) as terminal:
        terminal.types("y\n")
        terminal.sees("Push this to origin?")
        typed(terminal, "n\n", "nothing was decided")
        assert terminal.ends() == 0
    assert product.run("approvals", "list", "--json").json[0]["state"] == "pending"
