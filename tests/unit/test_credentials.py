"""Credentials are recognised by format and by name; dummies and ordinary values are not."""

from __future__ import annotations

import pytest

from coding_agents.sandbox.credentials import credential_in, credentials_in_environment

_LONG = "Ab3" * 20


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ghp_" + _LONG, "GitHub token"),
        ("github_pat_" + _LONG, "GitHub token"),
        ("x=gho_" + _LONG, "GitHub token"),
        ("glpat-" + _LONG, "GitLab token"),
        ("sk-ant-api03-" + _LONG, "Anthropic key"),
        ("sk-ant-oat01-" + _LONG, "Anthropic key"),
        ("sk-proj-" + _LONG, "OpenAI key"),
        ("AIza" + _LONG[:35], "Google key"),
        ("AKIA" + "A2" * 8, "AWS key"),
        ("xoxb-" + _LONG, "Slack token"),
        ("npm_" + _LONG[:36], "npm token"),
        ("hf_" + _LONG, "Hugging Face token"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
        ("https://ann:hunter2@example.org/x.git", "URL with a password"),
        ("eyJ" + _LONG + ".eyJ" + _LONG + ".sig", "JSON web token"),
    ],
)
def test_formats(text: str, kind: str) -> None:
    assert credential_in(f"before {text} after") == kind


@pytest.mark.parametrize(
    "text",
    ["", "C.UTF-8", "/home/ann/shop", "sk-learn", "task-1", "sha256:" + "1" * 64, "https://example.org/x.git",
     "http://127.0.0.1:8099", "ssh://git@example.org/x.git"],
)  # fmt: skip
def test_ordinary_values(text: str) -> None:
    assert credential_in(text) == ""


@pytest.mark.parametrize(
    "name", ["GITHUB_TOKEN", "ANTHROPIC_API_KEY", "MY_SECRET", "db_password", "KEY", "AWS_CREDENTIALS"]
)
def test_names_of_secrets_need_dummy_values(name: str) -> None:
    assert credentials_in_environment([(name, "swordfish")]) == [
        f"environment variable {name} has the name of a secret and a value"
    ]
    for dummy in ("", "dummy", "sk-ant-dummy", "placeholder", "dummy-key", "not-a-secret"):
        assert credentials_in_environment([(name, dummy)]) == []


def test_a_value_is_never_repeated() -> None:
    value = "ghp_" + _LONG
    (line,) = credentials_in_environment([("X", value)])
    assert value not in line


def test_ordinary_names() -> None:
    assert (
        credentials_in_environment([("KEYBOARD", "us"), ("MONKEY", "no"), ("HOME", "/home/agentuser")]) == []
    )
