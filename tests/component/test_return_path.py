"""Nothing that came back, and nothing that the user's git is set up to run, runs because of our git calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from coding_agents.gitsync.base import give, open_base
from coding_agents.gitsync.branches import (
    archive_existing,
    branch_names,
    branch_state,
    delete_branch,
    is_merged,
)
from coding_agents.gitsync.discover import discover
from coding_agents.gitsync.findings.budget import Account, Budget
from coding_agents.gitsync.findings.scan import Subject, scan
from coding_agents.gitsync.integrate import Landing, integrate, keep_incoming
from coding_agents.gitsync.packs import Store, copy_closure, user_store
from coding_agents.gitsync.relay_repo import Relay, create_relay
from coding_agents.gitsync.summary import summarize
from coding_agents.model.refs import Branch, Oid
from coding_agents.model.repo import RepoFacts
from support.repos import BRANCH, SESSION, commit, git_env, head, make_repo, sh

HOOKS = (
    "reference-transaction", "post-checkout", "post-merge", "pre-auto-gc", "update", "pre-receive",
    "post-receive", "post-update", "post-index-change", "fsmonitor-watchman", "proc-receive",
)  # fmt: skip
PROGRAMS = (
    "core.fsmonitor", "core.alternateRefsCommand", "core.pager", "core.editor", "core.sshCommand", "core.askPass",
    "core.gitProxy", "diff.external", "diff.evil.textconv", "diff.evil.command", "filter.evil.clean",
    "filter.evil.smudge", "filter.evil.process", "merge.evil.driver", "gpg.program", "uploadpack.packObjectsHook",
    "credential.helper", "sequence.editor",
)  # fmt: skip
VARIABLES = (
    "GIT_EXTERNAL_DIFF", "GIT_PAGER", "GIT_EDITOR", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_PROXY_COMMAND",
)  # fmt: skip


@dataclass
class Trap:
    """A user's repository in which the agent's branch is checked out and every trigger is armed."""

    repo: Path
    facts: RepoFacts
    relay: Relay
    base: Oid
    work: Oid
    marker: Path
    env: dict[str, str]

    def sprung(self) -> bool:
        return self.marker.exists()


LEVELS = ("repository", "home", "xdg", "environment")


@pytest.fixture(params=LEVELS)
def trap(tmp_path: Path, request: pytest.FixtureRequest) -> Trap:
    env = git_env(tmp_path / "home")
    repo = make_repo(tmp_path / "repo", env=env)
    base = head(repo, env=env)
    facts = discover(repo, env=env)
    store = open_base(tmp_path / "data", facts, env=env)
    give(store, facts, base)
    relay = create_relay(
        tmp_path / "relay.git", base_store=store, branch=BRANCH, base=base, base_branch="main"
    )
    marker = tmp_path / "sprung"
    work = _agent_branch(repo, marker, env)
    copy_closure(user_store(facts, env), relay.store, tips=[work], known=[base])
    relay.store.git("update-ref", BRANCH.ref, work)
    env = _arm(repo, request.param, env)
    marker.unlink(missing_ok=True)  # making the branch ran the hooks, as a user's own git does
    return Trap(repo, facts, relay, base, work, marker, env)


def _agent_branch(repo: Path, marker: Path, env: dict[str, str]) -> Oid:
    """What the agent committed: hooks for husky's directory, and attributes that name drivers."""
    sh(repo, "checkout", "-qb", BRANCH.short, env=env)
    script = f"#!/bin/sh\ntouch '{marker}'\n"
    for hook in HOOKS:
        commit(repo, f".husky/{hook}", script, env=env)
        (repo / ".husky" / hook).chmod(0o755)
    commit(repo, "run.sh", script, env=env)
    (repo / "run.sh").chmod(0o755)
    sh(repo, "commit", "-qam", "x", env=env)
    return commit(repo, ".gitattributes", "* diff=evil filter=evil merge=evil\n", env=env)


def _arm(repo: Path, level: str, env: dict[str, str]) -> dict[str, str]:
    """Arm every trigger at one level of git's configuration; the user's environment from then on."""
    run = str(repo / "run.sh")
    settings = {
        # Absolute: git resolves a relative one against the directory it runs in, for us never the tree.
        "core.hooksPath": str(repo / ".husky"),
        "log.showSignature": "true",
        "gc.auto": "1",
        "maintenance.auto": "true",
        "fetch.recurseSubmodules": "true",
        **dict.fromkeys(PROGRAMS, run),
    }
    if level == "environment":
        return {
            **env,
            "GIT_CONFIG_COUNT": str(len(settings)),
            **{f"GIT_CONFIG_KEY_{number}": key for number, key in enumerate(settings)},
            **{f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(settings.values())},
            **dict.fromkeys(VARIABLES, run),
        }
    home = Path(env["HOME"])
    path = {
        "repository": repo / ".git/config",
        "home": home / ".gitconfig",
        "xdg": home / ".config/git/config",
    }[level]
    path.parent.mkdir(parents=True, exist_ok=True)
    for key, value in settings.items():
        sh(repo, "config", "--file", str(path), key, value, env=env)
    return env


def test_the_trap_is_armed(trap: Trap) -> None:
    sh(trap.repo, "update-ref", "refs/heads/x", trap.base, env=trap.env)
    assert trap.sprung()


def _integrate(trap: Trap) -> None:
    result = integrate(trap.facts, trap.relay, session=SESSION, expected_old=trap.work, env=trap.env)
    assert result.where is Landing.BRANCH
    other = head(trap.repo, "HEAD~1", env=trap.env)
    later = integrate(trap.facts, trap.relay, session=SESSION, expected_old=None, env=trap.env, tip=other)
    assert (later.where, later.ref) == (Landing.INCOMING, f"refs/coding-agents/incoming/{SESSION}")


def _archive(trap: Trap) -> None:
    other = Branch.parse("other", agent="demo")
    user_store(trap.facts, trap.env).git("branch", other.short, trap.work)
    assert archive_existing(trap.facts, other, now_ms=0, env=trap.env).startswith("demo/other-archived-")


def _give(trap: Trap) -> None:
    give(open_base(trap.relay.git_dir.parent / "data", trap.facts, env=trap.env), trap.facts, trap.work)


def _review(store: Store, trap: Trap) -> None:
    subject = Subject(trap.base, trap.work, trap.base, ("Ada", "ada@example.test"))
    found = scan(store, subject, account=Account(Budget()), is_secret_name=lambda _: False)
    assert {"hooks", "git.attributes", "mode.executable"} <= {one.rule for one in found}


CALLS: dict[str, Callable[[Trap], object]] = {
    "discover": lambda trap: discover(trap.repo, env=trap.env),
    "give": _give,
    "branch names": lambda trap: branch_names(trap.facts, env=trap.env),
    "branch state": lambda trap: branch_state(trap.facts, BRANCH, base=trap.base, env=trap.env),
    "integrate": _integrate,
    "archive": _archive,
    "is merged": lambda trap: is_merged(trap.facts, BRANCH, env=trap.env),
    "delete branch": lambda trap: delete_branch(trap.facts, BRANCH, expected=trap.work, env=trap.env),
    "keep incoming": lambda trap: keep_incoming(
        trap.facts, trap.relay, name=SESSION, tip=trap.work, env=trap.env
    ),
    "summary": lambda trap: summarize(user_store(trap.facts, trap.env), base=trap.base, tip=trap.work),
    "review": lambda trap: _review(user_store(trap.facts, trap.env), trap),
    "review of the relay": lambda trap: _review(trap.relay.store, trap),
    "summary of the relay": lambda trap: summarize(trap.relay.store, base=trap.base, tip=trap.work),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_nothing_runs(trap: Trap, call: Callable[[Trap], object]) -> None:
    call(trap)
    assert not trap.sprung()
