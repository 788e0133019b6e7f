"""What origin's server says, read strictly: lists of refs, the outcome of a push, and its own words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.errors import GitError
from coding_agents.gitsync import origin_push, origin_store
from coding_agents.gitsync.origin_address import Address
from coding_agents.gitsync.origin_store import parse_listing, unreachable
from coding_agents.model.approval import Wanted
from coding_agents.model.origin import FETCHED
from coding_agents.proc.runner import Outcome

A, B = "a" * 40, "b" * 40
WANTED = Wanted("s", "https://a.example/x", "refs/heads/topic", A, B, False, "f")


def test_a_listing() -> None:
    text = (
        f"ref: refs/heads/trunk\tHEAD\n{A}\tHEAD\n{A}\trefs/heads/trunk\n{B}\trefs/tags/v1\n{A}\trefs/tags/v1^{{}}\n"
        f"{A}\trefs/heads/a b\n{A}\trefs/heads/\x1b[0m\n{A}\trefs/heads/*\n"
        f"{A}x\trefs/heads/y\nrefs/heads/z\n{A}\t../x\n{A}\trefs/pull/1/head\n"
    )
    found = parse_listing(text, FETCHED)
    assert found.refs == {"refs/heads/trunk": A, "refs/tags/v1": B}
    assert found.default == "trunk"


def test_a_listing_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin_store, "MOST_REFS", 3)
    lines = [f"{A}\trefs/heads/{number}\n" for number in range(4)]
    assert len(parse_listing("".join(lines[:3]), FETCHED).refs) == 3
    with pytest.raises(GitError, match="more than 3"):
        parse_listing("".join(lines), FETCHED)


_PIECES = (A, "\t", "refs/", "heads/x", "\n", "HEAD", "ref: ", "^{}", "\0")


@given(st.text() | st.lists(st.sampled_from(_PIECES)).map("".join))
def test_any_listing_is_read(text: str) -> None:
    for ref in parse_listing(text, FETCHED).refs:
        assert ref.startswith("refs/")
        assert not set(ref) & set(" \n\t\0:*?[")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f" \t{B}:refs/heads/topic\t{A[:7]}..{B[:7]}", (" ", f"{A[:7]}..{B[:7]}")),
        (f"!\t{B}:refs/heads/topic\t[rejected] (stale info)", ("!", "[rejected] (stale info)")),
        (f" \t{B}:refs/heads/other\tok", None),
        (f" \t{A}:refs/heads/topic\tok", None),
        ("Done", None),
    ],
)
def test_the_outcome_of_a_push_is_that_of_its_ref(line: str, expected: tuple[str, str] | None) -> None:
    assert origin_push._status_line(f"To https://a.example/x\n{line}\nDone\n", WANTED) == expected


def test_a_servers_words_are_few() -> None:
    said = "".join(f"remote: {'x' * 500} {number}\n" for number in range(60)) + "fatal: not of the server\n"
    lines = origin_push._server_lines(said)
    assert len(lines) == 41
    assert lines[-1] == "(20 more lines)"
    assert max(map(len, lines)) == 300


def test_a_password_in_an_address_is_not_told() -> None:
    address = Address("https://ada:s3cret@a.example/x", "https://a.example/x")
    said = b"fatal: unable to access 'https://ada:s3cret@a.example/x/': ada:s3cret, s3cret: 403"
    error = unreachable(address, Outcome(("git",), 128, b"", said, 0.1), "fetched")
    assert "s3cret" not in f"{error.message}{error.details}{error.hint}"
    assert "s3cret" not in repr(address)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("fatal: could not read Username for 'https://a': terminal prompts disabled", "no credential"),
        (
            "git@a: Permission denied (publickey).\nfatal: Could not read from remote repository.",
            "no credential",
        ),
        ("fatal: unable to update url base from redirection:", "another address"),
        ("fatal: unable to access: The requested URL returned error: 302", "another address"),
        ("fatal: unable to access 'https://a/': Could not resolve host: a", "cannot be reached"),
        ("server certificate verification failed. CAfile: none", "does not trust its certificate"),
        ("error: index-pack died of signal 25", "a pack of more than 1024 MiB"),
        ("fatal: something", "git failed"),
    ],
)
def test_why_it_cannot_be_reached(said: str, why: str) -> None:
    address = Address("https://a.example/x", "https://a.example/x")
    outcome = Outcome(("git",), 128, b"", said.encode(), 0.1)
    assert why in unreachable(address, outcome, "fetched").message
