"""What an approval of a push binds, and when it is void."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from coding_agents.model.approval import (
    VALID_MS,
    Shown,
    Wanted,
    ask,
    decode_approval,
    encode_approval,
    is_approval_id,
    why_void,
)
from coding_agents.store.approvals import ApprovalStore

WANTED = Wanted("s" * 12, "https://a.example/x", "refs/heads/topic", "a" * 40, "b" * 40, False, "f" * 64)
SHOWN = Shown("a" * 40, 1, 1, 1, 0, (("b" * 40, "Ada", "Do"),), ("x",), 0, 0, ())
NOW = 10**12
APPROVAL = ask(WANTED, SHOWN, now_ms=NOW)
OTHERWISE: dict[str, Any] = {
    "session": "t" * 12, "url": "https://b.example/x", "ref": "refs/heads/main", "old": "", "new": "c" * 40,
    "force": True, "findings": "0" * 64, "merge_request": True, "target": "develop",
}  # fmt: skip


@pytest.mark.parametrize("name", Wanted.__struct_fields__)
def test_everything_that_is_shown_is_bound(name: str) -> None:
    other = msgspec.structs.replace(WANTED, **{name: OTHERWISE[name]})
    assert other.digest(1) != WANTED.digest(1)
    assert other.id != WANTED.id
    changed = APPROVAL.evolve(wanted=other)
    assert "changed on the disk" in why_void(changed, now_ms=NOW, binding=APPROVAL.binding)


def test_no_two_fields_pass_for_each_other() -> None:
    one = msgspec.structs.replace(WANTED, old="ab", new="c")
    assert one.digest(1) != msgspec.structs.replace(WANTED, old="a", new="bc").digest(1)


def test_the_expiry_is_bound_and_the_id_is_the_same() -> None:
    later = ask(WANTED, SHOWN, now_ms=NOW + 1)
    assert later.id == APPROVAL.id
    assert later.binding != APPROVAL.binding
    assert "not what you were shown" in why_void(later, now_ms=NOW, binding=APPROVAL.binding)
    longer = APPROVAL.evolve(expires_ms=APPROVAL.expires_ms + 1)
    assert "changed on the disk" in why_void(longer, now_ms=NOW, binding=APPROVAL.binding)


@pytest.mark.parametrize(
    ("now", "void"), [(0, False), (VALID_MS - 1, False), (VALID_MS, True), (-59_000, False), (-61_000, True)]
)
def test_it_holds_for_a_day(now: int, void: bool) -> None:
    assert bool(why_void(APPROVAL, now_ms=NOW + now, binding=APPROVAL.binding)) == void


@pytest.mark.parametrize("state", ["approved", "pushed", "denied", "failed", "expired", "superseded"])
def test_it_is_decided_once(state: Any) -> None:
    assert state in why_void(APPROVAL.evolve(state=state), now_ms=NOW, binding=APPROVAL.binding)


def test_its_file_is_read_strictly(tmp_path: Path) -> None:
    store = ApprovalStore(tmp_path)
    store.save(APPROVAL)
    assert store.find(APPROVAL.id) == APPROVAL == decode_approval(encode_approval(APPROVAL))
    path = tmp_path / "approvals" / f"{APPROVAL.id}.json"
    for content in (b"", b"{}", b"[]", encode_approval(APPROVAL).replace(b'"v"', b'"w"'), b"\xff" * 10):
        path.write_bytes(content)
        assert store.find(APPROVAL.id) is None
        assert store.list() == []
    path.write_bytes(encode_approval(APPROVAL.evolve(wanted=msgspec.structs.replace(WANTED, force=True))))
    assert store.find(APPROVAL.id) is None  # its name is not its id
    for text in ("", "../x", "ABCDEF0123", f"{APPROVAL.id}\n", f"{APPROVAL.id}0"):
        assert not is_approval_id(text)
        assert store.find(text) is None


def test_those_that_are_decided_are_not_kept_for_ever(tmp_path: Path) -> None:
    store = ApprovalStore(tmp_path)
    for number in range(53):
        wanted = msgspec.structs.replace(WANTED, new=f"{number:040x}")
        approval = ask(wanted, SHOWN, now_ms=NOW + number)
        store.save(approval if number == 0 else approval.evolve(state="pushed"))
    kept = store.list()
    assert len(kept) == 51
    assert kept[0].state == "pending"
