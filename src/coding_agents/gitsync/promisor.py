"""Completing a partial clone before a commit of it is given to an agent.

A partial clone lacks objects that its promisor remote has promised to give later. A container reaches no remote, so
the host fetches what is missing, as the user's git would do bit by bit: from their own remote, with their own
credentials, and marked as promised, so that their repository stays what it was.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from coding_agents.errors import GitError
from coding_agents.gitsync.packs import Store, user_store
from coding_agents.gitsync.urls import strip_userinfo
from coding_agents.model.refs import Oid
from coding_agents.model.repo import RepoFacts
from coding_agents.proc.git import Profile, git, owner_of
from coding_agents.proc.runner import Outcome

_NETWORK_S = 3600.0
_WALK_S = 1800.0
_MOST_ROUNDS = 100  # trees come with all that is below them: two rounds are enough for an honest remote
_AT_ONCE = 50_000

# As git's own promisor-remote.c: without negotiation, for the commits that we have prove nothing here; and trees
# without blobs, each of which is asked for by name.
_FETCH = (
    "-c", "fetch.negotiationAlgorithm=noop", "-c", "fetch.writeCommitGraph=false",
    "fetch", "--quiet", "--no-tags", "--no-prune", "--no-write-fetch-head", "--no-auto-maintenance",
    "--no-recurse-submodules", "--refmap=", "--filter=blob:none", "--stdin",
)  # fmt: skip


class _Remote(msgspec.Struct, frozen=True):
    name: str
    url: str


def complete(repo: RepoFacts, tip: Oid, *, known: Iterable[Oid], env: Mapping[str, str]) -> None:
    """Fetch what `repo` lacks of the closure of `tip` beyond `known`. Costs nothing in a whole repository.

    Raises GitError when something stays missing.
    """
    # What a promisor remote gave lies in packs that are marked so (gitformat-pack(5)).
    if not any((repo.common_dir / "objects/pack").glob("*.promisor")):
        return
    store = user_store(repo, env)
    beyond = list(known)
    missing = _missing(store, tip, beyond)
    if not missing:
        return
    reason = "it has no promisor remote"
    remotes = _promisors(repo, env)
    for remote in remotes:
        for _ in range(_MOST_ROUNDS):
            if not missing:
                return
            outcome = _fetch(repo, remote, missing, env)
            before, missing = missing, _missing(store, tip, beyond)
            if not outcome.ok or missing == before:
                reason = _reason(remote, outcome)
                break
    if missing:
        raise _incomplete(repo, store, missing, tip, remotes, reason)


def _missing(store: Store, tip: Oid, known: Sequence[Oid]) -> list[str]:
    """What is missing as far as one can see: nothing that a missing tree would name."""
    revisions = "".join([f"{tip}\n", *(f"^{oid}\n" for oid in known)]).encode()
    listed = store.git(
        "rev-list", "--objects", "--no-object-names", "--missing=print", "--stdin",
        stdin=revisions, timeout_s=_WALK_S,
    ).text()  # fmt: skip
    return [line[1:] for line in listed.split("\n") if line.startswith("?")]


def _promisors(repo: RepoFacts, env: Mapping[str, str]) -> list[_Remote]:
    """The remotes that have promised objects, in git's order."""
    wanted = r"^(extensions\.partialclone|remote\..*\.(promisor|url))$"
    listed = git(
        ("config", "--null", "--get-regexp", wanted),
        profile=Profile.USER_READ, env=env, git_dir=repo.git_dir, owner=owner_of(repo), check=False,
    ).text()  # fmt: skip
    urls: dict[str, str] = {}
    names: dict[str, None] = {}
    for key, _, value in (entry.partition("\n") for entry in listed.split("\0") if entry):
        remote, _, what = key.removeprefix("remote.").rpartition(".")
        if key == "extensions.partialclone":
            names[value] = None
        elif what == "url":
            urls.setdefault(remote, value)
        elif value.lower() in ("", "true", "yes", "on", "1"):
            names[remote] = None
    return [_Remote(name, urls.get(name, "")) for name in names if name and not name.startswith("-")]


def _fetch(repo: RepoFacts, remote: _Remote, oids: Sequence[str], env: Mapping[str, str]) -> Outcome:
    """Fetch `oids`; the last outcome, which is that of the first call that fails."""
    for start in range(0, len(oids), _AT_ONCE):
        outcome = git(
            (*_FETCH, remote.name),
            profile=Profile.CLONE, env=env, git_dir=repo.git_dir, owner=owner_of(repo),
            stdin="".join(f"{oid}\n" for oid in oids[start : start + _AT_ONCE]).encode(),
            timeout_s=_NETWORK_S, check=False,
        )  # fmt: skip
        if not outcome.ok or start + _AT_ONCE >= len(oids):
            return outcome
    raise AssertionError("there is nothing to fetch")


def _reason(remote: _Remote, outcome: Outcome) -> str:
    where = f"{remote.name} ({strip_userinfo(remote.url)})"
    if outcome.ok:
        return f"{where} does not have them"
    if outcome.timed_out:
        return f"{where} did not give them within {_NETWORK_S / 60:.0f} minutes"
    lines = outcome.stderr.decode("utf-8", "replace").strip().splitlines()
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines or ["git fetch failed"]
    return f"{where} does not give them: {fatal[0][:300]}"


def _incomplete(
    repo: RepoFacts,
    store: Store,
    missing: Sequence[str],
    tip: Oid,
    remotes: Sequence[_Remote],
    reason: str,
) -> GitError:
    count = "an object" if len(missing) == 1 else f"{len(missing)} objects"
    hint = "Clone the repository anew, without --filter."
    if remotes:
        place = str(repo.work_tree or repo.git_dir)
        command = f"git -C {shlex.quote(place)} fetch --refetch --no-filter {shlex.quote(remotes[0].name)}"
        hint = f"When the remote can be reached: {command}"
    return GitError(
        f"the partial clone lacks {count} of HEAD's history, such as {_example(store, missing, tip)}; {reason}",
        hint=hint,
    )


def _example(store: Store, missing: Sequence[str], tip: Oid) -> str:
    """One of `missing`, with its path when HEAD has it."""
    wanted = set(missing)
    listed = store.git("ls-tree", "-r", "-z", "--full-tree", tip, check=False).text()
    for entry in listed.split("\0"):
        info, _, path = entry.partition("\t")
        if path and info.split(" ")[2] in wanted:
            return f"{info.split(' ')[2]} ({path!r})"
    return missing[0]
