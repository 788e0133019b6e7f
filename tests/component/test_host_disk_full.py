"""A full disk under the user's repository: nothing is left half-written there, and with room again all comes home."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from coding_agents.errors import CodingAgentsError
from coding_agents.gitsync.lfs import Brought
from support.faults import fill, small_disk
from support.homeways import WAYS, require_home
from support.kinds import lfs
from support.roundtrip import begin
from support.workspaces import Host

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

KIB = 1 << 10
SIZE = 200 * KIB
# Room for nothing, for a directory or two, for a part of the pack, for all but its index, for all but the ref, ...
ROOM = (*range(0, 48, 4), *range(48, 192, 48), *range(192, 300, 4))


def left_over(host: Host) -> list[str]:
    """What a git, or one of us, writes before it is whole, and what stops the next git."""
    paths = (str(path.relative_to(host.work)) for path in (host.work / ".git").rglob("*"))
    return [
        path for path in paths if "tmp_" in path or path.endswith(".lock") or "coding-agents-moving" in path
    ]


def refs_of(host: Host) -> str:
    return host.git("for-each-ref")


def move_to(disk: Path, host: Host) -> None:
    """Let the user's repository lie on `disk`, which is to be mounted where it lay."""
    shutil.copytree(disk.with_name("aside"), disk, symlinks=True, dirs_exist_ok=True)
    host.git("status")


def until_there_is_room(host: Host, bring: Callable[[], object]) -> tuple[int, object]:
    """Try with ever more room; how often that failed, each time leaving all as it was, and what came of it."""
    refused = []
    for kib in ROOM:
        before = refs_of(host)
        hog = fill(host.work)
        os.truncate(hog, max(0, hog.stat().st_size - kib * KIB))
        try:
            came = bring()
            break
        except CodingAgentsError as error:
            refused.append(error)
        finally:
            hog.unlink()
        assert left_over(host) == [], kib
        assert refs_of(host) == before
    else:
        came = bring()
    assert [
        str(error) for error in refused if not ("Make room" in error.hint or "free space" in error.hint)
    ] == []
    return len(refused), came


@pytest.mark.parametrize("way", WAYS)
def test_all_comes_home_when_there_is_room_again(tmp_path: Path, way: str) -> None:
    session = WAYS[way].begin(tmp_path)
    (session.work / WAYS[way].inside / "later").write_bytes(os.urandom(SIZE))
    assert session.save().pushed
    facts, host = session.host.facts(), session.host
    host.work.rename(host.work.with_name("aside"))
    with small_disk(host.work, "8m") as disk:
        move_to(disk, host)
        failed, tip = until_there_is_room(host, lambda: WAYS[way].bring(session, facts))
        assert failed >= 20
        assert left_over(host) == []
        require_home(WAYS[way], session, tip)
        assert host.git("fsck", "--full", "--no-dangling") == ""


def test_large_files_come_home_when_there_is_room_again(tmp_path: Path) -> None:
    session = begin(lfs(tmp_path))
    content = os.urandom(SIZE)
    (session.work / "new.bin").write_bytes(content)
    assert session.save().pushed
    host = session.host
    host.work.rename(host.work.with_name("aside"))
    with small_disk(host.work, "8m") as disk:
        move_to(disk, host)
        failed, brought = until_there_is_room(host, session.bring_large)
        digest = hashlib.sha256(content).hexdigest()
        assert (failed >= 10, brought) == (True, Brought((digest,)))
        place = host.work / ".git/lfs"
        assert (place / "objects" / digest[:2] / digest[2:4] / digest).read_bytes() == content
        assert list((place / "tmp").iterdir()) == []
