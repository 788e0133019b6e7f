"""Find the repository that SOURCE names, and read its facts once."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path

from coding_agents.errors import BareRepositoryError, GitError, NotARepositoryError
from coding_agents.gitsync.urls import GitUrl, parse_url, strip_userinfo
from coding_agents.model.refs import Oid
from coding_agents.model.repo import Identity, RepoFacts, RepoKind
from coding_agents.proc.git import Profile, git
from coding_agents.proc.runner import Outcome, Owner

# git names extensions in lower case (setup.c); several stand on lines of their own.
_UNKNOWN_EXTENSION = re.compile(r"unknown repository extensions? found:\s+([a-z0-9.-]{1,40})")
_FACTS = r"^(user\.(name|email)|remote\.origin\.url)$"


def resolve_source(raw: str) -> Path | GitUrl:
    """SOURCE as a path or as a git URL. Something that exists is a path. Raises CloneError, NotARepositoryError."""
    try:
        if not raw.startswith("-") and Path(raw).exists():
            return Path(raw)
    except OSError as error:  # a directory on the way that we may not search, a name that is too long
        raise NotARepositoryError(
            f"{raw[:200]!r} cannot be read: {(error.strerror or str(error)).lower()}",
            hint="Name a git repository, or a git URL.",
        ) from error
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
    root, owner = _nearest(source.absolute())
    answer = _probe(
        # A directory of the work tree that looks like a bare repository is content, not a repository.
        ("-c", "safe.bareRepository=explicit",
         "rev-parse", "--path-format=absolute", "--show-toplevel", "--absolute-git-dir", "--git-common-dir",
         "--show-object-format"),
        source, env, owner,
    )  # fmt: skip
    if not answer.ok:
        raise _why_not(source, env, owner, answer)
    lines = answer.text().removesuffix("\n").split("\n")
    if len(lines) != 4:
        raise GitError(f"the path of {str(source)!r} contains a line break, which is not supported")
    work_tree, git_dir, common_dir = (Path(line) for line in lines[:3])
    if root is None or not work_tree.samefile(root):
        raise GitError(
            f"the work tree of the repository at {str(root or source)!r} is elsewhere: {work_tree}",
            hint="Unset core.worktree there, or name the directory that is meant.",
        )
    _require_one_owner(owner, work_tree, git_dir, common_dir)
    name = common_dir.parent.name if common_dir.name == ".git" else work_tree.name
    return read_facts(
        RepoKind.PATH, name, work_tree=work_tree, git_dir=git_dir, common_dir=common_dir,
        object_format=lines[3], env=env, owner=owner,
    )  # fmt: skip


def _require_one_owner(owner: Owner | None, work_tree: Path, git_dir: Path, common_dir: Path) -> None:
    """Nothing that git reads for root may be somebody else's: its configuration names programs. Raises GitError.

    `.git/commondir` may lead anywhere, which git's own check of the owner does not follow.
    """
    if os.geteuid() != 0 or owner is None or owner.uid != 0:
        return
    parts = (common_dir / name for name in ("", "config", "objects", "refs"))
    for path in (work_tree, git_dir, *parts):
        if path.lstat().st_uid != 0:
            raise GitError(
                f"{path} does not belong to root, unlike the repository",
                hint="Give all of the repository to one user, or launch as the user whose it is.",
            )


def read_facts(
    kind: RepoKind,
    name: str,
    *,
    work_tree: Path | None,
    git_dir: Path,
    common_dir: Path,
    object_format: str,
    env: Mapping[str, str],
    owner: Owner | None = None,
) -> RepoFacts:
    """The facts of a repository at a known place; `owner` None: whoever has `common_dir`. Raises GitError."""
    if owner is None:
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
        owner_uid=owner.uid,
        owner_gid=owner.gid,
        object_format=object_format,
        repo_id=hashlib.sha256(os.fsencode(common_dir.resolve())).hexdigest()[:12],
    )


def _probe(args: tuple[str, ...], source: Path, env: Mapping[str, str], owner: Owner | None) -> Outcome:
    return git(args, profile=Profile.USER_READ, env=env, cwd=source, owner=owner, check=False)


def _nearest(source: Path) -> tuple[Path | None, Owner | None]:
    """The directory of the nearest `.git` at or above `source`, and its owner: whom root becomes before git looks."""
    for directory in (source, *source.parents):
        try:
            status = (directory / ".git").lstat()
        except OSError:
            continue
        return directory, Owner(status.st_uid, _group_of(status.st_uid, status.st_gid))
    return None, None


def _group_of(uid: int, otherwise: int) -> int:
    """The user's own group: that of a setgid directory is somebody else's choice."""
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return otherwise


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
    if unknown := _UNKNOWN_EXTENSION.search(stderr):
        extension = "reftable" if unknown[1] == "refstorage" else unknown[1]
        return GitError(
            f"the repository at {str(source)!r} uses {extension}, which this git does not know",
            details=answer.describe(),
            hint="Install a newer git, or clone the repository in the ordinary format.",
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
