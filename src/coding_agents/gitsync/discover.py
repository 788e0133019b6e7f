"""Find the repository that SOURCE names, and read its facts once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from coding_agents.errors import BareRepositoryError, GitError, NotARepositoryError
from coding_agents.gitsync.urls import GitUrl, parse_url, strip_userinfo
from coding_agents.model.refs import Oid
from coding_agents.model.repo import Identity, RepoFacts, RepoKind
from coding_agents.proc.git import Profile, git
from coding_agents.proc.runner import Outcome, Owner

_FACTS = r"^(user\.(name|email)|remote\.origin\.url)$"


def resolve_source(raw: str) -> Path | GitUrl:
    """SOURCE as a path or as a git URL. Something that exists is a path. Raises CloneError."""
    if not raw.startswith("-") and Path(raw).exists():
        return Path(raw)
    return parse_url(raw) or Path(raw)


def discover(source: Path, *, env: Mapping[str, str]) -> RepoFacts:
    """The repository whose work tree contains `source`.

    Whether it is trusted is git's own decision with the user's own configuration (safe.directory); root
    asks as the owner of the repository. Raises NotARepositoryError, BareRepositoryError, GitError.
    """
    if not source.is_dir():
        raise NotARepositoryError(
            f"{str(source)!r} is not a directory", hint="Name a git repository, or a git URL."
        )
    owner = _owner_of_nearest(source.absolute())
    answer = _probe(
        ("rev-parse", "--path-format=absolute", "--show-toplevel", "--absolute-git-dir", "--git-common-dir",
         "--show-object-format"),
        source, env, owner,
    )  # fmt: skip
    if not answer.ok:
        raise _why_not(source, env, owner, answer)
    lines = answer.text().removesuffix("\n").split("\n")
    if len(lines) != 4:
        raise GitError(f"the path of {str(source)!r} contains a line break, which is not supported")
    work_tree, git_dir, common_dir = (Path(line) for line in lines[:3])
    name = common_dir.parent.name if common_dir.name == ".git" else work_tree.name
    return read_facts(
        RepoKind.PATH, name, work_tree=work_tree, git_dir=git_dir, common_dir=common_dir,
        object_format=lines[3], env=env,
    )  # fmt: skip


def read_facts(
    kind: RepoKind,
    name: str,
    *,
    work_tree: Path | None,
    git_dir: Path,
    common_dir: Path,
    object_format: str,
    env: Mapping[str, str],
) -> RepoFacts:
    """The facts of a repository at a known place. Raises GitError."""
    status = common_dir.stat()
    owner = Owner(status.st_uid, status.st_gid)

    def ask(*args: str) -> Outcome:
        return git(args, profile=Profile.USER_READ, env=env, git_dir=git_dir, owner=owner, check=False)

    head = ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    symbolic = ask("symbolic-ref", "--quiet", "HEAD").text().strip()
    config = _config(ask("config", "--null", "--get-regexp", _FACTS).text())
    return RepoFacts(
        kind=kind,
        name=name,
        work_tree=work_tree,
        git_dir=git_dir,
        common_dir=common_dir,
        head=Oid.parse(head.text().strip()) if head.ok else None,
        branch=symbolic.removeprefix("refs/heads/") if symbolic.startswith("refs/heads/") else None,
        origin_url=strip_userinfo(config.get("remote.origin.url", "")),
        identity=_identity(config.get("user.name", ""), config.get("user.email", "")),
        owner_uid=status.st_uid,
        owner_gid=status.st_gid,
        object_format=object_format,
        repo_id=hashlib.sha256(os.fsencode(common_dir.resolve())).hexdigest()[:12],
    )


def _probe(args: tuple[str, ...], source: Path, env: Mapping[str, str], owner: Owner | None) -> Outcome:
    return git(args, profile=Profile.USER_READ, env=env, cwd=source, owner=owner, check=False)


def _owner_of_nearest(source: Path) -> Owner | None:
    """The owner of the nearest `.git` at or above `source`: whom root becomes before git looks."""
    for directory in (source, *source.parents):
        try:
            status = (directory / ".git").lstat()
        except OSError:
            continue
        return Owner(status.st_uid, status.st_gid)
    return None


def _why_not(
    source: Path, env: Mapping[str, str], owner: Owner | None, answer: Outcome
) -> NotARepositoryError | BareRepositoryError | GitError:
    """The error for a `rev-parse --show-toplevel` that failed."""
    stderr = answer.stderr.decode("utf-8", "replace")
    if "dubious ownership" in stderr:
        return GitError(
            f"git does not trust the repository at {str(source)!r}: it belongs to another user",
            details=stderr.strip(),
            hint=f"If you trust it: git config --global --add safe.directory {source.absolute()}",
        )
    kind = _probe(("rev-parse", "--is-bare-repository", "--is-inside-git-dir"), source, env, owner)
    if kind.text().split()[:1] == ["true"]:
        return BareRepositoryError(
            f"{str(source)!r} is a bare repository: it has no work tree to copy",
            hint=f"Clone it by URL instead: launch-agent file://{source.absolute()}",
        )
    if kind.text().split()[1:2] == ["true"]:
        return NotARepositoryError(
            f"{str(source)!r} lies inside a .git directory", hint="Name the work tree instead."
        )
    if "not a git repository" in stderr:
        return NotARepositoryError(
            f"{str(source)!r} is not a git repository",
            hint="Run `git init` there, or launch with --empty to start from nothing.",
        )
    return GitError(f"the repository at {str(source)!r} cannot be read", details=answer.describe())


def _config(listing: str) -> dict[str, str]:
    """Values of `config --null --get-regexp`: the last one counts, but of a remote's URLs the first."""
    values: dict[str, str] = {}
    for entry in listing.split("\0"):
        key, _, value = entry.partition("\n")
        if key != "remote.origin.url" or key not in values:
            values[key] = value
    return values


def _identity(name: str, email: str) -> Identity | None:
    return Identity(name, email) if name and email else None
