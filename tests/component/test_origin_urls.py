"""Which addresses git in a session takes for its origin, asked of git itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from coding_agents.gitsync.origin_urls import guest_sections, same_address
from coding_agents.model.gitconfig import render
from coding_agents.model.origin import MOST_PLACES, Origin
from coding_agents_guest.gitconfig import MAX_TEXT
from support.repos import git_env

HTTPS = "https://forge.example/team/app.git"
OURS = "git://coding-agents/origin"


def effective(tmp_path: Path, origins: list[Origin], addresses: list[str]) -> dict[str, str]:
    """The address that git would reach for each."""
    env = git_env(tmp_path / "home")
    (tmp_path / "home" / ".gitconfig").write_text(render(guest_sections(origins)))
    return {
        one: subprocess.run(
            ("git", "ls-remote", "--get-url", one), env=env, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()
        for one in addresses
    }  # fmt: skip


@pytest.mark.parametrize(
    ("address", "spellings"),
    [
        (HTTPS, ["https://forge.example/team/app", "https://forge.example/team/app/", "https://git@forge.example/team/app.git",
                 "git@forge.example:team/app.git", "git@forge.example:team/app", "ssh://git@forge.example/team/app.git"]),
        ("git@forge.example:team/app.git", [HTTPS, "https://forge.example/team/app", "ssh://git@forge.example/team/app"]),
        ("https://forge.example:8443/team/app", ["https://forge.example:8443/team/app.git"]),
        ("ssh://git@forge.example:2222/team/app", ["ssh://git@forge.example:2222/team/app.git"]),
        ("/srv/git/app.git", ["/srv/git/app"]),
    ],
)  # fmt: skip
def test_each_spelling_leads_to_the_host(tmp_path: Path, address: str, spellings: list[str]) -> None:
    found = effective(tmp_path, [Origin("origin", address, address)], [address, *spellings])
    assert found == dict.fromkeys((address, *spellings), OURS)
    assert all(same_address(address, one) for one in spellings)


def test_neighbours_stay_where_they_are(tmp_path: Path) -> None:
    """Names that only begin like it; also the pages of the same project."""
    neighbours = [
        f"{start}{end}"
        for start in ("https://forge.example/team/app", "git@forge.example:team/app")
        for end in ("-docs.git", "2", "_x", ".github.io", ".gitlab.io.git", ".wiki.git", "Docs", ".git-hooks")
    ]
    neighbours += ["https://forge.example/team/ap", "https://forge.example.evil/team/app.git"]
    found = effective(tmp_path, [Origin("origin", HTTPS, HTTPS)], neighbours)
    assert found == {one: one for one in neighbours}
    assert not any(same_address(HTTPS, one) for one in neighbours)


def test_as_many_as_there_may_be_fit() -> None:
    """The own origin is among them whole; of the last ones some spellings may be missing."""
    long = "x" * 100
    origins = [
        Origin("origin" if n == 0 else f"origin/{n}", f"https://forge.example/{long}/{n}.git")
        for n in range(MOST_PLACES + 1)
    ]
    text = render(guest_sections(origins))
    assert len(text) < MAX_TEXT
    assert f'insteadOf = "git@forge.example:{long}/0.git"' in text
    assert f'insteadOf = "https://forge.example/{long}/1.git"' in text


def test_an_address_that_cannot_be_written_is_left_out() -> None:
    assert "evil" not in render(guest_sections([Origin("origin", "/srv/evil\n[core]")]))
