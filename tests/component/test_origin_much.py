"""Origin when there is much of it, too much is pushed to it, or it is not there."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from support.forge_tricks import endless, garbage
from support.origin_scene import APP, MINE, OriginScene, origin_scene
from support.product import git

_MOST = 100_000


@pytest.mark.slow
def test_a_hundred_thousand_refs_are_served_and_not_one_more(tmp_path: Path) -> None:
    with origin_scene(tmp_path) as scene:
        _branches(scene, _MOST - 1)  # with main
        out, err = scene.start("ls-remote", "--heads", "origin").communicate(timeout=400)
        assert len(out.splitlines()) == _MOST - 1, err
        scene.commit()
        assert "waiting for approval" in scene.refused("push", "origin", MINE)
        assert scene.decide(scene.waiting())["state"] == "pushed"
        git(scene.forge.path(APP), "branch", "more", "main")
        said = scene.refused_anew("fetch", "origin")
        assert f"more than {_MOST} branches and tags" in said


def test_a_push_beyond_the_sessions_budget_leaves_nothing(tmp_path: Path) -> None:
    with origin_scene(tmp_path, settings="[relay]\npush = '2m'\n") as scene:
        (scene.guest / "large").write_bytes(os.urandom(3 << 20))
        scene.commit()
        assert "this push is too large" in scene.refused("push", "origin", MINE)
        assert scene.approvals() == []
        assert scene.at_origin() == ""
        scene.until(lambda: not (scene.session.directory / "origin-push.git").exists())


def test_origin_that_is_not_there_or_talks_nonsense(tmp_path: Path) -> None:
    with origin_scene(tmp_path) as scene:
        scene.forge.tricks[APP] = garbage
        assert "On the host, see" in scene.refused("fetch", "origin")
        scene.forge.tricks[APP] = endless
        scene.commit()
        assert scene.refused_anew("push", "origin", MINE)
        with socket.socket() as nobody:  # bound, and not listening
            nobody.bind(("127.0.0.1", 0))
            scene.move_origin(f"https://localhost:{nobody.getsockname()[1]}/{APP}.git")
            for verb in ("fetch", "push"):
                said = scene.refused(verb, "origin", MINE)
                assert "cannot be reached" in said
                assert "On the host, see" in said
        assert scene.approvals() == []


def _branches(scene: OriginScene, count: int) -> None:
    """That many branches at origin, main among them."""
    at = scene.forge.path(APP)
    tip = git(at, "rev-parse", "main")
    names = sorted(f"refs/heads/b/{number:06}" for number in range(count - 1))
    (at / "packed-refs").write_text("".join(f"{tip} {name}\n" for name in (*names, "refs/heads/main")))
