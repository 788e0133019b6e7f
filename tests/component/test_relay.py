"""The relay against real git clients, and against guests that are not git."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from coding_agents.audit import log as log_module
from coding_agents.audit.log import open_log
from coding_agents.gitsync.base import open_base
from coding_agents.gitsync.discover import discover
from coding_agents.gitsync.pktline import FLUSH, pkt
from coding_agents.gitsync.relay_limits import RelayLimits
from coding_agents.gitsync.relay_repo import Identity, create_relay
from coding_agents.gitsync.rules import load_policy
from coding_agents.model.audit import RecordType, decode_record
from coding_agents.model.refs import Oid
from coding_agents.policy.matrix import Operation, Policy
from coding_agents.supervisor.journal import Journal
from coding_agents_guest.nestedref import LATEST, NESTED, NESTED_MESSAGE, further_ref
from support.relay_scene import PUSH, Scene, at_work, eventually, make_scene, read_advertisement, read_all
from support.relay_server import URL, RelayServer, serving
from support.repos import BRANCH, commit, git_env, head, make_repo, sh, sh_fails


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return make_scene(tmp_path)


@pytest.fixture
def server(scene: Scene) -> Iterator[RelayServer]:
    with serving(scene.relay, scene.tmp / "run") as running:
        yield running


@pytest.fixture
def guest_env(scene: Scene, server: RelayServer) -> dict[str, str]:
    return at_work(scene, server)


def tip(scene: Scene, ref: str = BRANCH.ref) -> Oid | None:
    return scene.relay.store.resolve(ref)


# --- what works -----------------------------------------------------------------------------------------


def test_a_fetch_brings_the_base_and_nothing_else(scene: Scene, guest_env: dict[str, str]) -> None:
    refs = sh(scene.guest, "ls-remote", "local", env=guest_env).split("\n")
    assert {line.split("\t")[1] for line in refs} == {"HEAD", BRANCH.ref, "refs/heads/main"}
    assert head(scene.guest, env=guest_env) == scene.base


def test_a_push_of_the_session_branch_is_carried_out_and_recorded(
    scene: Scene, server: RelayServer, guest_env: dict[str, str]
) -> None:
    new = commit(scene.guest, "work", "done\n", env=guest_env)
    sh(scene.guest, "push", "-q", "local", f"HEAD:{BRANCH.ref}", env=guest_env)
    assert tip(scene) == new
    eventually(lambda: len(server.changes) == 1)
    change = server.changes[0]
    assert (change.ref, change.old, change.new, change.archived) == (BRANCH.ref, scene.base, new, None)
    event = server.events[-1]
    assert (event.type, event.outcome, event.rule) == ("push", "allowed", "git-push-session-branch")
    assert event.detail["new"] == new
    assert event.detail["old"] == scene.base


def test_a_push_says_nothing_that_was_not_asked_for(
    scene: Scene, server: RelayServer, guest_env: dict[str, str]
) -> None:
    commit(scene.guest, "work", "done\n", env=guest_env)
    push = ("git", "push", "--quiet", "local", f"HEAD:{BRANCH.ref}")
    said = subprocess.run(push, cwd=scene.guest, env=guest_env, capture_output=True, check=True, text=True)
    assert (said.stdout, said.stderr) == ("", "")


def test_a_push_with_nothing_new_records_nothing(
    scene: Scene, server: RelayServer, guest_env: dict[str, str]
) -> None:
    sh(scene.guest, "push", "-q", "local", f"HEAD:{BRANCH.ref}", env=guest_env)
    assert server.events == []


def test_a_rewrite_keeps_the_old_tip(scene: Scene, server: RelayServer, guest_env: dict[str, str]) -> None:
    tips = []
    for text in ("one\n", "two\n", "three\n"):
        sh(scene.guest, "reset", "-q", "--hard", scene.base, env=guest_env)
        tips.append(commit(scene.guest, "work", text, env=guest_env))
        sh(scene.guest, "push", "-qf", "local", f"HEAD:{BRANCH.ref}", env=guest_env)
    eventually(lambda: len(server.changes) == 3)
    assert [change.archived for change in server.changes] == [
        None, "refs/coding-agents/archive/1", "refs/coding-agents/archive/2",
    ]  # fmt: skip
    assert tip(scene, "refs/coding-agents/archive/1") == tips[0]
    assert tip(scene, "refs/coding-agents/archive/2") == tips[1]
    assert [event.rule for event in server.events].count("git-push-rewrite") == 2


@pytest.mark.parametrize(
    ("ref", "archived"), [(LATEST, None), (f"{NESTED}inner", "refs/coding-agents/archive/1")]
)
def test_saves_beside_each_other_are_no_rewrites(
    scene: Scene, server: RelayServer, guest_env: dict[str, str], ref: str, archived: str | None
) -> None:
    """Each automatic save stands upon HEAD, as does the one of a repository inside: their old tips fill no archive.

    But commits that are rewritten in a repository inside are kept.
    """
    for text in ("one\n", "two\n"):
        sh(scene.guest, "reset", "-q", "--hard", scene.base, env=guest_env)
        commit(scene.guest, "work", text, env=guest_env)
        sh(scene.guest, "commit", "-q", "--amend", "-m", NESTED_MESSAGE, env=guest_env)
        sh(scene.guest, "push", "-qf", "local", f"HEAD:{ref}", env=guest_env)
    eventually(lambda: len(server.changes) == 2)
    assert [change.archived for change in server.changes] == [None, None]
    sh(scene.guest, "commit", "-q", "--allow-empty", "-m", "upon it", env=guest_env)
    sh(scene.guest, "push", "-qf", "local", f"HEAD:{ref}", env=guest_env)
    sh(scene.guest, "reset", "-q", "--hard", scene.base, env=guest_env)
    sh(scene.guest, "push", "-qf", "local", f"HEAD:{ref}", env=guest_env)
    eventually(lambda: len(server.changes) == 4)
    assert server.changes[3].archived == archived


def test_what_was_beside_the_head_of_a_repository_inside_is_kept_whole(
    scene: Scene, server: RelayServer, guest_env: dict[str, str]
) -> None:
    """Its parents are all that is known of the branches, not the first alone."""

    def apart(name: str, *parents: str) -> str:
        options = [word for parent in parents for word in ("-p", parent)]
        return sh(scene.guest, "commit-tree", *options, "-m", name, "HEAD^{tree}", env=guest_env).strip()

    one, other = apart("one"), apart("other")
    for tip in (apart("both", one, other), apart("the first alone", one)):
        sh(scene.guest, "push", "-qf", "local", f"{tip}:{further_ref(['inner'])}", env=guest_env)
    eventually(lambda: len(server.changes) == 2)
    assert server.changes[1].archived == "refs/coding-agents/archive/1"
    assert (
        sh(scene.relay.git_dir, "rev-parse", "refs/coding-agents/archive/1^2", env=guest_env).strip() == other
    )


def test_a_push_counts_although_the_guest_is_gone_before_the_answer(
    scene: Scene, server: RelayServer, guest_env: dict[str, str]
) -> None:
    new = commit(scene.guest, "work", "last words\n", env=guest_env)
    pack = subprocess.run(
        ["git", "pack-objects", "--revs", "--stdout", "-q"],
        cwd=scene.guest, env=guest_env, input=f"{new}\n^{scene.base}\n".encode(),
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    with server.connect() as link:
        link.sendall(pkt(PUSH))
        read_advertisement(link)
        link.sendall(pkt(f"{scene.base} {new} {BRANCH.ref}\0report-status".encode()) + FLUSH + pack)
    eventually(lambda: len(server.changes) == 1)
    assert (tip(scene), server.changes[0].new) == (new, new)


def test_half_a_push_changes_nothing(scene: Scene, server: RelayServer, guest_env: dict[str, str]) -> None:
    new = commit(scene.guest, "work", "done\n", env=guest_env)
    with server.connect() as link:
        link.sendall(pkt(PUSH))
        read_advertisement(link)
        line = pkt(f"{scene.base} {new} {BRANCH.ref}\0report-status".encode())
        link.sendall(line + FLUSH + b"PACK" + (2).to_bytes(4, "big") + (3).to_bytes(4, "big"))
    eventually(lambda: [event.outcome for event in server.events] == ["allowed", "failed"])
    assert tip(scene) == scene.base


def test_a_policy_without_rewrites_refuses_them(scene: Scene) -> None:
    strict = Policy(
        {op: rule for op, rule in load_policy().rules.items() if op is not Operation.PUSH_REWRITE}
    )
    with serving(scene.relay, scene.tmp / "run", policy=strict) as server:
        env = server.guest_env(scene.env)
        sh(scene.guest, "fetch", "-q", "local", env=env)
        sh(scene.guest, "checkout", "-qb", "x", scene.base, env=env)
        first = commit(scene.guest, "work", "one\n", env=env)
        sh(scene.guest, "push", "-q", "local", f"HEAD:{BRANCH.ref}", env=env)
        sh(scene.guest, "commit", "-q", "--amend", "-m", "other", env=env)
        assert "non-fast-forward" in sh_fails(
            scene.guest, "push", "-f", "local", f"HEAD:{BRANCH.ref}", env=env
        )
        assert tip(scene) == first


def test_a_large_push_goes_through(scene: Scene, server: RelayServer, guest_env: dict[str, str]) -> None:
    (scene.guest / "big").write_bytes(os.urandom(9 << 20))
    sh(scene.guest, "add", "big", env=guest_env)
    sh(scene.guest, "commit", "-qm", "big", env=guest_env)
    sh(scene.guest, "push", "-q", "local", f"HEAD:{BRANCH.ref}", env=guest_env)
    assert tip(scene) == head(scene.guest, env=guest_env)


def test_an_unborn_session_gets_its_first_commit(tmp_path: Path) -> None:
    env = git_env(tmp_path / "home")
    user = tmp_path / "user"
    user.mkdir()
    sh(user, "init", "-q", env=env)
    facts = discover(user, env=env)
    relay = create_relay(
        tmp_path / "relay.git",
        base_store=open_base(tmp_path / "data", facts, env=env),
        branch=BRANCH, base=None, base_branch=None,
    )  # fmt: skip
    with serving(relay, tmp_path / "run") as server:
        guest = make_repo(tmp_path / "guest", env=env, commits=1)
        sh(guest, "push", "-q", URL, f"HEAD:{BRANCH.ref}", env=server.guest_env(env))
        assert relay.store.resolve(BRANCH.ref) == head(guest, env=env)


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ref",
    [
        "refs/heads/main",
        "refs/heads/demo/other",
        "refs/heads/demo/Work",
        "refs/heads/demo/work/deeper",
        "refs/tags/v1",
        "refs/notes/commits",
        "refs/replace/0123456789012345678901234567890123456789",
        "refs/coding-agents/base",
        "refs/coding-agents/salvage/head",
        "refs/coding-agents/archive/1",
        "refs/x/y",
    ],
)
def test_any_other_ref_is_refused_with_the_reason(
    scene: Scene, server: RelayServer, guest_env: dict[str, str], ref: str
) -> None:
    commit(scene.guest, "work", "done\n", env=guest_env)
    before = scene.relay.store.refs()
    shown = sh_fails(scene.guest, "push", "local", f"HEAD:{ref}", env=guest_env)
    assert "[remote rejected]" in shown
    assert "only the session's branch can be pushed here" in shown
    assert scene.relay.store.refs() == before
    assert [event.type for event in server.events] == ["push-refused"]
    assert server.events[0].subject == ref
    assert server.changes == []


def test_a_mixed_push_is_refused_whole(scene: Scene, server: RelayServer, guest_env: dict[str, str]) -> None:
    commit(scene.guest, "work", "done\n", env=guest_env)
    shown = sh_fails(
        scene.guest, "push", "local", f"HEAD:{BRANCH.ref}", "HEAD:refs/heads/main", env=guest_env
    )
    assert "another ref of the same push was refused" in shown
    assert tip(scene) == scene.base


def test_deletion_is_refused(scene: Scene, server: RelayServer, guest_env: dict[str, str]) -> None:
    shown = sh_fails(scene.guest, "push", "local", f":{BRANCH.ref}", env=guest_env)
    assert "a branch cannot be deleted here" in shown
    assert tip(scene) == scene.base


def test_what_cannot_be_recorded_is_refused(
    scene: Scene, server: RelayServer, guest_env: dict[str, str]
) -> None:
    server.unrecordable = True
    commit(scene.guest, "work", "done\n", env=guest_env)
    shown = sh_fails(scene.guest, "push", "local", f"HEAD:{BRANCH.ref}", env=guest_env)
    assert "the audit log cannot be written" in shown
    assert tip(scene) == scene.base


def test_a_large_refused_push_still_shows_the_reason(
    scene: Scene, server: RelayServer, guest_env: dict[str, str]
) -> None:
    (scene.guest / "big").write_bytes(os.urandom(12 << 20))
    sh(scene.guest, "add", "big", env=guest_env)
    sh(scene.guest, "commit", "-qm", "big", env=guest_env)
    shown = sh_fails(scene.guest, "push", "local", "HEAD:refs/heads/main", env=guest_env)
    assert "only the session's branch can be pushed here" in shown


@pytest.mark.parametrize("version", ["0", "1", "2"])
@pytest.mark.parametrize("what", ["commit", "blob", "unreachable"])
def test_foreign_objects_cannot_be_fetched_by_id(
    scene: Scene, guest_env: dict[str, str], version: str, what: str
) -> None:
    oid = {
        "commit": scene.private,
        "blob": sh(scene.user, "rev-parse", "private:secret", env=scene.env),
        "unreachable": sh(scene.user, "hash-object", "-w", "--stdin", env=scene.env, stdin="never committed"),
    }[what]
    sh_fails(scene.guest, "-c", f"protocol.version={version}", "fetch", "local", oid, env=guest_env)
    assert sh(scene.guest, "cat-file", "-e", oid, env=guest_env, check=False) == ""
    sh_fails(scene.guest, "cat-file", "-e", oid, env=guest_env)


def test_hidden_commits_of_the_relay_cannot_be_fetched_by_id(
    scene: Scene, server: RelayServer, guest_env: dict[str, str]
) -> None:
    store = scene.relay.store
    tree = store.git("rev-parse", f"{scene.base}^{{tree}}").text().strip()
    identity = {
        "GIT_AUTHOR_NAME": "x",
        "GIT_AUTHOR_EMAIL": "x",
        "GIT_COMMITTER_NAME": "x",
        "GIT_COMMITTER_EMAIL": "x",
    }
    hidden = sh(scene.relay.git_dir, "commit-tree", "-m", "launch state", tree, env={**scene.env, **identity})
    store.git("update-ref", "refs/coding-agents/launch", hidden)
    for version in ("0", "2"):
        sh_fails(scene.guest, "-c", f"protocol.version={version}", "fetch", "local", hidden, env=guest_env)
        sh_fails(scene.guest, "fetch", "local", "refs/coding-agents/launch", env=guest_env)


def test_no_have_lines_and_an_empty_pack_naming_a_foreign_commit_is_refused(
    scene: Scene, server: RelayServer
) -> None:
    empty_pack = b"PACK" + (2).to_bytes(4, "big") + (0).to_bytes(4, "big")
    empty_pack += bytes.fromhex("029d08823bd8a8eab510ad6ac75c823cfd3ed31e")
    line = f"{scene.base} {scene.private} {BRANCH.ref}\0report-status".encode()
    with server.connect() as link:
        link.sendall(pkt(PUSH))
        advertised = read_advertisement(link)
        link.sendall(pkt(line) + FLUSH + empty_pack)
        answer = read_all(link)
    assert b".have" not in advertised
    assert scene.private.encode() not in advertised
    assert scene.sibling.encode() not in advertised
    assert b"ng refs/heads/demo/work" in answer
    assert tip(scene) == scene.base
    eventually(lambda: [event.outcome for event in server.events] == ["allowed", "failed"])


@pytest.mark.parametrize(
    "request_line",
    [
        pkt(b"git-upload-archive /workspace\0host=coding-agents\0"),
        pkt(b"git-upload-pack /etc\0host=coding-agents\0"),
        pkt(b"git-upload-pack /workspace/../x\0host=coding-agents\0"),
        pkt(b"git-upload-pack --help\0host=coding-agents\0"),
        pkt(b"git-upload-pack /workspace\0host=other\0"),
        pkt(b"git-upload-pack /workspace\0host=coding-agents\0\0version=2\0evil=1\0"),
        FLUSH,
        b"zzzz",
        b"0003",
        b"ffff" + b"x" * 100,
        b"GET / HTTP/1.0\r\n\r\n",
    ],
)
def test_any_other_request_ends_the_conversation(server: RelayServer, request_line: bytes) -> None:
    with server.connect() as link:
        link.sendall(request_line)
        link.shutdown(1)
        answer = read_all(link)
    assert b"ERR " in answer
    assert b"refs/" not in answer
    assert [(event.type, event.outcome, event.rule) for event in server.events] == [
        ("fetch-refused", "denied", "git-protocol")
    ]


def test_a_push_certificate_is_refused(scene: Scene, server: RelayServer) -> None:
    with server.connect() as link:
        link.sendall(pkt(PUSH))
        received = read_advertisement(link)
        assert b"push-cert" not in received
        link.sendall(pkt(b"push-cert\0report-status") + FLUSH)
        link.shutdown(1)
        received += read_all(link)
    assert b"push certificates are refused" in received
    assert [(event.type, event.outcome, event.rule) for event in server.events] == [
        ("push-refused", "denied", "git-protocol")
    ]


def test_too_many_conversations_are_turned_away(scene: Scene) -> None:
    with serving(scene.relay, scene.tmp / "run", limits=RelayLimits(conversations=2)) as server:
        idle = [server.connect() for _ in range(2)]
        for link in idle:
            link.sendall(pkt(PUSH))
            assert link.recv(10)
        with server.connect() as third:
            assert read_all(third) == b""
        for link in idle:
            link.close()


def test_conversations_beyond_the_rate_wait_for_their_turn(scene: Scene) -> None:
    limits = RelayLimits(burst=2, every_s=0.5, patience_s=10.0)
    with serving(scene.relay, scene.tmp / "run", limits=limits) as server:
        env = server.guest_env(scene.env)
        began = time.monotonic()
        for _ in range(5):
            sh(scene.guest, "ls-remote", URL, env=env)
        assert time.monotonic() - began >= 1.5 - 0.1
        assert server.events == []


def test_a_crowd_beyond_the_rate_is_refused_by_a_word_of_git(scene: Scene) -> None:
    limits = RelayLimits(burst=3, every_s=60.0, patience_s=1.0)
    with serving(scene.relay, scene.tmp / "run", limits=limits) as server:
        env = server.guest_env(scene.env)
        commit(scene.guest, "work", "done\n", env=env)
        crowd = [
            subprocess.Popen(["git", *words], cwd=scene.guest, env=env, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for words in (("ls-remote", URL), ("push", URL, f"HEAD:{BRANCH.ref}")) * 5
        ]  # fmt: skip
        said = [process.communicate(timeout=30)[1] for process in crowd]
        turned_away = [text for text in said if "remote error: " in text]
        assert len(turned_away) == 10 - 3
        for text in turned_away:
            assert "too many git conversations: after 3 one every 60 s is served" in text
            assert "the work stays here, run git again later" in text
        refused = [event for event in server.events if event.type in ("fetch-refused", "push-refused")]
        assert {(event.outcome, event.rule) for event in refused} == {("denied", "relay-rate")}
        assert len(refused) == len(turned_away)


def test_salvage_is_held_to_no_rate_and_no_number(scene: Scene) -> None:
    limits = RelayLimits(burst=1, every_s=60.0, patience_s=1.0, conversations=1)
    with serving(scene.relay, scene.tmp / "run", limits=limits) as server:
        env = server.guest_env(scene.env)
        sh(scene.guest, "ls-remote", URL, env=env)
        sh_fails(scene.guest, "ls-remote", URL, env=env)
        with server.connect() as idle:
            idle.sendall(b"0")  # the one conversation that may stand
            sh_fails(scene.guest, "ls-remote", URL, env=env)
            server.identity = Identity.SALVAGE
            for number in range(3):
                new = commit(scene.guest, "work", f"{number}\n", env=env)
                sh(scene.guest, "push", "-qf", URL, "HEAD:refs/coding-agents/salvage/head", env=env)
                assert tip(scene, "refs/coding-agents/salvage/head") == new


def test_pushes_that_fail_in_git_fill_no_log(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is recorded before git sees it; of its failures those beyond the budget are one record with a count."""
    monkeypatch.setattr(log_module, "REFUSALS_AT_ONCE", 4)
    monkeypatch.setattr(log_module, "REFUSALS_PER_S", 0)
    empty_pack = b"PACK" + (2).to_bytes(4, "big") + (0).to_bytes(4, "big")
    empty_pack += bytes.fromhex("029d08823bd8a8eab510ad6ac75c823cfd3ed31e")
    line = f"{scene.base} {scene.private} {BRANCH.ref}\0report-status".encode()
    path, pushes = scene.tmp / "audit.jsonl", 20
    with (
        open_log(path, session="0123456789ab", time_ms=1) as log,
        serving(scene.relay, scene.tmp / "run", journal=Journal(log).relay) as server,
    ):
        for _ in range(pushes):
            with server.connect() as link:
                link.sendall(pkt(PUSH))
                read_advertisement(link)
                link.sendall(pkt(line) + FLUSH + empty_pack)
                assert b"ng refs/heads/demo/work" in read_all(link)
        eventually(lambda: len(server.events) == 2 * pushes)
    records = [decode_record(one) for one in path.read_bytes().splitlines(keepends=True)]
    assert sum(record.outcome == "allowed" for record in records) == pushes
    assert sum(record.type is RecordType.PUSH and record.outcome == "failed" for record in records) == 4
    gaps = [record for record in records if record.type is RecordType.GAP]
    assert sum(int(gap.detail["refused_dropped"]) for gap in gaps) == pushes - 4
    assert len(gaps) <= 2


def test_a_silent_guest_is_cut_off(scene: Scene) -> None:
    limits = RelayLimits(request_s=0.1)
    with serving(scene.relay, scene.tmp / "run", limits=limits) as server, server.connect() as link:
        assert read_all(link) == b""


def test_a_push_beyond_the_budget_is_refused(scene: Scene) -> None:
    with serving(scene.relay, scene.tmp / "run", limits=RelayLimits(push_bytes=1 << 20)) as server:
        env = server.guest_env(scene.env)
        sh(scene.guest, "fetch", "-q", "local", env=env)
        sh(scene.guest, "checkout", "-qb", "x", scene.base, env=env)
        (scene.guest / "big").write_bytes(os.urandom(4 << 20))
        sh(scene.guest, "add", "big", env=env)
        sh(scene.guest, "commit", "-qm", "big", env=env)
        sh_fails(scene.guest, "push", "local", f"HEAD:{BRANCH.ref}", env=env)
        assert tip(scene) == scene.base


def test_a_relay_whose_budget_is_used_up_takes_no_more(scene: Scene) -> None:
    with serving(scene.relay, scene.tmp / "run", limits=RelayLimits(disk_bytes=1000)) as server:
        env = server.guest_env(scene.env)
        sh(scene.guest, "fetch", "-q", "local", env=env)
        sh(scene.guest, "checkout", "-qb", "x", scene.base, env=env)
        commit(scene.guest, "work", "done\n", env=env)
        shown = sh_fails(scene.guest, "push", "local", f"HEAD:{BRANCH.ref}", env=env)
        assert "space on the host is used up" in shown
        assert server.events[-1].rule == "relay-budget"


def test_the_size_that_a_pack_claims_costs_no_memory(scene: Scene) -> None:
    """A commit of three gigabytes, by its header: git would ask for them before it reads on.

    The budgets refuse it before git sees it (test_relay_budgets.py); a user may have raised them.
    """
    size, header = 3 << 30, bytearray([(1 << 4) | 0x80])
    size >>= 4
    while size > 0x7F:
        header.append(size & 0x7F | 0x80)
        size >>= 7
    body = b"PACK" + struct.pack(">II", 2, 1) + bytes([*header, size])
    stream = zlib.compressobj()
    body += stream.compress(b"tree ") + stream.flush(zlib.Z_SYNC_FLUSH)
    line = f"{scene.base} {'1' * 40} {BRANCH.ref}\0report-status side-band-64k".encode()
    limits = RelayLimits(object_bytes=8 << 30)
    with serving(scene.relay, scene.tmp / "run", limits=limits) as server, server.connect() as link:
        link.sendall(pkt(PUSH))
        read_advertisement(link)
        link.sendall(pkt(line) + FLUSH + body)
        link.shutdown(socket.SHUT_WR)
        answer = read_all(link)
    assert b"attempting to allocate 3221225473 over limit" in answer
    assert tip(scene) == scene.base


def test_hostile_tree_names_are_refused(scene: Scene, server: RelayServer, guest_env: dict[str, str]) -> None:
    blob = sh(scene.guest, "hash-object", "-w", "--stdin", env=guest_env, stdin="[core]\n")
    inner = sh(scene.guest, "mktree", env=guest_env, stdin=f"100644 blob {blob}\tconfig\n")
    tree = sh(scene.guest, "mktree", env=guest_env, stdin=f"040000 tree {inner}\t.git\n")
    evil = sh(scene.guest, "commit-tree", "-p", scene.base, "-m", "x", tree, env=guest_env)
    shown = sh_fails(scene.guest, "push", "local", f"{evil}:{BRANCH.ref}", env=guest_env)
    assert "hasDotgit" in shown or "unpacker error" in shown
    assert tip(scene) == scene.base


# --- salvage --------------------------------------------------------------------------------------------


def test_salvage_may_push_its_refs_and_not_the_branch(scene: Scene) -> None:
    with serving(scene.relay, scene.tmp / "run", identity=Identity.SALVAGE) as server:
        env = server.guest_env(scene.env)
        sh(scene.guest, "fetch", "-q", "local", env=env)
        sh(scene.guest, "checkout", "-qb", "x", scene.base, env=env)
        new = commit(scene.guest, "work", "saved\n", env=env)
        sh(scene.guest, "push", "-q", URL, "HEAD:refs/coding-agents/salvage/head", env=env)
        assert tip(scene, "refs/coding-agents/salvage/head") == new
        eventually(lambda: len(server.changes) == 1)
        assert server.changes[0].identity is Identity.SALVAGE
        assert server.events[0].rule == "git-push-salvage"
        assert "in-pack: 3" in sh(scene.relay.git_dir, "count-objects", "-v", env=env)
        for ref in (BRANCH.ref, "refs/coding-agents/salvage/other", "refs/coding-agents/base"):
            assert "[remote rejected]" in sh_fails(scene.guest, "push", URL, f"HEAD:{ref}", env=env)
        assert tip(scene) == scene.base


def test_what_a_killed_push_left_is_not_in_the_way(
    scene: Scene, server: RelayServer, guest_env: dict[str, str]
) -> None:
    """With its supervisor: the locks that git had made, and the objects in quarantine."""
    git_dir = scene.relay.git_dir
    quarantine = git_dir / "objects" / "tmp_objdir-incoming-abcdef"
    quarantine.mkdir()
    (quarantine / "pack").write_bytes(b"x" * 4096)
    locks = [git_dir / "HEAD.lock", git_dir / f"{BRANCH.ref}.lock"]
    for path in (*locks, quarantine):
        path.touch()
        os.utime(path, (0, 0))
    new = commit(scene.guest, "work", "done\n", env=guest_env)
    sh(scene.guest, "push", "-q", "local", f"HEAD:{BRANCH.ref}", env=guest_env)
    assert tip(scene) == new
    assert [path for path in (*locks, quarantine) if path.exists()] == []
