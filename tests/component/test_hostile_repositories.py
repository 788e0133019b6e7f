"""Repositories that are made to run something, or to give away more than themselves, when they are launched."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from coding_agents.errors import CodingAgentsError, GitError
from coding_agents.gitsync.discover import discover
from coding_agents.proc.git import Profile, git_command
from coding_agents.workspace.tree import Tree
from support.product import git, make_repo

ENV = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}


@pytest.mark.parametrize("start", ["docs", "docs/sub"])
@pytest.mark.parametrize("work_tree", [".", ".."])
def test_a_directory_that_looks_like_a_bare_repository_is_content(
    tmp_path: Path, work_tree: str, start: str
) -> None:
    """With `..` only safe.bareRepository stands in the way: the work tree is the one that was meant, and git would
    take the configuration, with its filter, from the content."""
    repo = make_repo(tmp_path / "repo")
    docs = repo / "docs"
    for name in ("objects", "refs/heads", "sub"):
        (docs / name).mkdir(parents=True)
    (docs / "HEAD").write_text("ref: refs/heads/main\n")
    (docs / "config").write_text(
        "[core]\n\trepositoryformatversion = 0\n\tbare = false\n"  # without a version git heeds no worktree
        f'\tworktree = {work_tree}\n[filter "x"]\n\tclean = false\n'
    )
    with pytest.raises(CodingAgentsError):
        discover(repo / start, env=ENV)


def test_core_worktree_does_not_widen_the_copy(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "home" / "proj")
    git(repo, "config", "core.worktree", "../..")
    with pytest.raises(GitError, match="elsewhere"):
        discover(repo, env=ENV)


def test_no_repository_can_allow_a_transport_of_its_own() -> None:
    """GIT_ALLOW_PROTOCOL overrides protocol.*.allow (git(1)), which a hostile .git/config may hold."""
    for profile in Profile:
        command = git_command(("status",), profile=profile, env=ENV)
        allowed = command.env["GIT_ALLOW_PROTOCOL"].split(":")
        assert ("https" in allowed) == (profile in (Profile.CLONE, Profile.AS_USER))
        assert "ext" not in allowed


@pytest.mark.parametrize("path", ["..", "../outside", "a/../..", ".", "a//b"])
def test_no_path_of_a_crafted_index_leaves_the_tree(tmp_path: Path, path: str) -> None:
    (tmp_path / "tree/a/b").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    with Tree(tmp_path / "tree") as tree:
        assert tree.directory(path) is None
        assert tree.directory("a/b") is not None


def test_subdirectories_and_linked_work_trees_are_found(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo")
    git(repo, "worktree", "add", "-q", str(tmp_path / "linked"))
    assert discover(repo / "src", env=ENV).work_tree == repo
    assert discover(tmp_path / "linked", env=ENV).work_tree == tmp_path / "linked"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes the owner of a repository")
def test_root_does_not_read_anothers_configuration_as_root(tmp_path: Path) -> None:
    """`.git/commondir` leads to a directory of root's in which the attacker has put a configuration."""
    tmp_path.chmod(0o755)
    repo = make_repo(tmp_path / "repo")
    common = tmp_path / "sticky"
    common.mkdir(mode=0o1777)
    for name in ("objects", "refs", "config"):
        (repo / ".git" / name).rename(common / name)
        os.chown(common / name, 12345, 12345)
    (repo / ".git/commondir").write_text(f"{common}\n")
    with pytest.raises(GitError, match="does not belong to root"):
        discover(repo, env=ENV)
    for directory, names, files in os.walk(repo):
        for name in (".", *names, *files):
            os.chown(Path(directory) / name, 12345, 12345, follow_symlinks=False)
    # git itself may refuse such a mixture; what must not happen is that root counts as the owner.
    with suppress(CodingAgentsError):
        assert discover(repo, env=ENV).owner_uid == 12345
