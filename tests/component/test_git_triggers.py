"""Every trigger of git's, at every level of its configuration, under everything that we do with git.

What may run is written down: the user's own filters, at launch alone, and what serves a clone of a path. For
each trigger there is proof that git itself would run it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from coding_agents.app.prepare import give_all
from coding_agents.app.work import Range, diff
from coding_agents.errors import CloneError
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
from coding_agents.gitsync.integrate import Landing, integrate, keep_incoming
from coding_agents.gitsync.packs import user_store
from coding_agents.gitsync.relay_repo import Relay, create_relay
from coding_agents.gitsync.summary import summarize
from coding_agents.gitsync.urls import GitUrl, parse_url
from coding_agents.model.refs import Branch, Oid
from coding_agents.model.repo import RepoFacts
from coding_agents.supervisor.context import SessionContext
from coding_agents.workspace.fill import write_workspace_tar
from coding_agents.workspace.launch_state import record_launch_state
from coding_agents.workspace.listing import plan_copy
from support.relay_server import URL, serving
from support.repos import BRANCH, SESSION, git_env, sh
from support.triggers import (
    BY_DESIGN_AT_CLEAN_LAUNCH,
    BY_DESIGN_AT_CLONE,
    BY_DESIGN_AT_LAUNCH,
    HOOKS,
    REPOSITORY_LEVELS,
    SETTINGS,
    USER_LEVELS,
    VARIABLES,
    Trigger,
    World,
    git_version,
    make_world,
    plant,
)
from support.workspaces import NOW_MS, unpack

VERSION = git_version()
KNOWN = tuple(trigger for trigger in SETTINGS if trigger.since <= VERSION)
NOTHING: frozenset[str] = frozenset()


def named(triggers: Iterable[Trigger]) -> list[object]:
    return [pytest.param(trigger, id=trigger.name) for trigger in triggers]


# --- git itself runs each of them ----------------------------------------------------------------------------


@pytest.mark.parametrize("trigger", named(KNOWN))
def test_git_runs_it(tmp_path: Path, trigger: Trigger) -> None:
    world = make_world(tmp_path)
    env = plant(world, "user" if trigger.user_only else "repository", [trigger])
    world.sang()
    said = world.control(trigger, env)
    assert world.sang() >= {marker(trigger)}, said


@pytest.mark.parametrize("trigger", named(VARIABLES))
def test_git_obeys_the_variable(tmp_path: Path, trigger: Trigger) -> None:
    world = make_world(tmp_path)
    said = world.control(trigger, plant(world, "environment", [trigger]))
    assert world.sang() >= {marker(trigger)}, said


@pytest.mark.parametrize("hook", HOOKS)
def test_git_runs_the_hook(tmp_path: Path, hook: str) -> None:
    world = make_world(tmp_path)
    world.hooks(world.repo / ".git/hooks", "hook")
    world.hooks(world.repo / ".git/modules/sub/hooks", "hook of the submodule")
    said = world.control(Trigger(hook, HOOKS[hook]), world.env)
    assert world.sang() >= {f"hook.{hook}"}, said


@pytest.mark.parametrize("level", [*REPOSITORY_LEVELS, *USER_LEVELS, "environment"])
def test_git_reads_the_level(tmp_path: Path, level: str) -> None:
    world = make_world(tmp_path)
    one = next(trigger for trigger in SETTINGS if trigger.name == "core.fsmonitor")
    said = world.control(one, plant(world, level, [one]))
    assert world.sang() == {one.name}, said


def marker(trigger: Trigger) -> str:
    """What it leaves: the name of the hook in the tree, of the other repository's trigger, of an object's directory."""
    others = {
        "core.hooksPath": "husky.reference-transaction",
        "GIT_COMMON_DIR": "GIT_DIR",
        "GIT_OBJECT_DIRECTORY": "58",
    }
    return others.get(trigger.name, trigger.name)


# --- we run none ---------------------------------------------------------------------------------------------


@dataclass
class Life:
    """A session's life in the order of its verbs; every step tells which triggers ran in it."""

    world: World
    env: Mapping[str, str]
    in_our_stores: Callable[[Path], None] = lambda _: None
    ran: dict[str, set[str]] = field(default_factory=dict)

    def step(self, name: str, action: Callable[[], object]) -> object:
        self.world.sang()
        result = action()
        self.ran[name] = self.world.sang()
        return result

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
        self.step("integrate", lambda: self._integrate(facts, relay, base, tip))
        self.step("diff", lambda: self._look(facts, relay, base, tip))
        self.step("branches", lambda: self._branches(facts, tip))
        self.step("clone", lambda: [clone_url(self._url(), world.root / "data", env=env) for _ in range(2)])
        self.step("clone of a redirected URL", self._clone_redirected)
        self.step("empty", lambda: empty_repository(world.root / "data", "x", env=env))
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
        """A push and a fetch of the guest's, with a git of its own that nobody has touched."""
        guest = {**git_env(self.world.root / "guest"), "LC_ALL": "C"}
        sh(inside, "checkout", "-q", "-b", BRANCH.short, env=guest)
        (inside / "new.txt").write_text("new\n")
        sh(inside, "add", "new.txt", env=guest)
        sh(inside, "commit", "-q", "-m", "new", env=guest)
        with serving(relay, self.world.root / "s") as server:
            push = ("push", "-q", URL, f"HEAD:{BRANCH.ref}")
            self.step("push", lambda: sh(inside, *push, env=server.guest_env(guest)))
            self.step("fetch", lambda: sh(inside, "fetch", "-q", URL, env=server.guest_env(guest)))
        return Oid.parse(sh(inside, "rev-parse", "HEAD", env=guest))

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
            assert "new.txt" in "".join(diff(session, Range(base, tip), stat=stat))
        for store in (user_store(facts, self.env), relay.store):
            assert summarize(store, base=base, tip=tip).files == 1

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


@pytest.mark.parametrize("level", [*REPOSITORY_LEVELS, *USER_LEVELS])
def test_settings_run_nothing_but_filters_at_launch(tmp_path: Path, level: str) -> None:
    world = make_world(tmp_path)
    ran = Life(world, plant(world, level, KNOWN)).live()
    # git heeds that one in protected configuration (git-config(1)), where a condition on the repository never holds.
    clone = BY_DESIGN_AT_CLONE if level in USER_LEVELS and level != "conditional" else NOTHING
    expected = {"launch": BY_DESIGN_AT_LAUNCH, "launch --clean": BY_DESIGN_AT_CLEAN_LAUNCH, "clone": clone}
    assert ran == {step: expected.get(step, NOTHING) for step in ran}


def test_the_environment_runs_nothing(tmp_path: Path) -> None:
    """Not even filters: settings in the environment are one command's, no part of how a repository is read."""
    world = make_world(tmp_path)
    ran = Life(world, plant(world, "environment", [*KNOWN, *VARIABLES])).live()
    assert ran == dict.fromkeys(ran, NOTHING)


def test_hooks_run_nowhere(tmp_path: Path) -> None:
    """Not in the user's repository, and not in our own stores either."""
    world = make_world(tmp_path)
    world.hooks(world.repo / ".git/hooks", "hook")
    world.hooks(world.repo / ".git/modules/sub/hooks", "hook of the submodule")

    def also_ours(root: Path) -> None:
        for store in (root / "relay.git", *root.glob("data/bases/*.git")):
            world.hooks(store / "hooks", store.name)

    ran = Life(world, world.env, also_ours).live()
    assert ran == dict.fromkeys(ran, NOTHING)


@pytest.mark.slow
@pytest.mark.parametrize("level", ["repository", "user"])
@pytest.mark.parametrize("trigger", named(KNOWN))
def test_one_trigger_alone(tmp_path: Path, level: str, trigger: Trigger) -> None:
    """Nothing that another one hides: each alone."""
    world = make_world(tmp_path)
    ran = Life(world, plant(world, level, [trigger])).live()
    allowed = {
        "launch": BY_DESIGN_AT_LAUNCH,
        "launch --clean": BY_DESIGN_AT_CLEAN_LAUNCH,
        "clone": BY_DESIGN_AT_CLONE if level == "user" else NOTHING,
    }
    assert ran == {step: allowed.get(step, NOTHING) & {trigger.name} for step in ran}
