"""The git of Debian's other release gives the same results: the tests of all that runs git, run with it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import othergit
from support.aptroot import this_release
from support.product import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(this_release() not in othergit.OTHER, reason="needs Debian 12 or 13"),
]

TESTS = (
    "unit/test_one_git.py", "unit/test_host_git_page.py", "component/test_autosave.py", "component/test_clone.py",
    "component/test_edit_scripts.py", "component/test_git_calls.py", "component/test_git_refs.py",
    "component/test_git_triggers.py", "component/test_gitsync.py", "component/test_guest_autosave.py",
    "component/test_guest_nested.py", "component/test_guest_salvage.py", "component/test_guest_save.py",
    "component/test_host_repository_changes.py", "component/test_hostile_repositories.py",
    "component/test_hostile_volumes.py", "component/test_lfs.py", "component/test_merge.py", "component/test_nested.py",
    "component/test_pack_fuzz.py", "component/test_promisor.py", "component/test_push_fuzz.py",
    "component/test_relay.py", "component/test_relay_budgets.py", "component/test_repository_kinds.py",
    "component/test_return_path.py", "component/test_review.py", "component/test_review_history.py",
    "component/test_review_others.py", "component/test_review_words.py", "component/test_submodules.py",
    "component/test_work.py", "component/test_workspace_fill.py", "component/test_workspace_listing.py",
)  # fmt: skip
"""Not among them is test_crash_steps.py: it counts system calls by the names of processes, and the other git is started
by a loader, whose name they have (support/othergit.py)."""


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the other git."""
    programs = othergit.git_of(othergit.OTHER[this_release()], tmp_path_factory.mktemp("other") / "git")
    mine = subprocess.run(("git", "version"), capture_output=True, text=True, check=True).stdout
    assert ".".join(map(str, othergit.version(programs))) not in mine
    return programs


@pytest.mark.parametrize("name", TESTS)
def test_the_other_release_gives_the_same_results(other: Path, tmp_path: Path, name: str) -> None:
    said = _pytest(other, tmp_path, "-m", "not slow", f"tests/{name}")
    assert re.search(r"\d+ passed", said), said


def test_repositories_with_reftables_are_among_the_kinds_of_a_git_that_knows_them(
    other: Path, tmp_path: Path
) -> None:
    """Clean inside and whole afterwards, or refused."""
    said = _pytest(other, tmp_path, "-k", "reftable", "tests/component/test_repository_kinds.py")
    assert f"{2 if othergit.version(other) >= (2, 45) else 1} passed" in said


def _pytest(programs: Path, place: Path, *args: str) -> str:
    """What pytest says of tests that run with the git in `programs`; they must pass."""
    argv = (sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", f"--basetemp={place}/p")
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run((*argv, *args), cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout
