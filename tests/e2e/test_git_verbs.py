"""Every verb on one real session, in a world where everything that can make git run a program is set at once.

Nothing of it runs but the user's own filters at launch; and every call of git, of the verbs and of the session's
supervisor, is one of ours (support/gitlog.py).
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.engines import EngineUnderTest
from support.faults import ready
from support.gitlog import GitLog
from support.life import PLANTED
from support.product import Product, Result, wait_for
from support.repos import git_env, make_repo, sh
from support.triggers import (
    BY_DESIGN_AT_CLEAN_LAUNCH,
    BY_DESIGN_AT_CLONE,
    BY_DESIGN_AT_LAUNCH,
    REPOSITORY_LEVELS,
    SETTINGS,
    USER_LEVELS,
    VARIABLES,
    World,
    git_version,
    make_world,
    plant,
)

pytestmark = [pytest.mark.engine, pytest.mark.alike]

_PLANT = """
import json, pathlib
for name, text in json.loads(%r).items():
    path = pathlib.Path("/workspace", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
"""
_WORK = """
echo %s | base64 -d | python3 - && echo n > new.txt
git add --all --force && git commit -qm planted
git init -q new && git -C new -c user.name=a -c user.email=a@b commit -q --allow-empty -m inside
touch /tmp/ready; sleep 600
"""
_LITTLE = "echo little > little && git add little && git commit -qm little && touch /tmp/ready; sleep 600"
_LAUNCH = ("launch", "--agent", "demo", "--network-proxy", "restricted")
_TERMINATED = 128 + 15
_REFUSED = 17
_NOT_RUNNING = 19
_UNREVIEWED = 70


@dataclass
class User(Product):
    """A user whose repository lies in `world`, and in whose environment everything is set that springs a trigger."""

    world: World = field(kw_only=True)
    hostile: dict[str, str] = field(kw_only=True)

    @property
    def env(self) -> dict[str, str]:
        plain = super().env
        del plain["GIT_CONFIG_GLOBAL"]  # it would hide ~/.config/git/config
        return {**plain, **self.hostile}

    def _labels(self) -> list[str]:
        clones = self.home.glob(".local/share/coding-agents/repos/**/*.git")
        places = (self.world.repo, self.world.root / "moved", *clones)
        return [f"coding-agents.repo-path={place}" for place in places]

    def quiet(self, *args: str, runs: frozenset[str] = frozenset(), status: int | None = 0) -> Result:
        """Run a verb, in which exactly the triggers `runs` may have sung."""
        self.world.sang()
        result = self.run(*args, status=status)
        assert self.world.sang() == runs, f"{args}: {result}"
        return result


@pytest.fixture
def log(tmp_path: Path) -> GitLog:
    return GitLog.make(tmp_path / "log")


@pytest.fixture
def user(engine: EngineUnderTest, tmp_path: Path, log: GitLog) -> Iterator[User]:
    world = make_world(tmp_path / "world", f"p{uuid.uuid4().hex[:8]}")
    known = [one for one in SETTINGS if one.since <= git_version()]
    hostile: dict[str, str] = {}
    for level in (*REPOSITORY_LEVELS, "submodule", *USER_LEVELS, "environment"):
        hostile |= plant(world, level, [*known, *(VARIABLES if level == "environment" else ())])
        hostile.pop("GIT_CONFIG_NOSYSTEM", None)
    world.hooks(world.repo / ".git/hooks", "hook")
    made = User(engine.name, world.root / "home", world=world, hostile=log.before(hostile))
    # The programs of the engine under test stay first after the log.
    made.hostile["PATH"] = f"{log.directory}:{world.root}/bin:{Product(engine.name, made.home).env['PATH']}"
    try:
        yield made
    finally:
        made.clean_up()


def test_no_verb_runs_anything_of_it(user: User, log: GitLog) -> None:
    repo = str(user.world.repo)
    user.quiet(*_LAUNCH, repo, "--dry-run")
    user.quiet("doctor", status=None)  # what it says of this machine is not the matter
    script = _WORK % base64.b64encode((_PLANT % json.dumps(_planted(user.world))).encode()).decode()
    name = user.quiet(*_LAUNCH, repo, "-d", "--", "sh", "-c", script, runs=BY_DESIGN_AT_LAUNCH).out.strip()
    _plant_in_our_stores(user)
    ready(user, name)
    _running(user, name)
    user.quiet("stop", name)
    _stopped(user, name)
    user.quiet("start", name)
    wait_for(lambda: user.state(name) == "running", "the second start")
    user.quiet("remove", "--force", name)
    _clean_and_moved(user)
    _of_a_url(user)
    user.quiet("recover")
    before = len(log.calls())
    user.quiet("uninstall", "--dry-run", status=_REFUSED)
    # A whole one would take the images of all other tests. It has no use for git, and none is called as far as it gets.
    user.quiet("uninstall", "-y", status=_REFUSED)
    assert len(log.calls()) == before
    calls = log.calls()
    assert {f"git {call.verb}: {why}" for call in calls if (why := call.wrong())} == set()
    assert {"receive-pack", "index-pack", "diff-tree", "update-ref", "init"} <= {call.verb for call in calls}
    _control(user)


def _clean_and_moved(user: User) -> None:
    """A session that starts from HEAD; its work goes to another repository; it is removed as it stands there."""
    repo = str(user.world.repo)
    name = user.quiet(
        *_LAUNCH, repo, "--clean", "-b", "clean", "-d", "--", "sh", "-c", _LITTLE, runs=BY_DESIGN_AT_CLEAN_LAUNCH
    ).out.strip()  # fmt: skip
    ready(user, name)
    user.quiet("stop", name)
    moved = _full_of_triggers(user, "moved")
    user.quiet("recover", name, "--repo", str(moved))
    assert sh(moved, "show", "demo/clean:little", env=git_env(user.world.root / "other")) == "little"
    user.world.sang()
    user.quiet("review", name, "--json")
    user.quiet("remove", name)


def _of_a_url(user: User) -> None:
    """A session on a clone of ours; `prune` removes it, the clone stays."""
    url = f"file://{user.world.repo}"
    name = user.quiet(
        *_LAUNCH, url, "-b", "cloned", "-d", "--", "sh", "-c", _LITTLE, runs=BY_DESIGN_AT_CLONE
    ).out.strip()
    ready(user, name)
    user.quiet("stop", name)
    user.quiet("prune", "--dry-run")
    assert name in user.quiet("prune").out
    assert user.quiet("list", "-a", "--json").json == []


def _planted(world: World) -> dict[str, str]:
    program = str(world.program("content"))
    return {name: text.replace("%", program) for name, text in PLANTED.items()}


def _plant_in_our_stores(user: User) -> None:
    """Hooks and settings in the relay and the base store, which only we write."""
    stores = [*user.home.rglob("relay.git"), *user.home.rglob("bases/*.git")]
    assert len(stores) == 2
    for store in stores:
        user.world.hooks(store / "hooks", store.name)
        with (store / "config").open("a") as config:
            config.write(user.world.rendered())


def _running(user: User, name: str) -> None:
    """Every verb that a running session has."""
    for args in (
        ("list", "--json"),
        ("logs", name),
        ("exec", name, "--", "true"),
        ("audit", "verify", "--session", name),
    ):
        user.quiet(*args)
    assert "new.txt" in user.quiet("diff", name).out
    user.quiet("diff", name, "--stat")
    found = {one["rule"] for one in user.quiet("review", name, "--json").json["findings"]}
    assert {"git.attributes", "git.config"} <= found
    assert user.quiet("pull", name, "--json").json["integrated"] == "refs/heads/demo/session-1"


def _stopped(user: User, name: str) -> None:
    """Every verb that a session has when it has ended."""
    for args in (("list", "-a"), ("diff", name), ("review", name), ("nested", name),
                 ("recover", name), ("audit", "verify", "--session", name)):  # fmt: skip
        user.quiet(*args)
    user.quiet("wait", name, status=_TERMINATED)
    assert "new.txt" in user.quiet("diff", name).out
    found = user.quiet("review", name, "--json").json
    assert {"git.attributes", "git.config"} <= {one["rule"] for one in found["findings"]}
    assert [one["path"] for one in found["others"]] == ["new"]
    user.quiet("pull", name, status=_NOT_RUNNING)
    listed = {one["path"] for one in user.quiet("nested", name, "--json").json}
    assert "new" in listed
    user.quiet("nested", name, "new", "--into", str(_full_of_triggers(user, "there")))
    user.quiet("nested", name, "new", "--into", str(user.world.root / "taken"))
    user.quiet("nested", name, "new")
    assert (user.world.repo / "new/.git").is_dir()
    _merged(user, name)


def _merged(user: User, name: str) -> None:
    """Looked at in each form, accepted, and merged as two sides."""
    sh(user.world.repo, "update-ref", "refs/heads/next", "HEAD", env=user.world.env)
    found = user.quiet("review", name, "--into", "next", "--json").json["findings"]
    blocking = [one["id"] for one in found if one["severity"] == "block"]
    words = [word for one in blocking for word in ("--accept", one)]
    user.quiet("merge", name, "--into", "next", status=_UNREVIEWED)
    user.quiet(
        "review", name, "--into", "next", *words, "--reason", "x", "--html", str(user.world.root / "page")
    )
    user.quiet("review", name, "--sarif")
    user.quiet("merge", name, "--into", "next", "--dry-run")
    user.quiet("config", "set", "signing.mode", "off")  # what signs is the user's own, and runs by design
    assert user.quiet("merge", name, "--into", "next", "--no-ff", "--json").json["how"] == "merge"


def _full_of_triggers(user: User, name: str) -> Path:
    """Another repository of the user's, set up with every hook and setting."""
    world = user.world
    repo = make_repo(world.root / name, env=git_env(world.root / "other"))
    world.hooks(repo / ".git/hooks", name)
    with (repo / ".git/config").open("a") as config:
        config.write(world.rendered())
    world.sang()
    return repo


def _control(user: User) -> None:
    """What was quiet sings when plain git does the same: nothing of it was planted in vain."""
    world, repo = user.world, user.world.repo
    system = {"GIT_CONFIG_SYSTEM": user.hostile["GIT_CONFIG_SYSTEM"]}
    env = {key: value for key, value in world.env.items() if key != "GIT_CONFIG_NOSYSTEM"} | system
    there, plain = world.root / "there", git_env(world.root / "other")
    acts: dict[str, tuple[Callable[[], object], set[str]]] = {
        "launch": (
            lambda: sh(repo, "add", "a.txt", env=env, check=False),
            {"core.fsmonitor", "filter.clean"},
        ),
        "list": (lambda: sh(repo, "status", env=env), {"core.fsmonitor"}),
        "diff": (lambda: sh(repo, "diff", "HEAD~1", env=env, check=False), {"diff.evil.command"}),
        "review": (lambda: sh(repo, "log", "-1", "signed", env=env), {"log.showSignature"}),
        "pull": (
            lambda: sh(repo, "update-ref", "refs/heads/x", "HEAD", env=env),
            {"husky.reference-transaction"},
        ),
        "recover": (lambda: sh(repo, "fetch", "origin", env=env, check=False), {"remote.origin.vcs"}),
        "recover --repo": (
            lambda: sh(world.root / "moved", "update-ref", "refs/heads/x", "HEAD", env=plain),
            {"husky.reference-transaction"},
        ),
        "nested": (
            lambda: sh(there, "update-ref", "refs/heads/x", "HEAD", env=plain),
            {"husky.reference-transaction"},
        ),
    }
    heard = {}
    for verb, (act, _) in acts.items():
        world.sang()
        act()
        heard[verb] = world.sang()
    missing = {verb: expected - heard[verb] for verb, (_, expected) in acts.items() if expected - heard[verb]}
    assert missing == {}, heard
