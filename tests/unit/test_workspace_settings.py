"""The allow-list of git settings that travel."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coding_agents.workspace.settings import parse_config, render_config, travelling, without_userinfo

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=30)


def test_only_the_last_checked_value_travels() -> None:
    output = (
        b"global\0core.autocrlf\ntrue\0local\0core.autocrlf\ninput\0local\0core.filemode\0"
        b"command\0core.eol\ncrlf\0local\0core.eol\nlf; rm\0local\0core.hookspath\n/x\0"
        b"local\0remote.origin.url\nhttps://a:b@c/d\0local\0http.https://x/.extraheader\nsecret\0"
    )
    assert travelling(parse_config(output)) == [("core.autocrlf", "input"), ("core.filemode", "true")]


def test_what_the_users_disk_is_like_does_not_travel() -> None:
    """With this setting git adds no `readme` beside a `README`; a container's disk can have both."""
    assert travelling([("core.ignorecase", "true"), ("core.symlinks", "false")]) == [
        ("core.symlinks", "false")
    ]


KEYS = ["core.autocrlf", "core.editor", "alias.x", "filter.x.clean", "include.path", "status.renames"]


@given(st.dictionaries(st.sampled_from(KEYS), TEXT))
def test_nothing_but_the_allow_list_travels(values: dict[str, str]) -> None:
    chosen = travelling(values.items())
    assert {key for key, _ in chosen} <= {"core.autocrlf", "status.renames"}
    assert all(value.isalnum() for _, value in chosen)


def test_lfs_is_always_the_program_of_the_image() -> None:
    chosen = dict(travelling([("filter.lfs.clean", "evil"), ("filter.lfs.process", "evil")]))
    assert chosen["filter.lfs.clean"] == "git-lfs clean -- %f"
    assert "evil" not in chosen.values()


def test_submodules_keep_address_but_no_password() -> None:
    chosen = travelling(
        [
            ("submodule.lib.url", "https://me:word@host.example/lib.git"),
            ("submodule.lib.active", "true"),
            ("submodule.lib.update", "!evil"),
            ("submodule.local.url", "/home/me/private"),
        ]
    )
    assert chosen == [("submodule.lib.url", "https://host.example/lib.git"), ("submodule.lib.active", "true")]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://u:p@h.example:8443/a?token=x#y", "https://h.example:8443/a"),
        ("ssh://git@h.example/a", "ssh://git@h.example/a"),
        ("ssh://me:p@h.example/a", "ssh://h.example/a"),
        ("git@h.example:a/b.git", "git@h.example:a/b.git"),
        ("ext::sh -c x", ""), ("-oProxyCommand=x", ""), ("/path", ""), ("file:///x", ""), ("https://[", ""),
        ("https://h\n.example/a", ""),
    ],
)  # fmt: skip
def test_addresses_lose_what_is_secret(url: str, expected: str) -> None:
    assert without_userinfo(url) == expected


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.text(
        st.characters(exclude_characters="\0\n", exclude_categories=("Cs",)), min_size=1, max_size=20
    ),
    value=TEXT,
)
def test_git_reads_back_what_is_rendered(tmp_path: Path, name: str, value: str) -> None:
    wanted = [(f"submodule.{name}.url", value), ("core.eol", "lf"), ("core.x", value)]
    path = tmp_path / "config"
    path.write_text(render_config(wanted), encoding="utf-8", newline="")
    listed = subprocess.run(
        ["git", "config", "--file", str(path), "--list", "--null", "--show-scope"],
        capture_output=True, check=True, env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    ).stdout.replace(b"command\0", b"local\0")  # fmt: skip
    assert parse_config(listed) == wanted
