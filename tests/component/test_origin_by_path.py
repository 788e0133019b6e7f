"""An origin that is a repository of this machine: what serves it there heeds no setting of the user's."""

from __future__ import annotations

from pathlib import Path

from support.origin_scene import APP, MINE, origin_scene
from support.product import git

_HOOKS = ("pre-receive", "update", "post-receive", "post-update", "reference-transaction")


def test_what_the_users_git_would_run_does_not_run_at_an_origin_by_path(tmp_path: Path) -> None:
    """Git takes a hooks path of the user's for a repository beside it, too, and the agent's branch may lie there."""
    with origin_scene(tmp_path) as scene:
        scene.move_origin(str(scene.forge.path(APP)))
        husky, ran = scene.user / ".husky", scene.home / "ran"
        husky.mkdir()
        for hook in _HOOKS:
            _program(husky / hook, f"echo {hook} >> '{ran}'; cat > {scene.home}/swallowed")
        _program(scene.home / "pack-objects", f"echo pack-objects >> '{ran}'; exec \"$@\"")
        with (scene.home / ".gitconfig").open("a") as config:
            config.write(
                f"[core]\n\thooksPath = {husky}\n[uploadpack]\n\tpackObjectsHook = {scene.home}/pack-objects\n"
            )
        scene.forge.hook(APP, "post-receive", "echo 'seen by origin'")
        git(scene.forge.path(APP), "branch", "topic", "main")
        scene.git("fetch", "--quiet", "origin")
        scene.commit()
        scene.refused("push", "origin", MINE)
        done = scene.decide(scene.waiting())
        assert not ran.exists(), ran.read_text()
        assert (done["state"], done["said"]) == ("pushed", "seen by origin")


def _program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
