"""One user's repository and session with everything in it, and what the next verb sees of it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from coding_agents.audit.log import open_log
from coding_agents.gitsync.base import BaseStore, give, open_base
from coding_agents.gitsync.discover import discover
from coding_agents.gitsync.pktline import FLUSH
from coding_agents.gitsync.relay_repo import Relay, create_relay
from coding_agents.model.audit import AuditEvent, RecordType, decode_record
from coding_agents.model.refs import Branch, Oid
from coding_agents.model.repo import RepoFacts
from coding_agents.model.session import RepoRef, SessionRecord, encode_session
from coding_agents.store.sessions import BrokenSession, SessionStore
from coding_agents.supervisor.context import SessionContext, facts_of
from support.host import host_environment
from support.repos import BRANCH, SESSION, commit, git_env, head, make_repo, sh
from support.sessions import session_record

NOW_MS = 1_800_000_000_000
OTHER_BRANCH = Branch.parse("old", agent="demo")
PUSH = "push.raw"
LET_GO = "let-go"
"""The file that names a save which thinning out lets go."""


@dataclass(frozen=True)
class Scene:
    """Everything lies below `root`; the same functions work on a copy of it in the same place."""

    root: Path

    @cached_property
    def env(self) -> dict[str, str]:
        return git_env(self.root / "home")

    @cached_property
    def session(self) -> SessionContext:
        """The session as a verb finds it."""
        environ = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1"}
        host = host_environment(self.root / "home", **environ)
        store = SessionStore(host.state_dir)
        return SessionContext(host, store, store.load(SESSION))

    @property
    def store(self) -> SessionStore:
        return SessionStore(self.root / "home" / ".local/state/coding-agents")

    @property
    def data_dir(self) -> Path:
        return self.root / "home" / ".local/share/coding-agents"

    @property
    def user(self) -> Path:
        return self.root / "user"

    @property
    def relay_dir(self) -> Path:
        return self.store.directory(SESSION) / "relay.git"

    @property
    def settings(self) -> Path:
        return self.root / "home" / ".config/coding-agents/config.toml"

    @property
    def facts(self) -> RepoFacts:
        return facts_of(self.session.record)

    @property
    def relay(self) -> Relay:
        return self.session.relay

    @property
    def base_store(self) -> BaseStore:
        facts = self.facts
        return BaseStore(self.data_dir / "bases" / f"{facts.repo_id}.git", facts.object_format, self.env)

    def oid(self, rev: str) -> Oid:
        """A commit of the user's repository; for `prepare` and for operations that do not write."""
        return head(self.user, rev, env=self.env)

    def repositories(self) -> dict[str, Path]:
        """Every repository that is there, by a short name."""
        known = {
            "user": self.user / ".git",
            "relay": self.relay_dir,
            "second": self.relay_dir.with_name("second.git"),
            "taken": self.root / "taken" / ".git",
            **{path.stem: path for path in (self.data_dir / "bases").glob("*.git")},
        }
        return {name: path for name, path in known.items() if path.is_dir()}


def build(root: Path) -> Scene:
    """Make the scene below `root`, by the product's own functions where it makes such things itself."""
    scene = Scene(root)
    env = scene.env
    make_repo(scene.user, env=env)
    sh(scene.user, "checkout", "-qb", OTHER_BRANCH.short, env=env)
    commit(scene.user, "old", "an earlier session's work\n", env=env)
    sh(scene.user, "checkout", "-q", "main", env=env)
    # A repository that says that nothing need be synced: what we write into it must be all the same.
    sh(scene.user, "config", "core.fsync", "none", env=env)
    sh(scene.user, "config", "core.fsyncMethod", "writeout-only", env=env)
    base = head(scene.user, env=env)
    facts = discover(scene.user, env=env)
    repo = RepoRef(
        kind="path", name="user", work_tree=str(scene.user), git_dir=str(facts.git_dir),
        common_dir=str(facts.common_dir), repo_id=facts.repo_id, owner_uid=os.geteuid(), owner_gid=os.getegid(),
    )  # fmt: skip
    scene.store.create(SESSION)
    record = session_record(
        SESSION, repo=repo, branch=BRANCH.short, base=str(base), base_branch="main", phase="stopped"
    )
    assert scene.store.register(record)
    with open_log(scene.session.audit_path, session=SESSION, time_ms=NOW_MS) as log:
        for number in range(3):
            log.record(AuditEvent(RecordType.PUSH, subject=f"push {number}"), time_ms=NOW_MS + number)
    base_store = open_base(scene.data_dir, facts, env=env)
    give(base_store, facts, base)
    create_relay(scene.relay_dir, base_store=base_store, branch=BRANCH, base=base, base_branch="main")
    _agents_work(scene, base)
    commit(scene.user, "later", "the user works on\n", env=env)
    (scene.user / "README").write_text("not committed\n")
    scene.settings.parent.mkdir(parents=True)
    scene.settings.write_text("# mine\n[limits]\npids = 100\n")
    return scene


def _agents_work(scene: Scene, base: Oid) -> None:
    """What the agent, automatic saves and a salvage have brought into the relay; and a push that is still to come."""
    env, guest, relay = scene.env, scene.root / "guest", str(scene.relay_dir)
    sh(scene.root, "clone", "-q", str(scene.user), str(guest), env=env)
    sh(guest, "checkout", "-q", "--detach", base, env=env)
    work = commit(guest, "work", "done\n", env=env)
    sh(guest, "push", "-q", relay, f"HEAD:{BRANCH.ref}", env=env)
    saves = [f"{work}:refs/coding-agents/autosave/{NOW_MS - 10_000 + number}" for number in range(7)]
    sh(guest, "push", "-q", relay, *saves, env=env)
    old = commit(guest, "old", "an earlier save\n", env=env)
    sh(guest, "push", "-q", relay, f"HEAD:refs/coding-agents/autosave/{NOW_MS - 11_000}", env=env)
    (scene.root / LET_GO).write_text(old)
    for ref, text in (
        ("refs/coding-agents/autosave/latest", "saved"),
        ("refs/coding-agents/salvage/worktree", "salvaged"),
        ("refs/coding-agents/salvage/head", "committed"),
        ("refs/coding-agents/nested/inner", "nested"),
    ):
        sh(guest, "checkout", "-q", "--detach", work, env=env)
        commit(guest, text, f"{text}\n", env=env)
        sh(guest, "push", "-q", relay, f"HEAD:{ref}", env=env)
    sh(guest, "checkout", "-q", "--detach", work, env=env)
    new = commit(guest, "more", "pushed at last\n", env=env)
    pack = subprocess.run(
        ["git", "pack-objects", "--revs", "--stdout", "-q"],
        cwd=guest, env=env, input=f"{new}\n^{work}\n".encode(), capture_output=True, check=True,
    ).stdout  # fmt: skip
    line = f"{work} {new} {BRANCH.ref}\0report-status".encode()
    (scene.root / PUSH).write_bytes(b"%04x%s" % (len(line) + 4, line) + FLUSH + pack)


def observe(scene: Scene) -> dict[str, str]:
    """What the next verbs see: records, refs, settings, and of the log what was recorded. Raises what they raise."""
    seen = {}
    for entry in scene.store.list():
        if isinstance(entry, SessionRecord):
            seen[f"record {entry.name}"] = encode_session(entry).decode()
        elif isinstance(entry, BrokenSession):
            seen[f"unreadable {entry.id}"] = entry.reason
    for name, git_dir in scene.repositories().items():
        seen[f"{name} is there"] = "yes"
        listed = sh(git_dir, "for-each-ref", "--format=%(refname) %(objectname)", env=scene.env)
        seen |= {f"{name} {ref}": oid for ref, oid in (line.split(" ") for line in listed.splitlines())}
    seen["settings"] = scene.settings.read_text()
    places = (
        "sessions/*/audit.jsonl",
        "sessions/.removed-*/audit.jsonl",
        "audit/*.jsonl",
        "set-aside/*/audit.jsonl",
    )
    for log in sorted({path for place in places for path in scene.store.state_dir.glob(place)}):
        seen["log"] = f"{seen.get('log', '')}{_told(log)}"
    for program in sorted((scene.data_dir / "guest").glob("*.pyz")):
        seen[f"program {program.name}"] = str(program.stat().st_size)
    aside = scene.store.set_aside_root
    seen |= {f"aside {path.name}": "yes" for path in aside.glob("*")}
    return seen


def _told(log: Path) -> str:
    """The subjects of the whole lines of a log."""
    lines = log.read_bytes().splitlines(keepends=True)
    return "".join(f"{decode_record(line).subject}; " for line in lines if line.endswith(b"\n"))
