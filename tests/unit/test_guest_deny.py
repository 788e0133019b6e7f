"""The guest's deny-list against the host's, on the rules that come with coding-agents."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from coding_agents.workspace.deny import load_deny_list
from coding_agents_guest.deny import DenyList

HOST = load_deny_list()
GUEST = DenyList(HOST.patterns)
ALLOWED = DenyList([pattern[1:] for pattern in HOST.patterns if pattern.startswith("!")])
# Words from which names are made that come near to some pattern.
WORDS = [pattern.strip("!*/").replace("*", "x").replace("?", "y") for pattern in HOST.patterns]
NAMES = st.lists(
    st.sampled_from([*WORDS, "/", ".", "a", "X", ".example", ".pub"]), min_size=1, max_size=4
).map("".join)


@pytest.mark.parametrize(
    ("path", "denied"),
    [
        (".env", True),
        ("deep/down/.ENV", True),
        (".env.local", True),
        (".env.example", False),
        ("a.pem", True),
        ("a.pem/readme", False),
        (".ssh/anything", True),
        ("x/.ssh/deep/anything", True),
        (".ssh", False),
        ("my.ssh/config", False),
        (".docker/config.json", True),
        ("x/.docker/config.json", True),
        ("config.json", False),
        (".npmrc", True),
        ("with\nline/id_rsa", True),
    ],
)
def test_paths(path: str, denied: bool) -> None:
    assert GUEST.denies(path) is denied


@given(NAMES | st.text(min_size=1))
def test_guest_and_host_agree(path: str) -> None:
    assume(not path.endswith("/"))  # no path of a file
    denied_by_content = HOST.depends_on_content(path) and not ALLOWED.denies(path)
    assert GUEST.denies(path) is (HOST.matches(path) or denied_by_content)


@given(st.text(min_size=1).filter(lambda path: not path.endswith("/")))
def test_an_empty_list_denies_nothing(path: str) -> None:
    assert not DenyList([]).denies(path)
