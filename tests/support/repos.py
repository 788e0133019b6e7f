"""Real git repositories for tests, independent of whoever runs them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from coding_agents.model.refs import Branch, Oid

AGENT = "demo"
BRANCH = Branch.parse("work", agent=AGENT)
SESSION = "0123456789ab"


def git_env(home: Path) -> dict[str, str]:
    """A user's environment: an identity, and nothing of the machine's git configuration."""
    home.mkdir(parents=True, exist_ok=True)
    config = home / ".gitconfig"
    if not config.exists():
        config.write_text(
            "[user]\n\tname = Ada\n\temail = ada@example.test\n[init]\n\tdefaultBranch = main\n"
            "[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n"
        )
    return {"PATH": os.environ["PATH"], "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}


def sh(cwd: Path, *args: str, env: Mapping[str, str], check: bool = True, stdin: str = "") -> str:
    """Run git as a user would; its standard output without the last line break."""
    done = subprocess.run(
        ["git", *args], cwd=cwd, env=dict(env), input=stdin, capture_output=True, text=True, check=False
    )
    if check and done.returncode != 0:
        raise AssertionError(f"git {' '.join(args)}: {done.stderr}")
    return done.stdout.removesuffix("\n")


def sh_fails(cwd: Path, *args: str, env: Mapping[str, str], stdin: str = "") -> str:
    """Run git, which must fail; its standard error."""
    done = subprocess.run(
        ["git", *args], cwd=cwd, env=dict(env), input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        raise AssertionError(f"git {' '.join(args)} succeeded: {done.stdout}{done.stderr}")
    return done.stderr


def make_repo(path: Path, *, env: Mapping[str, str], commits: int = 2) -> Path:
    """A repository with `commits` commits on main, each adding a line to README."""
    path.mkdir(parents=True)
    sh(path, "init", "--quiet", env=env)
    for number in range(commits):
        commit(path, "README", f"line {number}\n", env=env, append=True)
    return path


def commit(
    repo: Path, name: str, text: str, *, env: Mapping[str, str], append: bool = False, message: str = ""
) -> Oid:
    """Commit one file; the new commit."""
    target = repo / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("a" if append else "w") as handle:
        handle.write(text)
    sh(repo, "add", "--force", "--", name, env=env)
    sh(repo, "commit", "--quiet", "-m", message or f"change {name}", env=env)
    return head(repo, env=env)


def head(repo: Path, rev: str = "HEAD", *, env: Mapping[str, str]) -> Oid:
    return Oid.parse(sh(repo, "rev-parse", rev, env=env))
