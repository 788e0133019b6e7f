"""Commits of a session signed through the broker: git and the guest's programs inside, real keys on the host."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from coding_agents.audit.log import open_log
from coding_agents.brokers.sign import signer as signer_module
from coding_agents.brokers.sign.answers import Signature
from coding_agents.brokers.sign.own_key import make_key
from coding_agents.errors import AuditError
from coding_agents.policy.decide import Deny
from coding_agents.policy.matrix import Tier
from coding_agents.supervisor import signing_access
from coding_agents.supervisor.journal import Journal
from coding_agents_guest.nestedref import TO_SIGN
from support.keys import GpgHome, gpg_home, ssh_key
from support.relay_server import URL, SocketStream
from support.signed_session import SignedSession, signed_session, signing_session


def say(signed: SignedSession, *values: tuple[str, str]) -> None:
    """The user's own git configuration."""
    path = signed.session.env.home / ".gitconfig"
    for key, value in values:
        subprocess.run(["git", "config", "--file", str(path), key, value], check=True)


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[SignedSession]:
    """A session of a user who signs with ssh."""
    key = ssh_key(tmp_path / "id")
    session = signing_session(tmp_path, mode="user", kind="ssh", key=key.public)
    with signed_session(session, tmp_path) as signed:
        say(signed, ("gpg.format", "ssh"), ("user.signingKey", str(key.path)))
        yield signed


def verified(signed: SignedSession, tmp_path: Path, commit: str = "HEAD") -> str:
    """What git says on the host of a commit's signature, once the commit is home."""
    oid = signed.git("rev-parse", commit)
    signed.git("push", "-q", URL, f"+{oid}:refs/heads/{signed.session.record.branch}")
    key = signed.session.record.signing_key
    (tmp_path / "allowed").write_text(f"ada@example.test {key}\n")
    done = subprocess.run(
        ["git", "-c", f"gpg.ssh.allowedSignersFile={tmp_path}/allowed", "log", "-1", "--show-signature", oid],
        cwd=signed.session.directory / "relay.git",
        env={**os.environ, "GNUPGHOME": signed.session.env.environ.get("GNUPGHOME", "/nonexistent")},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


def test_commits_are_signed_by_the_users_ssh_key(ssh: SignedSession, tmp_path: Path) -> None:
    ssh.commit("one")
    assert 'Good "git" signature for ada@example.test' in verified(ssh, tmp_path)
    shown = ssh.git("log", "-1", "--format=%an <%ae>|%cn <%ce>|%B")
    assert shown.startswith(
        "Ada <ada@example.test>|Ada (Demo) <ada@example.test>|Add one\n\nAgent: Demo\nSession: "
    )
    ssh.git("commit", "-q", "--amend", "-m", "Say it better")  # the same tree: nothing is pushed for it
    ssh.git("commit", "-q", "--allow-empty", "-m", "Nothing")
    ssh.git("checkout", "-q", "-b", "side", "HEAD~1")
    ssh.commit("two")
    ssh.git("merge", "-q", "--no-edit", ssh.session.record.branch)
    assert ssh.git("log", "-1", "--format=%b").startswith(
        "Agent: Demo\nSession: "
    )  # its message had no end of line
    ssh.git("rebase", "-q", "--force-rebase", "--root", check=False)  # the base is not this session's
    ssh.git("rebase", "--abort")
    assert 'Good "git" signature for ada@example.test' in verified(ssh, tmp_path)
    (record, *_) = ssh.records("signed")
    assert (record.outcome, record.tier, record.rule) == ("allowed", 2, "sign-commit")
    assert record.subject == ssh.session.record.signing_key
    assert [change.ref for change in ssh.relay.changes].count(TO_SIGN) >= 2
    ssh.commit("three", "--author", "Ada (Demo) <ada@example.test>")  # the agent says that it is its own
    (refused,) = ssh.records("signing-refused")
    assert "its author is neither" in str(refused.detail["reason"]) or "committer" in str(
        refused.detail["reason"]
    )


def test_commits_are_signed_by_the_users_openpgp_key(tmp_path: Path) -> None:
    with gpg_home() as home:
        session = signing_session(
            tmp_path, mode="user", kind="openpgp", key=home.fingerprint, GNUPGHOME=str(home.home)
        )
        with signed_session(session, tmp_path) as signed:
            say(signed, ("user.signingKey", home.fingerprint))
            signed.commit("one")
            assert "Good signature from" in verified(signed, tmp_path)


def test_a_session_signs_with_a_key_of_its_own(tmp_path: Path) -> None:
    session = signing_session(tmp_path, mode="session", kind="ssh", key="")
    key = make_key(session.directory, comment="x", path=os.environ["PATH"])
    session.update(signing_key=key)
    assert (session.directory / "signing-key").stat().st_mode & 0o777 == 0o600
    with signed_session(session, tmp_path) as signed:
        signed.commit("one")
        assert 'Good "git" signature' in verified(signed, tmp_path)
    text = b"".join(path.read_bytes() for path in (tmp_path / "guest").rglob("*") if path.is_file())
    assert b"PRIVATE KEY" not in text


def test_a_locked_key_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    with gpg_home(passphrase="secret", pinentry="hangs") as home:
        session = signing_session(
            tmp_path, mode="user", kind="openpgp", key=home.fingerprint, GNUPGHOME=str(home.home)
        )
        with signed_session(session, tmp_path) as signed:
            say(signed, ("user.signingKey", home.fingerprint))
            _told_and_not_lost(signed, "the key is locked", home)


def _told_and_not_lost(signed: SignedSession, why: str, home: GpgHome) -> None:
    said = signed.commit("one", check=False)
    assert f"coding-agents: not signed: on the host {why}" in said
    assert "still staged" in said
    assert str(home.home) not in said
    assert signed.git("diff", "--cached", "--name-only") == "one"
    log = signed.guest.parent / "log"
    log.write_text("before\n")
    with log.open("a") as errors:
        argv = ["git", "commit", "-q", "-m", "One"]
        subprocess.run(argv, cwd=signed.guest, env=signed.env, stderr=errors, check=False)
    assert log.read_text().startswith("before\n")
    assert "still staged" in log.read_text()
    home.unlock()
    signed.git("commit", "-q", "-m", "Now")
    assert "gpgsig" in signed.git("cat-file", "commit", "HEAD")
    assert [record.outcome for record in signed.records("signed")] == [*["allowed", "failed"] * 2, "allowed"]


def test_a_key_that_is_gone_or_another_is_not_used(ssh: SignedSession, tmp_path: Path) -> None:
    other = ssh_key(tmp_path / "other")
    say(ssh, ("user.signingKey", str(other.path)))
    assert "git names another key" in ssh.commit("one", check=False)
    say(ssh, ("user.signingKey", str(tmp_path / "id")))
    (tmp_path / "id").unlink()
    said = ssh.commit("one", check=False)
    assert "on the host the key is not there" in said
    assert str(tmp_path) not in said.replace(str(ssh.guest), "")


def test_a_relay_that_is_full_is_told_and_nothing_is_lost(
    ssh: SignedSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coding_agents.gitsync.relay_push.used_up", lambda *_args, **_words: "no room left")
    said = ssh.commit("one", check=False)
    assert "not signed" in said
    assert "no room left" in said
    assert ssh.git("diff", "--cached", "--name-only") == "one"


def test_the_user_can_take_it_back(ssh: SignedSession) -> None:
    config = ssh.session.env.home / ".config/coding-agents/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[signing]\nmode = "merge"\n')
    assert "no commits signed any more" in ssh.commit("one", check=False)
    ssh.git("commit", "-q", "-m", "Unsigned", "--no-gpg-sign")


def test_a_helper_that_hangs_is_ended(
    ssh: SignedSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signer_module, "TIMEOUT_S", 0.5)
    program = tmp_path / "hang"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    say(ssh, ("gpg.ssh.program", str(program)))
    began = time.monotonic()
    assert "took too long" in ssh.commit("one", check=False)
    assert time.monotonic() - began < 20


# --- attacks ---------------------------------------------------------------------------------------------------------


def payload(signed: SignedSession, *words: str, **env: str) -> bytes:
    """An unsigned commit of the guest's, as its bytes."""
    (signed.guest / "work").write_text("work\n")
    signed.git("add", ".")
    signed.git("commit", "-q", "--no-gpg-sign", "-m", "x", *words, **env)
    return (signed.git("cat-file", "commit", "HEAD") + "\n").encode()


def test_what_the_relay_does_not_have_is_not_signed(ssh: SignedSession) -> None:
    commit = payload(ssh)
    assert json.loads(ssh.ask(commit)) == {"missing": True}
    blob = ssh.git("hash-object", "-w", "work")
    forged = commit.replace(commit[5:45], blob.encode())  # a tree that is none
    ssh.git("push", "-q", URL, f"+HEAD:{TO_SIGN}")
    assert json.loads(ssh.ask(forged)) == {"missing": True}
    assert "signature" in json.loads(ssh.ask(commit))
    unknown = commit.replace(ssh.session.record.base.encode(), b"1" * 40)
    assert json.loads(ssh.ask(unknown)) == {"missing": True}
    theirs = Path(ssh.session.record.repo.git_dir)
    argv = ["git", f"--git-dir={theirs}", "mktree"]
    kept = f"040000 tree {commit[5:45].decode()}\tnot-given\n".encode()
    subprocess.run(["git", "push", "-q", theirs, "HEAD:refs/heads/x"], cwd=ssh.guest, env=ssh.env, check=True)
    tree = subprocess.run(argv, input=kept, capture_output=True, check=True).stdout.strip()
    assert json.loads(ssh.ask(commit.replace(commit[5:45], tree))) == {
        "missing": True
    }  # the user's, and not given
    assert [record.outcome for record in ssh.records("signed")] == ["allowed"]


def test_objects_that_are_there_in_part_are_not_enough(ssh: SignedSession) -> None:
    """As a relay could be left by somebody else's hand: the tree is there, a file of it is not."""
    commit = payload(ssh)
    ssh.git("push", "-q", URL, f"+HEAD:{TO_SIGN}")
    assert "signature" in json.loads(ssh.ask(commit))
    relay = ssh.session.directory / "relay.git"
    tree = b"100644 gone\0" + b"\x11" * 20
    made = subprocess.run(
        ["git", f"--git-dir={relay}", "hash-object", "-t", "tree", "-w", "--literally", "--stdin"],
        input=tree, capture_output=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert json.loads(ssh.ask(commit.replace(commit[5:45], made))) == {"missing": True}


def test_nothing_but_a_commit_of_the_sessions_own_is_signed(ssh: SignedSession) -> None:
    commit = payload(ssh)
    ssh.git("push", "-q", URL, f"+HEAD:{TO_SIGN}")
    head = ssh.git("rev-parse", "HEAD").encode()
    attacks = {
        "tag": b"object "
        + head
        + b"\ntype commit\ntag v1\ntagger Ada (Demo) <ada@example.test> 1 +0000\n\nv1\n",
        "push certificate": b"certificate version 0.1\npusher x\n\n0 1 refs/heads/main\n",
        "as the user": commit.replace(b"Ada (Demo)", b"Ada"),
        "as somebody else": commit.replace(b"author Ada <ada@", b"author Eve <eve@"),
        "back-dated": commit.replace(commit.split(b"> ")[1][:10], b"1500000000"),
        "signed already": commit.replace(b"\n\n", b"\ngpgsig x\n\n", 1),
        "merged tag": commit.replace(b"\n\n", b"\nmergetag object x\n\n", 1),
        "a NUL": commit + b"\0",
        "two commits": commit + commit.replace(b"tree", b"\0tree"),
        "a file": b"rm -rf /\n",
        "nothing": b"",
        "too long": commit + b"x" * (2 << 20),
    }
    for name, bytes_ in attacks.items():
        answer = ssh.ask(bytes_)  # of what is too long the rest is not taken
        assert "refused" in json.loads(answer) if answer else name == "too long", name
    refused = ssh.records("signing-refused")
    assert len(refused) == len(attacks)
    assert {record.outcome for record in refused} == {"denied"}
    assert all(len(str(record.detail["sha256"])) == 64 for record in refused)
    assert ssh.records("signed") == []
    # git 2.39 takes any failure of ssh-keygen for none, and makes the tag without a signature.
    assert "a tag is signed by a person" in ssh.git("tag", "-s", "-m", "v1", "v1", check=None)
    assert "SIGNATURE" not in ssh.git("for-each-ref", "--format=%(contents)", "refs/tags")
    assert "its author is neither" in ssh.commit("b", "--author", "Eve <eve@example.test>", check=False)


def test_a_commit_whose_record_cannot_be_written_is_not_signed(
    ssh: SignedSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = payload(ssh)
    ssh.git("push", "-q", URL, f"+HEAD:{TO_SIGN}")
    signed: list[bytes] = []

    def sign(data: bytes, signer: object) -> Signature:
        signed.append(data)
        return Signature(b"x", "x")

    monkeypatch.setattr(signer_module, "sign_payload", sign)

    def full(self: object, event: object, *, time_ms: int) -> None:
        raise AuditError("the disk is full")

    monkeypatch.setattr("coding_agents.audit.log.AuditLog.record", full)
    assert "refused" in json.loads(ssh.ask(commit))
    assert signed == []


def test_what_is_pushed_to_be_signed_is_a_commit(ssh: SignedSession) -> None:
    payload(ssh)
    for wrong in ("HEAD^{tree}", "HEAD:work"):
        oid = ssh.git("rev-parse", wrong)
        ssh.git("push", "-q", URL, f"+{oid}:{TO_SIGN}", check=None)
    ssh.git("push", "-q", URL, f"+HEAD:{TO_SIGN}/x", check=False)
    assert TO_SIGN not in ssh.session.relay.store.refs()


def test_what_the_policy_refuses_is_not_signed(ssh: SignedSession, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = payload(ssh)
    ssh.git("push", "-q", URL, f"+HEAD:{TO_SIGN}")
    monkeypatch.setattr(signing_access, "decide", lambda policy, operation: Deny("x", Tier.ASK, "not today"))
    assert json.loads(ssh.ask(commit)) == {"refused": "not today"}
    assert ssh.records("signed") == []


def test_nobody_but_the_agent_has_commits_signed(ssh: SignedSession, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = payload(ssh)
    ssh.git("push", "-q", URL, f"+HEAD:{TO_SIGN}")
    monkeypatch.setattr(SocketStream, "peer_uid", 1001)  # a server with a secret
    assert ssh.ask(commit) == b""
    assert ssh.records("signed") == []


def test_signing_is_limited_in_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing_access, "_BURST", 3)
    monkeypatch.setattr(signing_access, "_EVERY_S", 600.0)
    key = ssh_key(tmp_path / "id")
    with signed_session(
        signing_session(tmp_path, mode="user", kind="ssh", key=key.public), tmp_path
    ) as signed:
        say(signed, ("gpg.format", "ssh"), ("user.signingKey", str(key.path)))
        commit = payload(signed)
        assert json.loads(signed.ask(commit)) == {"missing": True}  # the host has looked
        signed.git("push", "-q", URL, f"+HEAD:{TO_SIGN}")
        answers = [json.loads(signed.ask(commit)) for _ in range(3)]
        assert ["signature" in answer for answer in answers] == [True, True, False]
        assert "too many commits at once" in answers[-1]["refused"]
        (refused,) = signed.records("signing-refused")
        assert refused.rule == "sign-turns"


def test_only_few_wait_for_a_signature(ssh: SignedSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever hangs up leaves the commit with the host."""
    monkeypatch.setattr(signing_access, "_WAITING", 1)
    commit = payload(ssh)
    ssh.git("push", "-q", URL, f"+HEAD:{TO_SIGN}")
    begun, go_on = threading.Event(), threading.Event()

    def sign(data: bytes, signer: object) -> Signature:
        begun.set()
        go_on.wait(3)
        return Signature(b"x", "x")

    monkeypatch.setattr(signer_module, "sign_payload", sign)
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(ssh.sign))
        link.sendall(commit)
        link.shutdown(socket.SHUT_WR)
        assert begun.wait(20)
    try:
        assert "still signing others" in json.loads(ssh.ask(commit)).get("refused", "")
    finally:
        go_on.set()


def test_who_sends_half_a_commit_is_dropped(ssh: SignedSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing_access, "_READ_S", 0.2)
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(10)
        link.connect(str(ssh.sign))
        link.sendall(b"tree ")
        with suppress(ConnectionResetError):
            assert link.recv(100) == b""


@pytest.mark.parametrize("mode", ["merge", "off"])
def test_a_session_whose_commits_nobody_signs_is_served_nothing(tmp_path: Path, mode: str) -> None:
    session = signing_session(tmp_path, mode=mode, kind="", key="")
    with (
        signed_session(session, tmp_path) as signed,
        open_log(tmp_path / "audit.jsonl", session=session.record.id, time_ms=0) as log,
    ):
        assert not signing_access.SigningAccess(session, Journal(log)).served
        signed.commit("one")
        assert "gpgsig" not in signed.git("cat-file", "commit", "HEAD")
        assert "Agent: Demo" in signed.git("log", "-1", "--format=%B")
        assert "only the session's branch" in signed.git("push", URL, f"HEAD:{TO_SIGN}", check=False)


def test_other_repositories_inside_are_left_alone(ssh: SignedSession, tmp_path: Path) -> None:
    """Tests of a project make some: they expect neither names nor signatures, nor to wait for a host."""
    other, beside = ssh.guest / "build" / "repo", tmp_path / "beside"
    ssh.git("init", "-q", str(other))
    (other / ".git/hooks/prepare-commit-msg").symlink_to(tmp_path / "commit-trailers")  # of the template
    by = ("-C", str(other), "-c", "user.name=Test", "-c", "user.email=t@example.test")
    ssh.git(*by, "commit", "-q", "--allow-empty", "-m", "Of a test")
    assert ssh.git(*by, "log", "--format=%an|%cn|%B|%G?") == "Test|Test|Of a test\n|N"
    ssh.git("worktree", "add", "-q", "-b", "beside", str(beside))
    ssh.git("-C", str(beside), "commit", "-q", "--allow-empty", "-m", "Of the session")
    assert "gpgsig" in ssh.git("cat-file", "commit", "beside")
    assert "Agent: Demo" in ssh.git("log", "-1", "--format=%b", "beside")


def test_messages_that_are_not_written_yet_get_no_trailers(ssh: SignedSession) -> None:
    (ssh.guest / "work").write_text("work\n")
    ssh.git("add", ".")
    assert "empty commit message" in ssh.git("commit", "-q", check=False, GIT_EDITOR="true")
    ssh.git("commit", "-q", "-m", "One\n\nAgent: Demo\n---\nmore", check=True)
    shown = ssh.git("log", "-1", "--format=%B")
    assert shown.count("Agent: Demo") == 2  # the first is not at the end
    ssh.git("commit", "-q", "--amend", "--no-edit")
    assert ssh.git("log", "-1", "--format=%B") == shown
