"""What a setting releases: by whole segments, in one spelling, and never more than it names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.model.release import (
    Given,
    Release,
    covering,
    parse_host,
    parse_key_grant,
    parse_path,
    parse_release,
)

FINGERPRINT = "SHA256:" + "a" * 43
SEGMENTS = st.sampled_from(["a", "ab", "a.git", "a.gitx", ".git", "A", "a-", "b"])  # near each other
PATHS = st.lists(SEGMENTS, min_size=1, max_size=4).map(tuple)


@pytest.mark.parametrize(
    ("entry", "host", "path", "covered"),
    [
        ("https://git.example/team/one", "git.example", "team/one", True),
        ("https://git.example/team/one", "git.example", "team/one.git", True),
        ("https://git.example/team/one.git", "git.example", "team/one", True),
        ("https://git.example/team/one", "git.example", "team/one.git/info/lfs", True),
        ("https://git.example/team/one", "git.example", "team/one-two", False),
        ("https://git.example/team/one", "git.example", "team/one.git.git", False),
        ("https://git.example/team", "git.example", "team.git/one", True),
        ("https://git.example/team/one", "git.example", "team", False),
        ("https://git.example/team/one", "git.example", "Team/one", False),
        ("https://git.example/team/one", "git.example", "other/team/one", False),
        ("https://git.example/team.git/one", "git.example", "team/one", False),
        ("https://git.example/team/one", "evil.example", "team/one", False),
        ("https://git.example/team/one", "git.example.evil.example", "team/one", False),
        ("https://git.example/team/one", "git.example:8443", "team/one", False),
        ("https://git.example:443/team/one", "git.example:443", "team/one", True),
        ("https://git.example/.git", "git.example", "x", False),
    ],
)
def test_a_place_is_covered_by_whole_segments(entry: str, host: str, path: str, covered: bool) -> None:
    assert parse_release(entry).covers(parse_host(host), parse_path(path)) is covered


@given(PATHS, PATHS)
def test_nothing_beside_an_entry_is_ever_covered(own: tuple[str, ...], other: tuple[str, ...]) -> None:
    def bare(one: str) -> str:
        return one.removesuffix(".git") or one

    expected = other[: len(own) - 1] == own[:-1] and len(other) >= len(own)
    expected = expected and bare(other[len(own) - 1]) == bare(own[-1])
    assert Release("git.example", own).covers("git.example", other) is expected


@pytest.mark.parametrize(
    "text",
    [
        "git.example/team", "http://git.example/team", "HTTPS://git.example/team", "ssh://git.example/team",
        "https://git.example", "https://git.example/", "https://git.example//team", "https://git.example/team//one",
        "https://git.example/../team", "https://git.example/./team", "https://git.example/team/%2e%2e",
        "https://me:secret@git.example/team", "https://@git.example/team", "https://Git.example/team",
        "https://git.example./team", "https://.example/team", "https://git.example:0/team",
        "https://git.example:99999/team", "https://git.example/team?x", "https://git.example/team#x",
        "https://git.example/te am", "https://git.example/team\n", "https://git.example\n/team",
        "https://gít.example/team", "https://git.example/" + "a/" * 600 + "b", "", "https:///team",
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_no_entry(text: str) -> None:
    with pytest.raises(ValueError, match=r"https|host|path|account|port") as refused:
        parse_release(text)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("https://git.example:443/team/", "https://git.example/team"),
        ("https://me@git.example:8443/a/b", "https://me@git.example:8443/a/b"),
        ("https://[::1]:8443/a", "https://[::1]:8443/a"),
    ],
)
def test_an_entry_has_one_spelling(text: str, spelled: str) -> None:
    assert parse_release(text).text == spelled
    assert parse_release(spelled).text == spelled


def test_the_most_exact_entry_counts() -> None:
    entries = [
        parse_release(f"https://{one}") for one in ("me@a.example/t", "you@a.example/t/x", "a.example/u")
    ]
    found = covering(entries, "a.example", ("t", "x.git"))
    assert found is not None
    assert found.user == "you"
    assert covering(entries, "a.example", ("v",)) is None


@pytest.mark.parametrize(
    ("text", "spelled", "known_as"),
    [
        (f"{FINGERPRINT}  git.example:22", f"{FINGERPRINT} git.example", "git.example"),
        (f"{FINGERPRINT} git.example:2222", f"{FINGERPRINT} git.example:2222", "[git.example]:2222"),
        (f"{FINGERPRINT} [::1]", f"{FINGERPRINT} [::1]", "::1"),
        (f"{FINGERPRINT} [::1]:2222", f"{FINGERPRINT} [::1]:2222", "[::1]:2222"),
    ],
)
def test_a_key_goes_with_one_host(text: str, spelled: str, known_as: str) -> None:
    assert parse_key_grant(text).text == spelled
    assert parse_key_grant(text).known_as == known_as


@pytest.mark.parametrize(
    "text",
    ["", FINGERPRINT, f"MD5:{'a' * 43} git.example", f"{FINGERPRINT} *.example",
     f"{FINGERPRINT} Git.example", f"{FINGERPRINT} a b", f"{FINGERPRINT[:-1]} a"],
)  # fmt: skip
def test_no_key_for_any_host(text: str) -> None:
    with pytest.raises(ValueError, match=r"key|host"):
        parse_key_grant(text)


def test_nothing_given_is_nothing() -> None:
    assert not Given()
    assert Given(files=("gh",))
