"""A session's life on the host, without an engine: all that we do with git, step by step, in the order of the verbs."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from msgspec.structs import replace

from coding_agents.app.doctor import examine
from coding_agents.app.prepare import give_all
from coding_agents.app.work import Range, diff
from coding_agents.errors import CloneError
from coding_agents.gitsync.autosave import bring_save, keep_save
from coding_agents.gitsync.base import open_base
from coding_agents.gitsync.branches import (
    archive_existing,
    branch_names,
    branch_state,
    delete_branch,
    is_merged,
)
from coding_agents.gitsync.clone import clone_url, empty_repository
from coding_agents.gitsync.discover import discover
from coding_agents.gitsync.findings.budget import Account, Budget
from coding_agents.gitsync.findings.objects import EMPTY_TREE
from coding_agents.gitsync.findings.scan import Subject, scan
from coding_agents.gitsync.forward import (
    Place,
    Target,
    _names,
    _read_tree,
    bring_forward,
    place_of,
    require_clean,
)
from coding_agents.gitsync.integrate import Landing, integrate, keep_incoming
from coding_agents.gitsync.merge_commit import make_commit
from coding_agents.gitsync.merging import merge_trees, scratch
from coding_agents.gitsync.nested import bring_nested, list_nested, take_nested
from coding_agents.gitsync.packs import bring, user_store
from coding_agents.gitsync.relay_repo import Relay, create_relay
from coding_agents.gitsync.summary import summarize
from coding_agents.gitsync.urls import GitUrl, parse_url
from coding_agents.model.refs import Branch, Oid
from coding_agents.model.repo import Identity, RepoFacts
from coding_agents.store.sessions import SessionStore
from coding_agents.supervisor.context import SessionContext
from coding_agents.workspace.fill import write_workspace_tar
from coding_agents.workspace.launch_state import record_launch_state
from coding_agents.workspace.listing import plan_copy
from coding_agents_guest.nestedref import LATEST, nested_ref
from support.host import host_environment
from support.relay_server import URL, serving
from support.repos import BRANCH, SESSION, git_env, make_repo, sh
from support.triggers import World
from support.workspaces import NOW_MS, unpack

PLANTED = {
    ".gitattributes": "* filter=evil diff=evil merge=evil\n*.lng filter=long\n",
    ".gitmodules": '[submodule "sub"]\n\tpath = sub\n\turl = https://trap.invalid/x\n',
    ".lfsconfig": '[lfs]\n\turl = https://trap.invalid/lfs\n[filter "lfs"]\n\tprocess = %\n',
    ".gitconfig": "[core]\n\tfsmonitor = %\n\thooksPath = hooks\n[diff]\n\texternal = %\n",
    ".config/git/config": "[core]\n\tfsmonitor = %\n",
    "config": "[core]\n\tbare = true\n\tfsmonitor = %\n\thooksPath = hooks\n",
    "HEAD": "ref: refs/heads/main\n",
    "hooks/reference-transaction": "#!/bin/sh\n%\n",
    "hooks/post-checkout": "#!/bin/sh\n%\n",
    "objects/info/alternates": "/\n",
    "refs/heads/main": "0000000000000000000000000000000000000000\n",
    "info/attributes": "* diff=evil\n",
    "gitdir": "/\n",
    "bare/HEAD": "ref: refs/heads/main\n",
    "bare/config": "[core]\n\trepositoryFormatVersion = 0\n\tbare = false\n\tworktree = ..\n\tfsmonitor = %\n",
    "bare/objects/x": "x\n",
    "bare/refs/x": "x\n",
    ".git-rewrite/x": "x\n",
    ".mailmap": "Eve <eve@trap.invalid> <ada@example.test>\n",
    "a file\nwith a break.txt": "x\n",
    "-c core.fsmonitor=x": "x\n",
}
"""What the agent commits: what git reads in a tree, and a tree that passes for a bare repository. `%` is a program."""


def plant_content(tree: Path, program: str) -> None:
    """Write PLANTED into a work tree, every file executable."""
    for name, text in PLANTED.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("%", program))
        path.chmod(0o755)


def require_clean_again(target: Target, place: Place) -> bool:
    """Whether anything is left to write where nothing has changed since."""
    tree = target.user.resolve(f"{target.old}^{{tree}}")
    assert tree is not None
    return _names(target, place, "diff-index", "--cached", tree) != []


@dataclass
class Life:
    """A session's life in the order of its verbs; `ran` tells which triggers ran in each step."""

    world: World
    env: Mapping[str, str]
    in_our_stores: Callable[[Path], None] = lambda _: None
    ran: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A git of the guest's own, which nobody has touched.
        self.guest = {**git_env(self.world.root / "guest"), "PATH": self.world.env["PATH"]}
        self.every_trigger = self.world.rendered()

    def step(self, name: str, action: Callable[[], object]) -> object:
        with self.watched(name):
            return action()

    @contextmanager
    def watched(self, name: str) -> Iterator[None]:
        self.world.sang()
        yield
        self.ran[name] = self.world.sang()

    def live(self) -> dict[str, set[str]]:
        """All steps that touch git on the host; what ran in each."""
        world, env = self.world, self.env
        facts = cast(RepoFacts, self.step("discover", lambda: discover(world.repo, env=env)))
        base = facts.head
        assert base is not None
        self.step(
            "name", lambda: (branch_names(facts, env=env), branch_state(facts, BRANCH, base=base, env=env))
        )
        relay = cast(Relay, self.step("relay", lambda: self._relay(facts, base, "relay.git")))
        self.in_our_stores(world.root)
        inside = cast(Path, self.step("launch", lambda: self._fill(facts, relay, base, clean=False)))
        other = self._relay(facts, base, "other.git")
        self.step("launch --clean", lambda: self._fill(facts, other, base, clean=True))
        tip = self._serve(relay, inside)
        self.step("save", lambda: self._save(facts, relay, tip))
        self.step("integrate", lambda: self._integrate(facts, relay, base, tip))
        self.step("diff", lambda: self._look(facts, relay, base, tip))
        self.step("review", lambda: self._review(facts, relay, base, tip))
        there = self._other_repository()
        self.step("nested", lambda: self._nested(facts, relay, there))
        self.step("branches", lambda: self._branches(facts, tip))
        self._merge(facts, relay, base, tip)
        self.step("clone", lambda: [clone_url(self._url(), world.root / "data", env=env) for _ in range(2)])
        self.step("clone of a redirected URL", self._clone_redirected)
        self.step("empty", lambda: empty_repository(world.root / "data", "x", env=env))
        self.step("doctor", self._doctor)
        return self.ran

    def _relay(self, facts: RepoFacts, base: Oid, name: str) -> Relay:
        store = open_base(self.world.root / "data", facts, env=self.env)
        give_all(store, facts, plan_copy(facts, env=self.env, include=(), clean=False))
        path = self.world.root / name
        return create_relay(path, base_store=store, branch=BRANCH, base=base, base_branch=facts.branch)

    def _fill(self, facts: RepoFacts, relay: Relay, base: Oid, *, clean: bool) -> Path:
        plan = plan_copy(facts, env=self.env, include=(), clean=clean)
        launch = record_launch_state(facts, relay.git_dir, plan, env=self.env, base=base, now_ms=NOW_MS)
        out = io.BytesIO()
        write_workspace_tar(
            out, facts, plan, relay_git_dir=relay.git_dir, base=base, launch=launch, env=self.env
        )
        inside = self.world.root / f"inside-{clean}"
        unpack(out.getvalue(), inside)
        return inside

    def _serve(self, relay: Relay, inside: Path) -> Oid:
        """Pushes and a fetch of the guest's."""
        guest = self.guest
        sh(inside, "checkout", "-q", "-b", BRANCH.short, env=guest)
        trap = str(self.world.program("content"))
        plant_content(inside, trap)
        (inside / "new.txt").write_text("new\n")
        sh(inside, "add", "--all", "--force", env=guest)
        sh(inside, "commit", "-q", "-m", "new", env=guest)
        inner = make_repo(self.world.root / "inner", env=guest)
        with serving(relay, self.world.root / "s") as server:
            guest_env = server.guest_env(guest)
            push = ("push", "-q", URL)
            self.step(
                "push", lambda: sh(inside, *push, f"HEAD:{BRANCH.ref}", f"HEAD:{LATEST}", env=guest_env)
            )
            self.step("push nested", lambda: sh(inner, *push, f"HEAD:{nested_ref(['new'])}", env=guest_env))
            self.step("fetch", lambda: sh(inside, "fetch", "-q", URL, env=guest_env))
        return Oid.parse(sh(inside, "rev-parse", "HEAD", env=guest))

    def _save(self, facts: RepoFacts, relay: Relay, tip: Oid) -> None:
        keep_save(relay.store, NOW_MS)
        brought = bring_save(facts, relay, session=SESSION, env=self.env)
        assert brought is not None
        assert brought[1] == tip

    def _integrate(self, facts: RepoFacts, relay: Relay, base: Oid, tip: Oid) -> None:
        landed = integrate(facts, relay, session=SESSION, expected_old=None, env=self.env)
        assert (landed.where, landed.tip) == (Landing.BRANCH, tip)
        user_store(facts, self.env).git("update-ref", BRANCH.ref, base)
        later = integrate(facts, relay, session=SESSION, expected_old=None, env=self.env)
        assert later.where is Landing.INCOMING
        keep_incoming(facts, relay, name="kept", tip=tip, env=self.env)

    def _look(self, facts: RepoFacts, relay: Relay, base: Oid, tip: Oid) -> None:
        session = cast(SessionContext, SimpleNamespace(relay=relay))
        for stat in (False, True):
            for start in (base, None):
                assert "new.txt" in "".join(diff(session, Range(start, tip), stat=stat))
        for store in (user_store(facts, self.env), relay.store):
            assert summarize(store, base=base, tip=tip).files > 1

    def _review(self, facts: RepoFacts, relay: Relay, base: Oid, tip: Oid) -> None:
        subject = Subject(base, tip, base, ("Ada", "ada@example.test"))
        for store in (user_store(facts, self.env), relay.store):
            found = scan(store, subject, account=Account(Budget()), is_secret_name=lambda _: False)
            assert {"git.attributes", "git.config", "path.hidden"} <= {one.rule for one in found}

    def _merge(self, facts: RepoFacts, relay: Relay, base: Oid, tip: Oid) -> None:
        """A merge that conflicts where drivers are named, then one into a work tree that is checked out."""
        place = self.world.root / "target"
        add = ("worktree", "add", "-q", "--no-checkout", "-b", "target", str(place), base)
        sh(self.world.repo, *add, env=self.world.env)
        (self.world.repo / ".git/info/attributes").write_text("*.txt merge=evil\n")
        with self.watched("merge"):
            target = Target(user_store(facts, self.env), "refs/heads/target", base)
            theirs = target.user.resolve("refs/heads/theirs")
            assert theirs is not None
            linked = place_of(target)
            assert linked is not None
            at = self.world.root / "merging.git"
            with scratch(
                at, relay=relay.store, user=target.user, tip=theirs, target=base, base=base
            ) as store:
                assert {one.path for one in merge_trees(store, base, theirs).conflicts} == {"a.txt"}
            with scratch(at, relay=relay.store, user=target.user, tip=tip, target=base, base=base) as store:
                tree = str(store.resolve(f"{tip}^{{tree}}"))
                by = Identity("Ada", "ada@example.test")
                made = make_commit(store, tree, [base, tip], "merged\n", by=by)
                bring(store, target.user, tips=[made], known=[base])
            _read_tree(target, linked, "-u", EMPTY_TREE[40], base)
            assert require_clean(target, linked, Oid.parse(tree))
            moved = bring_forward(target, made, linked, message="merge")
            assert "new.txt" in moved.unfiltered
            assert not require_clean_again(replace(target, old=made), linked)

    def _other_repository(self) -> Path:
        """A repository of the user's at the place of one that came back, set up with every trigger."""
        there = make_repo(self.world.root / "there", env=self.guest)
        self.world.hooks(there / ".git/hooks", "there")
        with (there / ".git/config").open("a") as config:
            config.write(self.every_trigger)
        return there

    def _nested(self, facts: RepoFacts, relay: Relay, there: Path) -> None:
        bring_nested(facts, relay, session=SESSION, env=self.env)
        (found,) = list_nested(facts, session=SESSION, env=self.env)
        assert take_nested(facts, found, BRANCH, into=self.world.root / "taken", env=self.env)
        assert not take_nested(facts, found, BRANCH, into=there, env=self.env)

    def _branches(self, facts: RepoFacts, tip: Oid) -> None:
        assert archive_existing(facts, BRANCH, now_ms=0, env=self.env)
        user_store(facts, self.env).git("update-ref", BRANCH.ref, tip)
        assert not is_merged(facts, BRANCH, env=self.env)
        assert delete_branch(facts, BRANCH, expected=tip, env=self.env)
        assert not delete_branch(facts, Branch.parse("none", agent="demo"), expected=tip, env=self.env)

    def _url(self) -> GitUrl:
        url = parse_url(f"file://{self.world.repo}")
        assert url is not None
        return url

    def _clone_redirected(self) -> None:
        url = parse_url("https://trap.invalid/x")
        assert url is not None
        with pytest.raises(CloneError):
            clone_url(url, self.world.root / "data", env=self.env)

    def _doctor(self) -> None:
        env = host_environment(self.world.root / "home", **{**self.env, "PATH": self.env["PATH"]})
        checks = {one.id: one for one in examine(env, SessionStore(env.state_dir))}
        assert checks["git"].status != "fail"
