"""The git of Debian's other release gives the same results: the tests of all that runs git, run with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import othergit
from support.product import ROOT

TESTS = (
    "unit/test_one_git.py", "unit/test_host_git_page.py", "component/test_autosave.py", "component/test_clone.py",
    "component/test_git_calls.py", "component/test_git_triggers.py", "component/test_gitsync.py",
    "component/test_hostile_repositories.py", "component/test_nested.py", "component/test_relay.py",
    "component/test_relay_budgets.py", "component/test_repository_kinds.py", "component/test_return_path.py",
    "component/test_review.py", "component/test_work.py", "component/test_workspace_fill.py",
    "component/test_workspace_listing.py",
)  # fmt: skip

_REFUSED = (
    "tests/component/test_repository_kinds.py::test_what_cannot_be_supported_is_refused_with_the_reason"
)
DIFFERENT = (
    f"{_REFUSED}[partial-treeless]",  # refused by both, but git 2.47 does not say that a promisor lacks the object
    f"{_REFUSED}[reftable]",  # git 2.45 and later know it
)
"""Where the releases differ by themselves."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(othergit.this_release() not in othergit.OTHER, reason="needs Debian 12 or 13")
def test_the_other_release_gives_the_same_results(tmp_path: Path) -> None:
    programs = othergit.git_of(othergit.OTHER[othergit.this_release()], tmp_path / "git")
    mine = subprocess.run(("git", "version"), capture_output=True, text=True, check=True).stdout
    theirs = othergit.version(programs)
    assert ".".join(map(str, theirs)) not in mine
    argv = (
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n0",
        "-p",
        "no:cacheprovider",
        f"--basetemp={tmp_path}/pytest",
    )
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(
        (
            *argv,
            "-m",
            "not slow",
            *(f"--deselect={one}" for one in DIFFERENT),
            *(f"tests/{name}" for name in TESTS),
        ),
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
