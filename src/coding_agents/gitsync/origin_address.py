"""Which address origin has: resolved as the user's git would, when a session is launched, and held against that later.

The configuration of the user's repository counts here and nowhere else: it says which address `origin` is. What the
session reaches is that literal address from then on; where the repository says something else by now, nothing is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from coding_agents.errors import CloneError, CodingAgentsError, GitError
from coding_agents.gitsync.urls import parse_url, strip_userinfo
from coding_agents.model.masked import Masked
from coding_agents.model.origin import MOST_PLACES, Origin
from coding_agents.model.repo import RepoFacts, RepoKind
from coding_agents.proc.git import Profile, git, owner_of
from coding_agents.proc.git_user import literal, require_literal, user_command
from coding_agents.proc.runner import run

_S = 20.0
_REMOTE = "origin"
# At a path git serves the other side itself, by what the user's own configuration says: their core.hooksPath would run
# there, which may lie in a work tree that has the agent's branch. There is no such file, so nothing can replace it.
_PLAINLY = f"env GIT_CONFIG_GLOBAL={os.devnull}/none"
_SERVED = (("uploadpack", "upload-pack"), ("receivepack", "receive-pack"))


class Address(Masked, frozen=True):
    """An address to reach: `full` may hold a password and is for git alone, `shown` is what else names it."""

    MASKED = frozenset({"full"})

    full: str
    shown: str

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """Git's settings for a remote that is this address, and no other by any rule of the user's."""
        name = self.remote
        served = tuple((f"remote.{name}.{key}", f"{_PLAINLY} git-{program}") for key, program in _SERVED)
        return (
            (f"remote.{name}.url", self.full),
            (f"remote.{name}.pushurl", self.full),
            *(served if self.full.startswith(("/", "file:")) else ()),
            *literal(self.full),
        )

    @property
    def remote(self) -> str:
        """The remote's name, of which the user's own configuration says nothing."""
        return "coding-agents-origin"

    def without_secret(self, text: str) -> str:
        """`text` of git's without what `full` has and `shown` has not."""
        if self.full == self.shown:
            return text
        userinfo = self.full.partition("://")[2].rpartition("@")[0].split("/")[0]
        user, _, password = userinfo.partition(":")
        for word in (self.full, userinfo, password or user):
            text = text.replace(word, self.shown if word == self.full else "***") if word else text
        return text


def resolve_origins(
    repo: RepoFacts, allowed: Sequence[str], *, env: Mapping[str, str]
) -> tuple[tuple[Origin, ...], str]:
    """What a session of `repo` may call origin, and why that is less than it could be ("" when it is not).

    `allowed` are further addresses from the user's settings, which may be fetched from. Raises nothing of ours.
    """
    found: list[Origin] = []
    trouble = ""
    try:
        if repo.origin_url and repo.kind is not RepoKind.EMPTY:
            found.append(_own(repo, env))
    except CodingAgentsError as error:
        trouble = error.message
    for number, url in enumerate(allowed[:MOST_PLACES], start=1):
        try:
            resolved = _checked(_get_url(url, env))
            found.append(Origin(f"{_REMOTE}/{number}", strip_userinfo(resolved), rewritten=(url,)))
        except CodingAgentsError as error:
            trouble = trouble or error.message
    return tuple(found), trouble


def address_of(origin: Origin, repo: RepoFacts, *, push: bool, env: Mapping[str, str]) -> Address:
    """The address to fetch from or push to, as it still is. Raises GitError when it is another one by now."""
    shown = origin.push if push else origin.fetch
    if origin.place == _REMOTE:
        urls = _remote_urls(repo, env, push=push)
        full = urls[0] if len(urls) == 1 else ""
    else:
        full = _get_url(origin.rewritten[0] if origin.rewritten else shown, env)
    if not shown or strip_userinfo(_checked(full) if full else "") != shown:
        raise GitError(
            "the repository's settings name another address for origin than at launch",
            hint="Start the session again, so that it is given the new one.",
        )
    require_literal(full, env=env)
    return Address(full, shown)


def _own(repo: RepoFacts, env: Mapping[str, str]) -> Origin:
    if repo.owner_uid != os.geteuid():
        raise GitError(
            "the repository belongs to another user, whose credentials are not ours to use",
            hint="Launch as the user whose it is.",
        )
    fetch = strip_userinfo(_checked(_remote_urls(repo, env, push=False)[0]))
    pushed = _remote_urls(repo, env, push=True)
    push, why = "", ""
    if len(pushed) == 1:
        push = strip_userinfo(_checked(pushed[0]))
    else:
        why = f"origin has {len(pushed)} addresses for pushing, and an approval is for one"
    raw = repo.origin_url if repo.origin_url != fetch else ""
    return Origin(_REMOTE, fetch, push, why, (raw,) if raw else ())


def _remote_urls(repo: RepoFacts, env: Mapping[str, str], *, push: bool) -> list[str]:
    """Origin's addresses with the rules of the user's for rewriting applied. Raises GitError."""
    way = ("--push", "--all") if push else ()
    answer = git(
        ("remote", "get-url", *way, _REMOTE), profile=Profile.USER_READ, env=env, git_dir=repo.git_dir,
        owner=owner_of(repo), timeout_s=_S,
    )  # fmt: skip
    urls = answer.text().removesuffix("\n").split("\n")
    return [_absolute(url, repo) for url in urls]


def _absolute(url: str, repo: RepoFacts) -> str:
    """A path means one from the top of the work tree (git-remote(1)); we are called elsewhere."""
    try:
        is_path = parse_url(url) is None
    except CloneError:
        return url
    base = repo.work_tree or repo.common_dir
    return os.path.normpath(base / Path(url).expanduser()) if is_path and url else url


def _get_url(url: str, env: Mapping[str, str]) -> str:
    outcome = run(user_command(("ls-remote", "--get-url", url), env=env, timeout_s=_S))
    if not outcome.ok:
        raise GitError(
            f"git does not say which address {strip_userinfo(url)[:200]!r} is", details=outcome.describe()
        )
    return outcome.text().removesuffix("\n")


def _checked(url: str) -> str:
    """`url`, when it is one that only moves objects, or a path. Raises CloneError."""
    if parse_url(url) is None and not (url.startswith("/") and url.isprintable()):
        raise CloneError(
            f"origin is {strip_userinfo(url)[:200]!r}, which the host does not reach for sessions",
            hint="Use an https://, ssh:// or git@host:path address, or an absolute path.",
        )
    return url
