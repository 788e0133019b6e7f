"""Every trigger of git's, at every level of its configuration, under everything that we do with git.

What may run is written down: the user's own filters, at launch alone, and what serves a clone of a path. For
each trigger there is proof that git itself would run it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from support.life import Life, plant_content
from support.repos import sh
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
    git_version,
    make_world,
    plant,
)

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


@pytest.mark.parametrize("level", [*REPOSITORY_LEVELS, "submodule", *USER_LEVELS, "environment"])
def test_git_reads_the_level(tmp_path: Path, level: str) -> None:
    world = make_world(tmp_path)
    one = next(trigger for trigger in SETTINGS if trigger.name == "core.fsmonitor")
    said = world.control(one, plant(world, level, [one]))
    assert world.sang() == {one.name}, said


def test_git_obeys_what_the_agent_commits(tmp_path: Path) -> None:
    """A directory of the tree that passes for a repository, where a person looks at a checkout of it."""
    world = make_world(tmp_path)
    tree = tmp_path / "checkout"
    tree.mkdir()
    sh(tree, "init", "-q", env=world.env)
    plant_content(tree, str(world.program("content")))
    sh(tree / "bare", "status", env=world.env, check=False)
    assert world.sang() == {"content"}


def marker(trigger: Trigger) -> str:
    """What it leaves: the name of the hook in the tree, of the other repository's trigger, of an object's directory."""
    others = {
        "core.hooksPath": "husky.reference-transaction",
        "GIT_COMMON_DIR": "GIT_DIR",
        "GIT_OBJECT_DIRECTORY": "58",
    }
    return others.get(trigger.name, trigger.name)


# --- we run none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [*REPOSITORY_LEVELS, *USER_LEVELS])
def test_settings_run_nothing_but_filters_at_launch(tmp_path: Path, level: str) -> None:
    world = make_world(tmp_path)
    ran = Life(world, plant(world, level, KNOWN)).live()
    # git heeds that one in protected configuration (git-config(1)), where a condition on the repository never holds.
    clone = BY_DESIGN_AT_CLONE if level in USER_LEVELS and level != "conditional" else NOTHING
    expected = {"launch": BY_DESIGN_AT_LAUNCH, "launch --clean": BY_DESIGN_AT_CLEAN_LAUNCH, "clone": clone}
    assert ran == {step: expected.get(step, NOTHING) for step in ran}


@pytest.mark.parametrize("commit", ["HEAD", "HEAD~1"])
def test_settings_of_a_submodule_run_nothing_but_filters_at_launch(tmp_path: Path, commit: str) -> None:
    """It goes in as the repository itself does, whether it stands at another commit or at the recorded one."""
    world = make_world(tmp_path)
    sh(world.repo / "sub", "checkout", "-q", "--detach", commit, env=world.env)
    ran = Life(world, plant(world, "submodule", KNOWN)).live()
    allowed = {"launch": BY_DESIGN_AT_LAUNCH, "launch --clean": BY_DESIGN_AT_CLEAN_LAUNCH}
    assert {step: names - allowed.get(step, NOTHING) for step, names in ran.items()} == dict.fromkeys(
        ran, NOTHING
    )


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


def test_settings_of_our_own_stores_run_nothing(tmp_path: Path) -> None:
    """Nobody but us writes these. Without our own value, receive-pack runs `core.alternateRefsCommand` from there."""
    world = make_world(tmp_path)

    def also_ours(root: Path) -> None:
        for store in (root / "relay.git", *root.glob("data/bases/*.git")):
            with (store / "config").open("a") as config:
                config.write(world.rendered())

    ran = Life(world, world.env, also_ours).live()
    assert ran == dict.fromkeys(ran, NOTHING)


@pytest.mark.slow
@pytest.mark.parametrize("level", ["repository", "user"])
@pytest.mark.parametrize("trigger", named(KNOWN))
def test_one_trigger_alone(tmp_path: Path, level: str, trigger: Trigger) -> None:
    """Nothing that another one hides: each alone."""
    world = make_world(tmp_path)
    if (
        trigger.name == "filter.clean"
    ):  # it is `required`: git itself checks nothing out without the other filter
        trigger = replace(trigger, settings={**trigger.settings, "filter.evil.smudge": "cat"})
    ran = Life(world, plant(world, level, [trigger])).live()
    allowed = {
        "launch": BY_DESIGN_AT_LAUNCH,
        "launch --clean": BY_DESIGN_AT_CLEAN_LAUNCH,
        "clone": BY_DESIGN_AT_CLONE if level == "user" else NOTHING,
    }
    assert ran == {step: allowed.get(step, NOTHING) & {trigger.name} for step in ran}
