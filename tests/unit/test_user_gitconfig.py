"""Of the user's ~/.gitconfig only what neither runs anything nor holds a secret goes into a session."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.workspace.user_gitconfig import sanitised, user_gitconfig
from support.host import host_environment
from support.logins import put

SECRET = "ghp_" + "a" * 36
WHOLE = f"""
[user]
	name = "Ada Löve \\"the\\" \\\\ lace"
	email = ada@example.test
	signingKey = ABC
[alias]
	lg = log --graph --format='%h %s'
	st = status -sb
	run = !rm -rf /
	opt = -c core.pager=evil log
	deep = log -c core.pager=evil
	sub = rebase --exec 'make test'
	tick = log `x`
[color "diff"]
	meta = yellow bold
[color]
	ui = auto
[pull]
	rebase = true
[advice]
	detachedHead = false
[credential]
	helper = store
[credential "https://git.example"]
	username = ada
[core]
	editor = vim
	pager = delta
	sshCommand = ssh -i ~/.ssh/x
	fsmonitor = /tmp/x
	hooksPath = /tmp/hooks
	askPass = /x
	attributesFile = ~/a
	excludesFile = ~/e
	quotePath = false
[commit]
	gpgSign = true
	template = ~/t
[gpg]
	program = /x
[diff "pdf"]
	textconv = pdftotext
[diff]
	external = difft
	algorithm = histogram
[filter "x"]
	clean = x
[merge]
	tool = meld
	conflictStyle = zdiff3
[http]
	extraHeader = Authorization: Basic {SECRET}
	proxy = http://me:secret@proxy.example
[url "https://{SECRET}@git.example/"]
	insteadOf = https://git.example/
[include]
	path = more
[includeIf "gitdir:~/"]
	path = more
[sendemail]
	smtpPass = {SECRET}
[init]
	templateDir = /x
	defaultBranch = trunk
[log]
	date = {SECRET}
[safe]
	directory = *
[protocol]
	allow = always
[remote]
	pushDefault = origin
[push]
	default = nothing
"""
EXPECTED = {
    "user.name": 'Ada Löve "the" \\ lace', "user.email": "ada@example.test", "alias.lg": "log --graph --format='%h %s'",
    "alias.st": "status -sb", "color.diff.meta": "yellow bold", "color.ui": "auto", "pull.rebase": "true",
    "advice.detachedhead": "false", "core.quotepath": "false", "diff.algorithm": "histogram",
    "merge.conflictstyle": "zdiff3", "init.defaultbranch": "trunk",
}  # fmt: skip


def listed(content: bytes, directory: Path) -> dict[str, str]:
    path = directory / "made"
    path.write_bytes(content)
    out = subprocess.run(
        ("git", "config", "--file", str(path), "--list", "--null"),
        capture_output=True,
        check=True,
        timeout=20,
    ).stdout.decode()
    return dict(one.split("\n", 1) for one in out.split("\0") if one)


def test_of_a_whole_configuration_the_harmless_part(tmp_path: Path) -> None:
    env = host_environment(tmp_path)
    put(tmp_path, ".gitconfig", WHOLE.encode())
    put(tmp_path, "more", b"[user]\n\tname = included\n[alias]\n\tx = log\n")
    made = user_gitconfig(env.for_git())
    assert listed(made, tmp_path) == EXPECTED
    assert SECRET.encode() not in made


@pytest.mark.parametrize("content", [None, b"", b"[user\n", b"\xff\xfe[user]\nname=x\n"])
def test_a_user_without_a_usable_configuration_has_none(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        put(tmp_path, ".gitconfig", content)
    assert user_gitconfig(host_environment(tmp_path).for_git()) == b""


KEYS = st.sampled_from(
    ["user.name", "alias.x", "color.diff.meta", "core.pager", "credential.helper", "include.path"]
)
RECORDS = st.tuples(KEYS | st.text(max_size=20), st.none() | st.text(max_size=30))


@given(st.lists(RECORDS, max_size=8))
def test_nothing_else_ever_comes_out(records: list[tuple[str, str | None]]) -> None:
    text = "\0".join(key if value is None else f"{key}\n{value}" for key, value in records)
    made = sanitised(text.encode("utf-8", "replace")).decode()
    for line in made.splitlines():
        assert line.startswith(("[user]", "[alias]", '[color "', "[color]", "[advice]", "\t")), line
        assert "pager" not in line.partition("=")[0]
        assert "helper" not in line.partition("=")[0]
