"""Repositories that we keep for the user: clones of URLs, and empty ones. All bare, all host-owned.

In a clone the remote's branches live under refs/remotes/origin/, and one local branch, the default one,
follows the remote as far as that is a fast-forward. So an update can never overwrite a branch that a
session brought back.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from msgspec.structs import replace

from coding_agents.errors import CloneError, GitError
from coding_agents.gitsync.base import appear, init_bare, init_draft
from coding_agents.gitsync.discover import read_facts
from coding_agents.gitsync.packs import Store
from coding_agents.gitsync.urls import EMPTY, GitUrl
from coding_agents.model.refs import Oid
from coding_agents.model.repo import RepoFacts, RepoKind
from coding_agents.proc.git import Profile, git
from coding_agents.proc.runner import Outcome
from coding_agents.store.files import locked, make_dir

_NETWORK_S = 3600.0
_REMOTE = "refs/remotes/origin/"
_SYMREF = re.compile(r"^ref: refs/heads/(\S+)\tHEAD$", re.MULTILINE)
_OID = re.compile(r"^([0-9a-f]{40}|[0-9a-f]{64})\t", re.MULTILINE)
_NEEDS_CREDENTIALS = (
    "could not read Username", "could not read Password", "Authentication failed", "Permission denied",
    "terminal prompts disabled", "Host key verification failed", "requested URL returned error: 403",
)  # fmt: skip
_NOT_THERE = (
    "not found", "does not exist", "does not appear to be a git repository", "not a git repository",
    "Could not resolve host",
)  # fmt: skip


def clone_url(url: GitUrl, data_dir: Path, *, env: Mapping[str, str]) -> RepoFacts:
    """The repository of `url` under `data_dir`/repos, cloned or brought up to date.

    With the user's git configuration and credentials, without any prompt, hook or submodule. It appears
    whole or not at all. Raises CloneError, StoreError.
    """
    git_dir = data_dir / "repos" / url.directory
    listing = _network(url, env, None, "ls-remote", "--symref", "--", url.shown, "HEAD").text()
    make_dir(git_dir.parent)
    default = found[1] if (found := _SYMREF.search(listing)) else "main"
    object_format = "sha256" if (oid := _OID.search(listing)) and len(oid[1]) == 64 else "sha1"
    if git_dir.exists():
        _update(git_dir, url, default, env)
    else:
        draft = git_dir.with_name(f"{git_dir.name}.new")
        shutil.rmtree(draft, ignore_errors=True)  # left by an interrupted clone
        try:
            init_draft(draft, object_format=object_format, env=env, branch=default)
            _store(draft, env).git("config", "remote.origin.url", url.shown)
            _store(draft, env).git("config", "remote.origin.fetch", f"+refs/heads/*:{_REMOTE}*")
            _update(draft, url, default, env)
            appear(draft, git_dir)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return _facts(RepoKind.URL, url.name, git_dir, object_format, env)


def empty_repository(data_dir: Path, name: str, *, env: Mapping[str, str]) -> RepoFacts:
    """The bare repository for `--empty` sessions called `name` (a session's name), made when missing."""
    git_dir = data_dir / "repos" / EMPTY / f"{name}.git"
    make_dir(git_dir.parent)
    with locked(git_dir.with_suffix(".lock")):
        init_bare(git_dir, object_format="sha1", env=env)
    return _facts(RepoKind.EMPTY, name, git_dir, "sha1", env)


def drop_empty_repository(data_dir: Path, name: str) -> None:
    """Remove what `empty_repository` made for `name`, whose work nobody wants. What is gone is fine."""
    git_dir = data_dir / "repos" / EMPTY / f"{name}.git"
    shutil.rmtree(git_dir, ignore_errors=True)
    git_dir.with_suffix(".lock").unlink(missing_ok=True)


def _update(git_dir: Path, url: GitUrl, default: str, env: Mapping[str, str]) -> None:
    _network(
        url, env, git_dir,
        "fetch", "--quiet", "--prune", "--no-write-fetch-head",
        "--no-auto-maintenance", "--no-recurse-submodules", "--", url.shown, f"+refs/heads/*:{_REMOTE}*",
    )  # fmt: skip
    store = _store(git_dir, env)
    local, remote = store.resolve(f"refs/heads/{default}"), store.resolve(f"{_REMOTE}{default}")
    if remote is not None and _may_follow(store, local, remote):
        store.update_refs(f"update refs/heads/{default} {remote} {local or '0' * len(remote)}")
    store.git("symbolic-ref", "HEAD", f"refs/heads/{default}")


def _may_follow(store: Store, local: Oid | None, remote: Oid) -> bool:
    return local is None or store.is_ancestor(local, remote)


def _network(url: GitUrl, env: Mapping[str, str], git_dir: Path | None, *args: str) -> Outcome:
    """Run git against the remote. The full URL travels in the environment, not in the argument list."""
    secret = {}
    if url.full != url.shown:
        secret = {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{url.full}.insteadOf",
            "GIT_CONFIG_VALUE_0": url.shown,
        }
    outcome = git(
        args, profile=Profile.CLONE, env=env, git_dir=git_dir, cwd=git_dir or Path("/"),
        env_extra=secret, timeout_s=_NETWORK_S, check=False,
    )  # fmt: skip
    if not outcome.ok:
        raise _clone_error(url, outcome)
    return outcome


def _clone_error(url: GitUrl, outcome: Outcome) -> CloneError:
    # The arguments hold `shown` only; what git and its helpers say may repeat the whole URL.
    said = outcome.stderr.replace(url.full.encode(), url.shown.encode())
    for word in _secrets(url):
        said = said.replace(word.encode(), b"***")
    details = replace(outcome, stderr=said).describe()
    if any(sign in details for sign in _NEEDS_CREDENTIALS):
        return CloneError(
            f"{url.shown} needs credentials, or does not exist for this user",
            details=details,
            hint=f"Set up a credential helper or an ssh key so that `git ls-remote {url.shown}` works here.",
        )
    if any(sign in details for sign in _NOT_THERE):
        return CloneError(f"{url.shown} does not exist", details=details, hint="Check the URL.")
    return CloneError(
        f"{url.shown} cannot be cloned",
        details=details,
        hint=f"See what `git ls-remote {url.shown}` says here.",
    )


def _secrets(url: GitUrl) -> list[str]:
    """What the userinfo holds that nobody may see, the longest first: a user's password, or a lone token."""
    if url.full == url.shown:
        return []
    userinfo = urlsplit(url.full).netloc.rpartition("@")[0]
    user, _, password = userinfo.partition(":")
    return [word for word in (userinfo, password or user) if word]


def _store(git_dir: Path, env: Mapping[str, str]) -> Store:
    return Store(git_dir, Profile.OWN, env)


def _facts(kind: RepoKind, name: str, git_dir: Path, object_format: str, env: Mapping[str, str]) -> RepoFacts:
    try:
        return read_facts(
            kind, name, work_tree=None, git_dir=git_dir, common_dir=git_dir,
            object_format=object_format, env=env,
        )  # fmt: skip
    except OSError as error:
        raise GitError(f"the repository at {git_dir} cannot be read: {error.strerror}") from error
