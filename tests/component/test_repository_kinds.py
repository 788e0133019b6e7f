"""Every kind of repository: inside, git status prints what it prints on the host, and all work comes back.

Table: tests/support/kinds.py; what a person is told of it: docs/reference/repositories.md.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coding_agents.errors import CodingAgentsError
from support.agent_at_work import work
from support.kinds import KINDS, Kind, as_parameter, global_rules
from support.roundtrip import begin, round_trip, tree_of
from support.workspaces import guest_git

WORKING = [as_parameter(kind) for kind in KINDS if not kind.refused]
REFUSED = [as_parameter(kind) for kind in KINDS if kind.refused]


@pytest.mark.parametrize("kind", WORKING)
def test_clean_means_clean(tmp_path: Path, kind: Kind) -> None:
    host = kind.build(tmp_path)
    outside = host.git("status", "--porcelain=v1", "-z")
    objects = host.git("count-objects", "-v")
    filled = host.fill()
    assert guest_git(filled.inside, "status", "--porcelain=v1", "-z") == outside
    attributes = filled.inside / ".git/info/global-attributes"
    if attributes.exists():  # the made configuration names its place in the container
        guest_git(filled.inside, "config", "core.attributesFile", str(attributes))
    _make_stale(filled.inside)  # git must judge by content now, with the settings that came along
    assert guest_git(filled.inside, "status", "--porcelain=v1", "-z") == outside
    assert guest_git(filled.inside, "fsck", "--full", "--strict", "--no-dangling") in ("", _UNBORN)
    assert host.git("status", "--porcelain=v1", "-z") == outside
    assert kind.fetches or host.git("count-objects", "-v") == objects


_UNBORN = "notice: HEAD points to an unborn branch (main)\nnotice: No default references"


def test_what_the_users_own_rules_ignore_is_ignored_inside(tmp_path: Path) -> None:
    session = begin(global_rules(tmp_path))
    _write(session.work / "later.orig", b"x")
    _write(session.work / "private/later", b"x")
    _write(session.work / "later", b"x")
    saved = session.save()
    came_back = tree_of(session.host, str(session.bring().tip))
    assert saved.pushed
    assert "later" in came_back
    assert came_back.keys().isdisjoint({"later.orig", "private/later"})


@pytest.mark.parametrize("kind", WORKING)
def test_comes_back_whole(tmp_path: Path, kind: Kind) -> None:
    host = kind.build(tmp_path)
    head = (host.facts().git_dir / "HEAD").read_bytes()
    before = host.git("status", "--porcelain=v1", "-z")
    session = round_trip(host, lambda inside: work(inside.work, inside.git), stored=kind.stored)
    assert (session.work / "moved").exists()
    assert host.git("status", "--porcelain=v1", "-z") == before
    assert (host.facts().git_dir / "HEAD").read_bytes() == head


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_supported_is_refused_with_the_reason(tmp_path: Path, kind: Kind) -> None:
    host = kind.build(tmp_path)
    with pytest.raises(CodingAgentsError) as refused:
        host.fill()
    assert refused.value.code == kind.refused
    assert kind.says in f"{refused.value.message} {refused.value.hint}"
    assert refused.value.hint


def _make_stale(root: Path) -> None:
    """Give every file another time, so that git cannot trust what its index says of it."""
    for path in root.rglob("*"):
        if ".git" not in path.relative_to(root).parts and path.is_file() and not path.is_symlink():
            os.utime(path, (1_600_000_000, 1_600_000_000))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
