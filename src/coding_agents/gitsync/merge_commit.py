"""The commit that a merge or a squash makes: by the user, of a tree that is there, without a hook."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from coding_agents.gitsync.packs import Store
from coding_agents.model.refs import Oid
from coding_agents.model.repo import Identity
from coding_agents.proc.git import git

Sign = Callable[[bytes], bytes]
"""Gives the commit object with a signature in it for one without. Raises CodingAgentsError."""


def make_commit(store: Store, tree: str, parents: Sequence[Oid], message: str, *, by: Identity) -> Oid:
    """Write a commit of now to `store`, which has `tree` and `parents`, and return its id. Raises GitError.

    It has no signature: git's own setting `commit.gpgSign` does not count here (see `signed_commit`).
    """
    people = {
        f"GIT_{role}_{part}": value
        for role in ("AUTHOR", "COMMITTER")
        for part, value in (("NAME", by.name), ("EMAIL", by.email))
    }
    parent_words = [word for parent in parents for word in ("-p", parent)]
    made = git(
        ("commit-tree", tree, *parent_words, "-F", "-"),
        profile=store.profile,
        env=store.env,
        git_dir=store.git_dir,
        stdin=message.encode("utf-8", "replace"),
        env_extra=people,
    )
    return Oid.parse(made.text().strip())


def signed_commit(store: Store, commit: Oid, sign: Sign) -> Oid:
    """Write `commit` again with a signature. Raises GitError, and what `sign` raises."""
    data = sign(store.git("cat-file", "commit", commit).stdout)
    return Oid.parse(store.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=data).text().strip())
