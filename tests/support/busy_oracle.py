"""What must be true in the user's repository when the session of a busy agent has been removed."""

from __future__ import annotations

import json
from typing import Any

from support.busy_agent import INNER
from support.busy_scene import Scene, Tree, tree_of
from support.processes import command_line, pids
from support.product import git, wait_for


def assert_all_comes_home(scene: Scene) -> None:
    """Stop the session and remove it: all that its volume held is in the repository then."""
    scene.product.run("stop", scene.name)
    scene.look()
    final = scene.read_tree()
    scene.product.run("audit", "verify", "--session", scene.name)
    scene.product.run("remove", scene.name)
    assert_all_is_home(scene, final)


def assert_all_is_home(scene: Scene, final: Tree) -> None:
    """The last state of the volume, which is `final`, is where the product says it is, byte for byte; and every commit
    that git has confirmed to the agent is in the repository, with every version that it was to have."""
    saved = _last_saved(scene)
    assert saved["outcome"] == "allowed", (saved, scene.killed)
    ref, tip = saved["subject"], saved["detail"]["tip"]
    assert git(scene.repo, "rev-parse", ref) == tip, (saved, scene.killed)
    home = home_tree(scene, ref)
    wrong = sorted(path for path in {*final, *home} if final.get(path) != home.get(path))
    told = [(path, final.get(path), home.get(path)) for path in wrong[:9]]
    assert not wrong, f"{len(wrong)} of {len(final)} files differ (volume, {ref}): {told} ({scene.killed})"
    _assert_commits(scene, {*scene.commits("commit", "side", "inner"), *_pushed(scene)})


def assert_promises_are_kept(scene: Scene) -> None:
    """The volume is gone; home is every commit that was pushed, and everything that a verb has said was saved.

    One state that came home has each of these files, as it was then or as it became later.
    """
    _assert_commits(scene, scene.promised_commits | _pushed(scene))
    refs = git(scene.repo, "for-each-ref", "--format=%(refname)", "refs/heads/demo", "refs/coding-agents")
    trees = [home_tree(scene, ref) for ref in refs.split() if "/nested/" not in ref]
    best = min((scene.broken_by(tree) for tree in trees), key=len, default=sorted(scene.promised))
    assert not best, f"{len(best)} of {len(scene.promised)} files are lost: {best[:9]} ({scene.killed})"


def assert_nothing_leaked(scene: Scene) -> None:
    """No process, engine object or file of the session is left, and the user's repository is as it was."""
    marks = (scene.session, f" {scene.name} ", str(scene.product.home / ".local"))

    def alive() -> list[str]:
        return [line for pid in pids() if any(mark in (line := command_line(pid)) for mark in marks)]

    wait_for(lambda: not alive(), f"processes to end: {alive()}", timeout_s=20.0)
    assert scene.product.leftovers() == []
    names = scene.product.engine_run("volume", "ls", "--format", "{{.Name}}").split()
    assert [name for name in names if name.startswith(scene.name)] == []  # also without our labels
    assert list(scene.product.sessions_dir.glob("*")) == []
    assert list((scene.repo / ".git").rglob("*.lock")) == []
    assert git(scene.repo, "status", "--porcelain") == ""
    assert git(scene.repo, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert git(scene.repo, "fsck", "--full", "--strict", "--no-dangling") == ""
    assert not scene.canary.exists(), "something that the agent planted was executed"


def _last_saved(scene: Scene) -> dict[str, Any]:
    """What the record that stays of a removed session says last of where its work is."""
    lines = (scene.product.kept_logs / f"{scene.session}.jsonl").read_text().splitlines()
    saved: dict[str, Any] = [one for line in lines if (one := json.loads(line))["type"] == "saved"][-1]
    return saved


def home_tree(scene: Scene, ref: str) -> Tree:
    """The files of `ref` in the user's repository and, in their place, those of the repository inside."""
    return tree_of(scene.repo, ref, f"refs/coding-agents/nested/{scene.session}/{INNER}")


def _pushed(scene: Scene) -> set[str]:
    return {line[2] for line in scene.journal if line[1] == "pushed"}


def _assert_commits(scene: Scene, wanted: set[str]) -> None:
    there = set(git(scene.repo, "rev-list", "--all").split())
    assert wanted <= there, f"{len(wanted - there)} of {len(wanted)} commits are lost ({scene.killed})"
    files = []
    for verb, top in (("commit", ""), ("side", ""), ("inner", f"{INNER}/")):
        for oid, versions in scene.commits(verb).items():
            if oid in wanted:
                files += [(f"{oid}:{path.removeprefix(top)}", path, one) for path, one in versions.items()]
    asked = "".join(f"{name}\n" for name, _, _ in files)
    told = git(scene.repo, "cat-file", "--batch-check=%(objectname)", stdin=asked).split("\n")
    wrong = [one[1:] for one, oid in zip(files, told, strict=True) if oid != scene.blob(*one[1:])]
    assert not wrong, f"{len(wrong)} of {len(files)} committed files are lost: {wrong[:9]} ({scene.killed})"
