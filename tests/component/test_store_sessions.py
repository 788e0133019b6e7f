"""The session store: records by name and id, damage that is shown, removal that leaves nothing half."""

from __future__ import annotations

import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.errors import SessionNotFoundError, StoreError
from coding_agents.model.session import Saved, SessionRecord, decode_session, encode_session, to_public
from coding_agents.store.leftovers import finish_removals, is_unrecorded
from coding_agents.store.sessions import BrokenSession, SessionStore
from support.sessions import REPO, session_record

_ID, _OTHER = "0123456789ab", "01ffffffffff"


@pytest.fixture
def store(tmp_path: Path) -> SessionStore:
    return SessionStore(tmp_path / "state")


def _add(store: SessionStore, session_id: str, **changes: object) -> SessionRecord:
    record = session_record(session_id, **changes)
    store.create(session_id)
    store.save(record)
    return record


def test_a_saved_record_comes_back_as_it_was(store: SessionStore) -> None:
    record = _add(
        store,
        _ID,
        engine_env=(("DOCKER_HOST", "unix:///x"),),
        command=("sh", "-c", "x"),
        exit_status=3,
        saved=Saved(relay_tip="a" * 40, where="branch", verified=True, left_out=(".env",)),
        enforced={"seccomp": "on"},
        limits={"memory": "8g"},
    )
    assert store.load(_ID) == record
    changed = record.evolve(phase="running", started_at="2026-01-01T00:00:00Z")
    store.save(changed)
    assert store.load(_ID).phase == "running"
    assert record.phase == "starting"


def test_everything_is_private(store: SessionStore) -> None:
    _add(store, _ID)
    directory = store.directory(_ID)
    for path in (store.state_dir, store.root, directory):
        assert path.stat().st_mode & 0o777 == 0o700
    assert (directory / "session.json").stat().st_mode & 0o777 == 0o600


def test_an_id_is_used_once(store: SessionStore) -> None:
    store.create(_ID)
    with pytest.raises(StoreError, match="already exists"):
        store.create(_ID)


def test_a_name_and_a_branch_are_registered_once(store: SessionStore) -> None:
    first = session_record("a" * 12)
    other_repo = msgspec.structs.replace(REPO, common_dir="/elsewhere/.git", repo_id="0" * 16)
    for number, (accepted, record) in enumerate(
        (
            (True, first),
            (False, first.evolve(branch="demo/other")),  # the name is taken
            (False, first.evolve(name="demo-other")),  # the branch is taken
            (False, first.evolve(repo=other_repo)),  # names are one for all repositories
            (True, first.evolve(name="demo-elsewhere", repo=other_repo)),
            (True, first.evolve(name="demo-second", branch="demo/second")),
        )
    ):
        session_id = f"{number:012x}"
        store.create(session_id)
        assert store.register(record.evolve(id=session_id)) is accepted, number
        assert (store.directory(session_id) / "session.json").exists() is accepted


def test_of_launches_at_once_one_gets_the_name(store: SessionStore) -> None:
    records = [session_record(f"{number:012x}", name="demo-shop") for number in range(8)]
    for record in records:
        store.create(record.id)
    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(store.register, records)) == [False] * 7 + [True]


@pytest.mark.parametrize("text", ["..", "", "0123456789AB", "0123456789abc", "../../etc/x", "0123456789a/"])
def test_only_an_id_is_ever_joined_to_a_path(store: SessionStore, text: str) -> None:
    with pytest.raises(StoreError, match="not 12 hex digits"):
        store.directory(text)


def test_find_by_name_and_by_prefix(store: SessionStore) -> None:
    first = _add(store, _ID, name="demo-shop-main", created_ms=2)
    second = _add(store, _OTHER, name="demo-shop-fix", created_ms=1)
    assert store.list() == (second, first)
    assert store.find("demo-shop-main") == first
    assert store.find("012") == first
    assert store.find(_OTHER) == second


def test_a_name_wins_over_a_prefix(store: SessionStore) -> None:
    _add(store, _ID)
    named = _add(store, _OTHER, name="0123")
    assert store.find("0123") == named


def test_find_names_candidates(store: SessionStore) -> None:
    _add(store, _ID, name="demo-shop-main")
    _add(store, _OTHER, name="demo-shop-fix")
    with pytest.raises(SessionNotFoundError, match="several sessions match '01'") as caught:
        store.find("01")
    assert f"{_ID}  demo-shop-main" in caught.value.details
    with pytest.raises(SessionNotFoundError, match="no session 'demo-shop-mian'") as caught:
        store.find("demo-shop-mian")
    assert "demo-shop-main" in caught.value.hint
    with pytest.raises(SessionNotFoundError):
        store.find("")


_DAMAGE = [
    b"",
    b"\0" * 100,
    b"{",
    b"[]",
    b"null",
    b'{"v":2}',
    b'{"v":1}',
    b'{"v":"1"}',
    b"\xff\xfe",
    b"[" * 100_000,
]


@pytest.mark.parametrize("data", _DAMAGE, ids=range(len(_DAMAGE)))
def test_a_corrupt_record_is_told_and_listed_and_hides_no_other(store: SessionStore, data: bytes) -> None:
    good = _add(store, _OTHER)
    store.create(_ID)
    path = store.directory(_ID) / "session.json"
    path.write_bytes(data)
    with pytest.raises(StoreError, match="corrupt") as caught:
        store.find("0123")
    assert str(path) in caught.value.message
    assert f"remove --force {_ID}" in caught.value.hint
    assert store.list()[0] == good
    broken = store.list()[1]
    assert isinstance(broken, BrokenSession)
    assert broken.directory == store.directory(_ID)
    assert broken.to_public()["state"] == "failed"
    assert set(broken.to_public()) == set(to_public(good, "running"))


def test_a_record_of_another_session_or_with_unknown_fields_is_corrupt(store: SessionStore) -> None:
    record = _add(store, _ID)
    path = store.directory(_ID) / "session.json"
    path.write_bytes(encode_session(session_record(_OTHER)))
    with pytest.raises(StoreError, match=f"is the record of session {_OTHER}"):
        store.load(_ID)
    path.write_bytes(json.dumps({**json.loads(encode_session(record)), "surprise": 1}).encode())
    with pytest.raises(StoreError, match="surprise"):
        store.load(_ID)


def test_a_directory_without_a_record_and_foreign_files(store: SessionStore) -> None:
    store.create(_ID)
    (store.root / "notes.txt").touch()
    (store.root / ".removed-ffffffffffff-1").mkdir()
    assert [entry.id for entry in store.list()] == [_ID]
    with pytest.raises(SessionNotFoundError):
        store.find(_ID)


def test_no_state_directory_means_no_sessions(store: SessionStore) -> None:
    assert store.list() == ()
    assert not store.state_dir.exists()


def test_remove_keeps_the_audit_log_and_nothing_else(store: SessionStore) -> None:
    _add(store, _ID)
    directory = store.directory(_ID)
    (directory / "audit.jsonl").write_bytes(b"record\n")
    (directory / "relay.git").mkdir()
    outside = store.state_dir / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (directory / "relay.git" / "link").symlink_to(outside)
    assert store.find_log("0123") == directory / "audit.jsonl"
    store.remove(_ID)
    store.remove(_ID)
    assert not list(store.root.iterdir())
    assert (outside / "kept").exists()
    log = store.find_log("0123")
    assert log.read_bytes() == b"record\n"
    assert store.audit_log(_ID) == log
    with pytest.raises(SessionNotFoundError):
        store.find_log("ffff")


def test_remove_finishes_what_a_killed_removal_left(store: SessionStore) -> None:
    _add(store, _ID)
    (store.root / f".removed-{_ID}-99").mkdir()
    store.remove(_ID)
    assert not list(store.root.iterdir())


def test_one_change_at_a_time(store: SessionStore) -> None:
    store.create(_ID)
    with store.lock(_ID), pytest.raises(StoreError, match="locked"), store.lock(_ID, timeout_s=0):
        pytest.fail("two changes at once")


def test_the_control_socket_is_in_the_sessions_directory_when_it_fits(store: SessionStore) -> None:
    store.create(_ID)
    short = SessionStore(Path("/x"))
    assert short.control_socket(_ID) == Path(f"/x/sessions/{_ID}/control.sock")


def test_a_long_state_directory_gets_a_short_private_socket_that_can_be_bound(tmp_path: Path) -> None:
    session_id = os.urandom(6).hex()
    store = SessionStore(tmp_path / ("d" * 90))
    store.create(session_id)
    path = store.control_socket(session_id)
    assert len(os.fsencode(path)) < 100
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    assert path.exists()
    store.remove(session_id)
    assert not path.parent.exists()


def test_the_public_form_is_the_documented_contract() -> None:
    public = to_public(session_record(enforced={"seccomp": "on"}, image_ref="i:local"), "running")
    keys = [
        "session",
        "name",
        "container",
        "engine",
        "runtime",
        "agent",
        "repo",
        "branch",
        "network",
        "image",
        "state",
        "enforced",
    ]
    assert list(public) == keys
    assert public["enforced"] == {"seccomp": "on"}
    assert public["repo"] == "/home/u/shop"
    cloned = msgspec.structs.replace(REPO, kind="url", work_tree="")
    assert to_public(session_record(repo=cloned), "running")["repo"] == "https://example.com/shop.git"


def test_a_record_cannot_change_and_knows_its_fields() -> None:
    record = session_record()
    with pytest.raises(AttributeError):
        record.phase = "running"  # type: ignore[misc]
    with pytest.raises(TypeError):
        record.evolve(phaze="running")
    with pytest.raises(ValueError, match="12 hex digits"):
        session_record("../../x")


@given(st.binary(max_size=60) | st.sampled_from([b'{"v":1,"id":"x"}', b'{"v":1e400}', b'{"v":-0}']))
def test_decoding_junk_raises_value_errors_only(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        decode_session(data)


def test_each_field_is_needed_or_has_a_default() -> None:
    minimal = json.loads(encode_session(session_record()))
    needed = {field.encode_name for field in msgspec.structs.fields(SessionRecord) if field.required}
    for name in minimal:
        data = json.dumps({key: value for key, value in minimal.items() if key != name}).encode()
        if name in needed or name == "v":
            with pytest.raises(ValueError, match=r"\S"):
                decode_session(data)
        else:
            assert decode_session(data).id == minimal["id"]


def test_a_removal_that_was_cut_short_is_finished_and_its_log_is_found_meanwhile(store: SessionStore) -> None:
    _add(store, _ID)
    doomed = store.root / f".removed-{_ID}-{2**22 + 1}"  # beyond the highest process id
    (store.directory(_ID) / "audit.jsonl").write_bytes(b"{}\n")
    store.directory(_ID).rename(doomed)
    assert store.find_log(_ID) == doomed / "audit.jsonl"
    finish_removals(store)
    assert list(store.root.iterdir()) == []
    assert store.find_log(_ID) == store.kept_log(_ID)
    assert store.kept_log(_ID).read_bytes() == b"{}\n"


def test_a_removal_under_way_is_left_to_whoever_is_at_it(store: SessionStore) -> None:
    store.create(_ID)
    doomed = store.root / f".removed-{_ID}-{os.getpid()}"
    store.directory(_ID).rename(doomed)
    finish_removals(store)
    assert doomed.exists()


def test_a_session_whose_relay_is_deeper_than_any_recursion_is_removed(store: SessionStore) -> None:
    """As one push could make it: what it held in the engine was gone, and then this failed."""
    _add(store, _ID)
    fd = os.open(store.directory(_ID), os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("a", dir_fd=fd)
        inner = os.open("a", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    store.remove(_ID, keep_log=False)
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize(
    ("saved", "why"),
    [
        (Saved(nested=tuple(f"{number:0500}" for number in range(2200))), "larger than 1048576 bytes"),
        (Saved(note="x\udcff"), "no text"),
    ],
)
def test_a_record_that_could_not_be_read_back_is_not_written(
    store: SessionStore, saved: Saved, why: str
) -> None:
    record = _add(store, _ID)
    with pytest.raises(StoreError, match=why):
        store.update(_ID, saved=saved)
    assert store.load(_ID) == record


def test_only_an_old_empty_directory_is_a_launch_that_was_killed_before_its_record(
    store: SessionStore,
) -> None:
    directory = store.create(_ID)
    (directory / "lock").touch()
    (directory / ".session.json.abc.tmp").touch()
    assert not is_unrecorded(store, _ID)  # a launch may be right there
    os.utime(directory, (0, 0))
    assert is_unrecorded(store, _ID)
    with store.lock(_ID):
        assert not is_unrecorded(store, _ID)
    (directory / "relay.git").mkdir()
    os.utime(directory, (0, 0))
    assert not is_unrecorded(store, _ID)
