"""What may be signed: exactly one plain commit of the session. Strictness, attacks, and inputs of any kind."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.brokers.sign.answers import AnswerError, key_blob, read_openpgp, read_ssh, why_not
from coding_agents.model.commit import (
    MAX_COMMIT,
    CommitError,
    clean_person,
    object_id,
    parse_commit,
    with_signature,
)
from coding_agents.model.signing import SigningConfig, literal_ssh_key, parse_signing
from coding_agents.policy.matrix import Operation
from coding_agents.policy.signing import SLACK_S, SigningFacts, judge_payload

SINCE, NOW = 1_700_000_000, 1_700_003_600
FACTS = SigningFacts(
    object_format="sha1",
    authors=(("Ada", "ada@example.test"),),
    committer=("Ada (Demo)", "ada@example.test"),
    since=SINCE,
    now=NOW,
)
TREE, PARENT, OTHER = b"a" * 40, b"b" * 40, b"c" * 40


def payload(
    *,
    author: bytes = b"Ada <ada@example.test> 1700000100 +0000",
    committer: bytes = b"Ada (Demo) <ada@example.test> 1700000100 +0000",
    parents: tuple[bytes, ...] = (PARENT,),
    more: bytes = b"",
    message: bytes = b"Fix it\n",
) -> bytes:
    lines = b"tree " + TREE + b"\n" + b"".join(b"parent " + one + b"\n" for one in parents)
    return lines + b"author " + author + b"\ncommitter " + committer + b"\n" + more + b"\n" + message


def test_a_commit_of_the_session_may_be_signed() -> None:
    for parents in ((), (PARENT,), (PARENT, OTHER)):
        judged = judge_payload(payload(parents=parents), FACTS)
        assert (judged.operation, judged.reason) == (Operation.SIGN_COMMIT, "")
        assert judged.commit is not None
        assert (judged.commit.tree, len(judged.commit.parents)) == ("a" * 40, len(parents))


@pytest.mark.parametrize(
    "bytes_",
    [
        payload(more=b"gpgsig -----BEGIN PGP SIGNATURE-----\n x\n"),
        payload(more=b"mergetag object " + PARENT + b"\n type commit\n"),
        payload(more=b"encoding UTF-7\n"),
        payload(more=b"author Eve <eve@example.test> 1700000100 +0000\n"),
        payload(message=b"a\0b"),
        payload(parents=(PARENT, PARENT)),
        payload(parents=tuple(b"%040x" % number for number in range(1, 18))),
        payload(parents=(b"B" * 40,)),
        payload(parents=(b"b" * 64,)),
        payload(parents=(PARENT + b" ",)),
        payload(author=b"Ada <ada@example.test> 1700000100 +2500"),
        payload(author=b"Ada <ada@example.test> 01700000100 +0000"),
        payload(author=b"Ada <ada@example.test> -1 +0000"),
        payload(author=b"Ada <ada@example.test>> 1700000100 +0000"),
        payload(author=b"Ada <ada@example.test> 1700000100 +0000 "),
        payload(author=b"Ada <ada@example.test> 1700000100"),
        payload().replace(b"\n\n", b"\n"),
        payload().replace(b"tree ", b"Tree "),
        payload().replace(b"author ", b"editor "),
        b"parent " + PARENT + b"\n" + payload(),
        b"\n" + payload(),
        payload() .replace(b"\nauthor", b"\ntree " + TREE + b"\nauthor"),
        payload(message=b"x" * MAX_COMMIT),
        b"certificate version 0.1\npusher Ada <ada@example.test> 1700000100 +0000\n\nold new ref\n",
        b"",
        b"\n\n",
        b"anything at all",
    ],
)  # fmt: skip
def test_all_else_is_nothing_to_sign(bytes_: bytes) -> None:
    judged = judge_payload(bytes_, FACTS)
    assert (judged.operation, judged.commit) == (Operation.SIGN_OTHER, None)
    assert judged.reason


def test_a_tag_is_told_as_one() -> None:
    tag = (
        b"object "
        + PARENT
        + b"\ntype commit\ntag v1\ntagger Ada (Demo) <ada@example.test> 1700000100 +0000\n\nv1\n"
    )
    assert judge_payload(tag, FACTS).operation is Operation.SIGN_TAG


@pytest.mark.parametrize(
    "changes",
    [
        {"committer": b"Ada <ada@example.test> 1700000100 +0000"},  # the agent's work as the user's own
        {"committer": b"Ada (Demo) <ada@example.org> 1700000100 +0000"},
        {"committer": b"Ada (Demo)  <ada@example.test> 1700000100 +0000"},
        {"committer": b" Ada (Demo) <ada@example.test> 1700000100 +0000"},
        {"committer": b"Grace <grace@example.test> 1700000100 +0000"},
        {"author": b"Grace <grace@example.test> 1700000100 +0000"},
        {"author": b"ada <ada@example.test> 1700000100 +0000"},
        {"author": b"Ada <ada@example.test> %d +0000" % (SINCE - SLACK_S - 1)},
        {"committer": b"Ada (Demo) <ada@example.test> %d +0000" % (SINCE - SLACK_S - 1)},
        {"committer": b"Ada (Demo) <ada@example.test> %d +0000" % (NOW + SLACK_S + 1)},
        {"author": b"Ada <ada@example.test> 0 +0000"},
    ],
)
def test_a_commit_that_is_not_the_sessions_own_is_not_signed(changes: dict[str, bytes]) -> None:
    judged = judge_payload(payload(**changes), FACTS)  # type: ignore[arg-type]
    assert (judged.operation, judged.commit) == (Operation.SIGN_FOREIGN, None)
    assert judged.reason


def test_names_count_as_git_writes_them() -> None:
    facts = SigningFacts(
        object_format="sha1",
        authors=((" Ada. ", "ada@example.test"),),
        committer=(" Ada. (Demo)", "<ada@example.test>"),
        since=SINCE,
        now=NOW,
    )
    said = payload(committer=b"Ada. (Demo) <ada@example.test> 1700000100 +0000")
    assert judge_payload(said, facts).operation is Operation.SIGN_COMMIT
    assert clean_person("Ada <x>\n Byron,") == "Ada x Byron"


def test_ids_of_the_other_format() -> None:
    long = payload().replace(TREE, b"a" * 64).replace(PARENT, b"b" * 64)
    assert parse_commit(long, object_format="sha256").tree == "a" * 64
    for data, other in ((long, "sha1"), (payload(), "sha256")):
        with pytest.raises(CommitError):
            parse_commit(data, object_format=other)


@given(st.binary(max_size=300))
def test_any_bytes_are_judged(data: bytes) -> None:
    assert judge_payload(data, FACTS).commit is None


@given(st.integers(0, len(payload()) - 1), st.integers(0, 255), st.integers(0, 2))
def test_a_changed_commit_is_signed_only_as_what_it_says(at: int, byte: int, how: int) -> None:
    """Whatever is put in, taken out or changed: what may be signed is the same commit when it is written again."""
    whole = payload()
    kept = (whole[:at] + bytes([byte]), whole[:at], whole[:at] + bytes([byte]))[how]
    changed = kept + whole[at + (how != 2) :]
    judged = judge_payload(changed, FACTS)
    if judged.commit is None:
        return
    one = judged.commit
    again = payload(
        author=b"%b <%b> %d +0000" % (one.author.name, one.author.email, one.author.when),
        committer=b"%b <%b> %d +0000" % (one.committer.name, one.committer.email, one.committer.when),
        parents=tuple(parent.encode() for parent in one.parents),
        message=one.message,
    ).replace(TREE, one.tree.encode())
    zones = (b" +0000", b" -0000")
    head = changed.partition(b"\n\n")[0]
    if head.count(zones[0]) == 2:
        assert again == changed
    assert (one.committer.name, one.committer.email) == (b"Ada (Demo)", b"ada@example.test")


def test_a_signature_stands_where_git_puts_it() -> None:
    signed = with_signature(payload(), b"-----BEGIN\nabc\n-----END\n", object_format="sha1")
    assert b"+0000\ngpgsig -----BEGIN\n abc\n -----END\n\nFix it\n" in signed
    assert b"\ngpgsig-sha256 " in with_signature(payload(), b"x\n", object_format="sha256")
    empty = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert object_id("blob", b"", object_format="sha1") == empty


def test_the_policy_has_its_rows() -> None:
    text = (Path(__file__).parents[2] / "src/coding_agents/policy/matrix.toml").read_text("utf-8")
    rows = {row["operation"]: (row["tier"], row["effect"]) for row in tomllib.loads(text)["rule"]}
    assert rows["sign.commit"] == (2, "allow")
    for name in ("sign.foreign", "sign.tag", "sign.other"):
        assert rows[name] == (3, "refuse")


# --- what the user's git says ----------------------------------------------------------------------------------------


def listing(*entries: tuple[str, str, str]) -> str:
    return "".join(f"{scope}\0{key}\n{value}\0" for scope, key, value in entries)


def test_a_program_is_the_users_own_and_never_the_repositorys() -> None:
    said = listing(
        ("global", "gpg.program", "/opt/gpg"),
        ("local", "gpg.program", "/tmp/evil"),
        ("local", "gpg.openpgp.program", "/tmp/evil"),
        ("worktree", "gpg.ssh.program", "/tmp/evil"),
        ("command", "gpg.program", "/tmp/evil"),
        ("local", "user.signingkey", "ABCD"),
        ("global", "commit.gpgsign", "yes"),
    )
    assert parse_signing(said) == SigningConfig("openpgp", "ABCD", "/opt/gpg", signs=True)
    ssh = listing(("global", "gpg.format", "SSH"), ("local", "gpg.ssh.program", "/tmp/evil"))
    assert parse_signing(ssh) == SigningConfig("ssh", "", "ssh-keygen")
    assert parse_signing(listing(("global", "gpg.format", "x509"))).format == ""
    assert parse_signing("global\0commit.gpgsign\0").signs  # a key without a value means true
    assert parse_signing("") == SigningConfig()


def test_literal_keys() -> None:
    assert literal_ssh_key("ssh-ed25519 AAAA comment\n") == "ssh-ed25519 AAAA"
    for text in ("", "~/.ssh/id", "ssh-ed25519", "key::", "key::-oEvil x", "ssh-ed25519 AA\nAA"):
        assert literal_ssh_key(text) == ""


# --- what helpers answer ---------------------------------------------------------------------------------------------

PGP = b"-----BEGIN PGP SIGNATURE-----\n\niHUEABYK\n=abcd\n-----END PGP SIGNATURE-----\n"
CREATED = b"[GNUPG:] SIG_CREATED D 22 8 00 1700000100 " + b"A" * 40 + b"\n"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPg="
BLOB = (
    b"SSHSIG\0\0\0\1",
    key_blob(KEY),
    b"git",
    b"",
    b"sha512",
    b"signature",
)


def ssh_answer(*parts: bytes) -> bytes:
    import base64

    blob = parts[0] + b"".join(len(part).to_bytes(4) + part for part in parts[1:])
    text = base64.b64encode(blob)
    return (
        b"-----BEGIN SSH SIGNATURE-----\n"
        + text[:70]
        + b"\n"
        + text[70:]
        + b"\n-----END SSH SIGNATURE-----\n"
    )


def test_an_answer_of_gpg() -> None:
    assert read_openpgp(PGP, b"gpg: x\n" + CREATED).key == "A" * 40
    for output, status in (
        (b"", CREATED),
        (PGP, b""),
        (PGP, CREATED * 2),
        (PGP + b"x", CREATED),
        (b"x\n" + PGP, CREATED),
        (PGP * 2, CREATED),
        (PGP.replace(b"\n\n", b"\n\x1b[2J\n"), CREATED),
        (PGP.replace(b"iHUEABYK", b"i" * 40_000), CREATED),
        (PGP, b"x" + CREATED),
    ):
        with pytest.raises(AnswerError):
            read_openpgp(output, status)


def test_an_answer_of_ssh_keygen() -> None:
    assert read_ssh(ssh_answer(*BLOB), key=KEY).key.startswith("SHA256:")
    magic, public, namespace, reserved, hashed, signed = BLOB
    for parts in (
        (magic, public + b"x", namespace, reserved, hashed, signed),  # by another key
        (magic, public, b"file", reserved, hashed, signed),
        (magic, public, namespace, b"x", hashed, signed),
        (magic, public, namespace, reserved, b"md5", signed),
        (magic, public, namespace, reserved, hashed, b""),
        (magic, public, namespace, reserved, hashed),
        (*BLOB, b"more"),
        (b"SSHSIG\0\0\0\2", *BLOB[1:]),
    ):
        with pytest.raises(AnswerError):
            read_ssh(ssh_answer(*parts), key=KEY)
    for output in (b"", b"garbage", ssh_answer(*BLOB) * 2, ssh_answer(*BLOB).replace(b"U", b"!", 1)):
        with pytest.raises(AnswerError):
            read_ssh(output, key=KEY)
    with pytest.raises(AnswerError):
        read_ssh(ssh_answer(*BLOB), key="nonsense")


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_answer_is_read_or_refused(output: bytes, status: bytes) -> None:
    with pytest.raises(AnswerError):
        read_openpgp(output, status)
    with pytest.raises(AnswerError):
        read_ssh(output, key=KEY)


def test_why_a_helper_did_not_sign() -> None:
    said = {
        b"gpg: signing failed: No pinentry": "locked",
        b'Load key "k": incorrect passphrase supplied to decrypt private key': "locked",
        b"[GNUPG:] INV_SGNR 9 nobody@example.test": "missing",
        b'skipped "x": Unusable secret key\n[GNUPG:] INV_SGNR 9 x': "unusable",
        b"boom": "failed",
    }
    assert {words: why_not(words) for words in said} == said
