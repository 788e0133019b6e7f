"""The deny-list: what counts as a secret, and that host and guest read it the same way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.errors import ConfigError
from coding_agents.workspace.deny import DenyList, load_deny_list
from coding_agents_guest.deny import DenyList as GuestDenyList

DENY = load_deny_list()


@pytest.mark.parametrize(
    "path",
    [
        ".env", ".env.local", ".ENV", "app/.env.production", "prod.env", ".envrc",
        "server.pem", "a/b/tls.key", "store.JKS", "id_rsa", "id_ed25519_work", "keys/.ssh/config",
        ".netrc", ".git-credentials", "x/.aws/credentials", ".docker/config.json", ".kube/config",
        "terraform.tfstate", "terraform.tfstate.backup", "prod.tfvars", "secrets.yaml", "credentials.json",
        "service-account-prod.json", "a-firebase-adminsdk-x.json",
    ],
)  # fmt: skip
def test_secrets_are_denied(path: str) -> None:
    assert DENY.matches(path)


@pytest.mark.parametrize(
    "path",
    [
        ".env.example", "app/.env.sample", ".env.template", "terraform.tfvars.example", "id_rsa.pub",
        "environment.py", "src/secrets.py", "docs/keys.md", "docker/config.json", "config.json",
        "monkey", "pem", ".npmrc", "aws/credentials.md", "README",
    ],
)  # fmt: skip
def test_ordinary_files_are_not(path: str) -> None:
    assert not DENY.matches(path)


@pytest.mark.parametrize(
    ("path", "content", "secret"),
    [
        (".npmrc", b"//registry.example/:_authToken=abc\n", True),
        ("web/.npmrc", b"save-exact=true\n", False),
        ("pip.conf", b"index-url = https://me:word@host.example/simple\n", True),
        ("pip.conf", b"index-url = https://host.example/simple\n", False),
        ("gradle.properties", b"signing.password=x\n", True),
        ("gradle.properties", b"org.gradle.parallel=true\n", False),
        ("other.txt", b"_authToken=abc", False),
    ],
)
def test_settings_files_are_denied_by_content(path: str, content: bytes, secret: bool) -> None:
    assert DENY.matches_content(path, content) is secret
    assert DENY.depends_on_content(path) is (path != "other.txt")


_WORDS = st.sampled_from(
    ["env", "pem", "key", "id_rsa", "aws", "ssh", "npmrc", "example", "pub", "a", "tfstate"]
)
_NAMES = st.lists(_WORDS, min_size=1, max_size=3).flatmap(
    lambda words: st.sampled_from([".".join(words), "." + ".".join(words), "_".join(words), "-".join(words)])
)


@given(st.lists(_NAMES, min_size=1, max_size=3).map("/".join))
def test_guest_agrees_on_names(path: str) -> None:
    expected = DENY.matches(path) or DENY.depends_on_content(path)
    assert GuestDenyList(DENY.patterns).denies(path) is expected


@given(st.text(max_size=40))
def test_guest_agrees_on_any_text(path: str) -> None:
    expected = DENY.matches(path) or DENY.depends_on_content(path)
    assert GuestDenyList(DENY.patterns).denies(path) is expected


@given(
    st.sampled_from([p for p in DENY.patterns if not p.startswith("!")]), st.sampled_from(["", "x/", "a/b/"])
)
def test_every_pattern_denies_a_path_at_every_depth(pattern: str, prefix: str) -> None:
    name = pattern.replace("*", "X").replace("?", "Y")
    path = prefix + (f"{name}inner" if pattern.endswith("/") else name)
    assert DENY.matches(path) or DENY.depends_on_content(path)


@pytest.mark.parametrize(
    "text",
    [
        "deny = [", "deny = []\nallow = []", "deny = 1\nallow = []\n[content]",
        'deny = ["a/*.b"]\nallow = []\n[content]', 'deny = ["[ab]"]\nallow = []\n[content]',
        'deny = []\nallow = []\nmore = 1\n[content]', 'deny = []\nallow = []\n[content]\na = "("',
        'deny = []\nallow = []\n[content]\n"a/b" = "x"', "deny = []\nallow = []\ncontent = 3",
    ],
)  # fmt: skip
def test_malformed_rules_are_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="deny-list"):
        DenyList.parse(text)
