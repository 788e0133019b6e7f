"""A user's repository with a session on it, for what `review` says of it."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest

from coding_agents.cli import merge as merge_verb
from coding_agents.cli import review as review_verb
from coding_agents.cli.context import AppContext
from coding_agents.cli.output import Output
from coding_agents.gitsync.base import give, open_base
from coding_agents.gitsync.discover import discover
from coding_agents.gitsync.findings.budget import Account, Budget
from coding_agents.gitsync.findings.model import Finding
from coding_agents.gitsync.findings.scan import Subject, scan
from coding_agents.gitsync.packs import copy_closure, user_store
from coding_agents.gitsync.relay_repo import create_relay
from coding_agents.model.refs import Oid
from coding_agents.model.session import RepoRef
from coding_agents.supervisor.context import SessionContext
from coding_agents.workspace.launch_state import record_launch_state
from coding_agents.workspace.listing import plan_copy
from support.host import host_environment
from support.repos import BRANCH, SESSION, git_env, head, make_repo, sh
from support.sessions import session_record

TOKEN = "gh" + "p_" + "aZ3kQ9xW7vB2nM5cL8tR4yU6iO1pS0dF3gHj"


@dataclass
class Project:
    """A user's repository with a session on it: `guest` is the agent's clone, `relay` what it pushed to."""

    home: Path
    repo: Path
    guest: Path
    env: dict[str, str]
    records: list[dict[str, object]] = field(default_factory=list)

    @property
    def context(self) -> AppContext:
        self.out, self.err = io.StringIO(), io.StringIO()
        return AppContext(host_environment(self.home, PATH=self.env["PATH"]), Output(self.out, self.err))

    @property
    def session(self) -> SessionContext:
        app = self.context
        return SessionContext.find(app.env, app.store, SESSION)

    def push(self) -> Oid:
        """What the agent has committed arrives in the relay."""
        tip = head(self.guest, env=self.env)
        facts = discover(self.guest, env=self.env)
        relay = self.session.relay
        copy_closure(user_store(facts, self.env), relay.store, tips=[tip])
        relay.store.git("update-ref", BRANCH.ref, tip)
        return tip

    def write(self, name: str, data: str | bytes, mode: int = 0o644) -> None:
        path = self.guest / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        path.chmod(mode)

    def commit(self) -> None:
        sh(self.guest, "add", "-A", "--force", env=self.env)
        sh(self.guest, "commit", "-qm", "work", env=self.env)

    def json(self) -> dict[str, Any]:
        review_verb.command.main([SESSION, "--json"], standalone_mode=False, obj=self.context)
        result: dict[str, Any] = json.loads(self.out.getvalue())
        return result

    def run(self, *words: str, verb: click.Command = review_verb.command) -> str:
        """What `review`, or `verb`, says to these words, of this session."""
        assert verb.main([SESSION, *words], standalone_mode=False, obj=self.context) is None
        return self.out.getvalue()

    def merge(self, *words: str) -> dict[str, Any]:
        """The object of `merge --json`."""
        result: dict[str, Any] = json.loads(self.run("--json", *words, verb=merge_verb.command))
        return result

    def record(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What verbs would have recorded is in `records` from here on: there is no supervisor."""
        records = self.records

        class Recorder:
            def ask(self, _op: object, **fields: object) -> dict[str, object]:
                records.append(fields)
                return {}

        supervisor = "coding_agents.supervisor.context.SessionContext.supervisor"
        monkeypatch.setattr(supervisor, lambda _self: Recorder())

    def text(self) -> str:
        assert review_verb.command.main([SESSION], standalone_mode=False, obj=self.context) is None
        return self.out.getvalue()

    def found(self) -> set[tuple[str, str, str]]:
        return {(one["severity"], one["rule"], one["path"]) for one in self.json()["findings"]}


def make_project(tmp_path: Path, *, changes: bool) -> Project:
    """With `changes` the user had uncommitted ones at launch: a Makefile, a token, and a change of README."""
    home = tmp_path / "home"
    env = git_env(home)
    repo = make_repo(tmp_path / "app", env=env)
    base = head(repo, env=env)
    if changes:
        (repo / "Makefile").write_text("all:\n\ttrue\n")
        (repo / "notes").write_text(f"mine = {TOKEN}\n")
        (repo / "both").write_text(f"mine = {TOKEN}\n")
    facts = discover(repo, env=env)
    bases = open_base(tmp_path / "data", facts, env=env)
    give(bases, facts, base)
    app = AppContext(host_environment(home, PATH=env["PATH"]))
    app.store.create(SESSION)
    directory = app.store.directory(SESSION)
    create_relay(directory / "relay.git", base_store=bases, branch=BRANCH, base=base, base_branch="main")
    record_launch_state(
        facts,
        directory / "relay.git",
        plan_copy(facts, env=env, include=(), clean=False),
        env=env,
        base=base,
        now_ms=0,
    )
    app.store.save(
        session_record(
            SESSION, name="demo-app", branch=BRANCH.short, base=str(base), base_branch="main", phase="stopped",
            author_name="Ada", author_email="ada@example.test",
            repo=RepoRef(
                kind="path", name="app", work_tree=str(repo), git_dir=str(repo / ".git"), common_dir=str(repo / ".git"),
                repo_id="a1b2c3d4e5f6", owner_uid=os.geteuid(), owner_gid=os.getegid(),
            ),
        )
    )  # fmt: skip
    guest = tmp_path / "guest"
    sh(tmp_path, "clone", "-q", str(repo), str(guest), env=env)
    return Project(home, repo, guest, env)


def look(store: Any, base: Oid | None, tip: Oid, **budget: Any) -> list[Finding]:
    return scan(
        store, Subject(base, tip, None, ("Ada", "ada@example.test")),
        account=Account(Budget(**budget)), is_secret_name=lambda _: False,
    )  # fmt: skip


def rules(found: list[Finding]) -> Counter[str]:
    return Counter(one.rule for one in found)
