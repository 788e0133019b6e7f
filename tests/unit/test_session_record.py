"""The record of a session that an earlier version wrote is read by this one, whole: an upgrade loses no session.

The file below tests/unit/data/store is as that version wrote it, and is never written anew. A change of the record that
breaks this needs a reader of the old layout (`v`), or a default for what is new.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coding_agents.model.refs import Oid
from coding_agents.model.session import VERSION, SessionRecord, decode_session, encode_session, to_public
from coding_agents.store.sessions import SessionStore
from coding_agents.supervisor.context import branch_of, facts_of, identity_of, plan_input_of

GOLDEN = Path(__file__).with_name("data") / "store" / "session-0.1.json"


@pytest.fixture
def written() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(GOLDEN.read_bytes())
    return table


def _within(old: object, new: object) -> bool:
    """Whether `new` has all that `old` has; a table may have more."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(key in new and _within(value, new[key]) for key, value in old.items())
    return old == new


def test_a_record_of_0_1_is_read_whole(written: dict[str, Any]) -> None:
    record = decode_session(GOLDEN.read_bytes())
    assert _within(written, json.loads(encode_session(record)))
    assert decode_session(encode_session(record)) == record


def test_every_field_of_0_1_has_a_value_of_its_own(written: dict[str, Any]) -> None:
    """What is left at its default would be read though its name or its meaning had changed."""
    plain = {"rm": False, "push": True, "v": VERSION}
    for field in msgspec.structs.fields(SessionRecord):
        given = field.name in written and field.name not in plain
        if given and field.default is not msgspec.NODEFAULT:
            assert written[field.name] != msgspec.to_builtins(field.default), field.name
    assert set(plain) <= set(written)


def test_what_the_verbs_make_of_it(tmp_path: Path, written: dict[str, Any]) -> None:
    store = SessionStore(tmp_path)
    directory = store.create(written["id"])
    (directory / "session.json").write_bytes(GOLDEN.read_bytes())
    (record,) = store.list()
    assert isinstance(record, SessionRecord)
    assert store.find("demo-shop-session-1") == record
    assert store.update(record.id, phase="lost").saved == record.saved
    assert to_public(record, "stopped")["repo"] == "/home/u/shop"
    assert branch_of(record).ref == "refs/heads/demo/session-1"
    assert facts_of(record).common_dir == Path("/home/u/shop/.git")
    assert identity_of(record).version == "0.1.0"
    assert plan_input_of(record, base_image="x").limits.pids == 4096
    assert Oid.parse(record.saved.relay_tip) == record.branch_tip


@pytest.mark.parametrize("change", [{"v": VERSION + 1}, {"v": None}, {"base_commit": "x"}, {"name": None}])
def test_what_no_version_of_ours_wrote_is_refused(written: dict[str, Any], change: dict[str, Any]) -> None:
    changed = {key: value for key, value in {**written, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=r".+"):
        decode_session(json.dumps(changed).encode())
