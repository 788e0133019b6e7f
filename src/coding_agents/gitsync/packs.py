"""Move a commit's closure from one object store to another as a pack over a pipe.

Neither side runs the other's configuration: there is no transport, no child that re-reads configuration,
no advertised ref, and the two ends may run as different host users (root's relay, the user's repository).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from coding_agents.errors import GitError
from coding_agents.model.refs import Oid
from coding_agents.model.repo import RepoFacts
from coding_agents.proc.git import Profile, git, git_command, owner_of, require_ok
from coding_agents.proc.git_objects import arriving, clear_arrivals
from coding_agents.proc.git_refs import clear_abandoned, sweep_locks, sync_objects, sync_refs, update_refs
from coding_agents.proc.runner import Outcome, Owner, streaming

PRIVATE = "refs/coding-agents"
"""Where no ref is the user's own."""

_TRANSFER_S = 3600.0
_CHECK_S = 600.0
_MIB = 1 << 20


class Store(msgspec.Struct, frozen=True):
    """An object store and how git is run on it; `env` is the user's environment (see `proc.git`)."""

    git_dir: Path
    profile: Profile
    env: Mapping[str, str]
    owner: Owner | None = None

    def git(
        self, *args: str, stdin: bytes | None = None, check: bool = True, timeout_s: float = 60.0
    ) -> Outcome:
        """Run git on this store; raises GitError when `check` and it fails."""
        return git(
            args,
            profile=self.profile,
            env=self.env,
            git_dir=self.git_dir,
            owner=self.owner,
            stdin=stdin,
            check=check,
            timeout_s=timeout_s,
        )

    def refs(self, *prefixes: str) -> dict[str, Oid]:
        """Full ref names below `prefixes` with the object each names."""
        listing = self.git("for-each-ref", "--format=%(objectname) %(refname)", *prefixes).text()
        pairs = (line.split(" ", 1) for line in listing.split("\n") if line)
        return {name: Oid.parse(oid) for oid, name in pairs}

    def message(self, commit: Oid) -> str:
        """What it says of itself. Raises GitError."""
        return self.git("cat-file", "commit", commit).text().partition("\n\n")[2].strip()

    def update_refs(self, *commands: str, message: str = "") -> None:
        """Move refs in one transaction, durably (`proc.git_refs`). Raises GitError; then none was moved."""
        update_refs(
            commands,
            profile=self.profile,
            env=self.env,
            git_dir=self.git_dir,
            owner=self.owner,
            message=message,
        )

    def sync(self, *refs: str) -> None:
        """Make durable what a git of ours has just moved there by itself: packs, and `refs`. Raises GitError."""
        sync_objects(self.git_dir)
        sync_refs(self.git_dir, refs)

    def sweep(self, *, until: float = math.inf) -> None:
        """Remove what a killed git left in this repository of ours: objects half-written, and locks on refs.

        No git may be writing here whose files are older than `until` (epoch).
        """
        for pattern in ("pack/tmp_*", "??/tmp_*"):
            for leftover in (self.git_dir / "objects").glob(pattern):
                with suppress(FileNotFoundError):
                    if leftover.lstat().st_mtime <= until:
                        leftover.unlink()
        sweep_locks(self.git_dir)

    def resolve(self, ref: str) -> Oid | None:
        """The object that the full ref name `ref` names, or None."""
        found = self.git("rev-parse", "--verify", "--quiet", ref, check=False)
        return Oid.parse(found.text().strip()) if found.ok else None

    def present(self, oids: Iterable[Oid]) -> list[Oid]:
        """Those of `oids` that are here, in order."""
        wanted = "".join(f"{oid}\n" for oid in oids).encode()
        if not wanted:
            return []
        answer = self.git("cat-file", "--batch-check=%(objectname) %(objecttype)", stdin=wanted).text()
        return [Oid.parse(line.split()[0]) for line in answer.splitlines() if not line.endswith(" missing")]

    def is_ancestor(self, old: Oid, new: Oid) -> bool:
        """Whether `new` contains `old`. Raises GitError when one of them is missing."""
        outcome = self.git("merge-base", "--is-ancestor", old, new, check=False, timeout_s=600.0)
        return outcome.ok if outcome.status in (0, 1) else require_ok(outcome, "git merge-base").ok


def user_store(repo: RepoFacts, env: Mapping[str, str]) -> Store:
    """The user's repository, to move objects and refs in and out of: hooks and the like are off.

    What a killed git of ours has left there goes first: objects half-written, and locks on refs, which are in the way
    of the user's git, too.
    """
    clear_arrivals(repo.common_dir)
    clear_abandoned(repo.common_dir)
    return Store(repo.common_dir, Profile.USER_WRITE, env, owner_of(repo))


def bring(
    source: Store, target: Store, *, tips: Iterable[Oid], known: Iterable[Oid] = (), apart: Iterable[str] = ()
) -> None:
    """Have everything reachable from `tips` in the user's repository `target`, and prove it: the way of all work home.

    `known` is what both sides should have; what the user's repository has lost of that comes from `source`. As for
    `git fetch`, the history of a ref of the user's counts as whole; not so that of the refs below PRIVATE and of
    `apart`, which are our own: what they have lost is brought again. Raises GitError.
    """
    wanted = list(dict.fromkeys(tips))
    if _missing(target, wanted, apart) is None:
        return
    trouble = None
    try:
        copy_closure(source, target, tips=wanted, known=target.present(source.present(known)))
    except GitError as error:  # such as of a delta whose base is not there
        trouble = error
    if trouble is None and _missing(target, wanted, apart) is None:
        return
    if _missing_below(target, *wanted) is None:  # what is broken is another ref
        return
    copy_closure(source, target, tips=wanted, alone=True)
    if (check := _missing_below(target, *wanted)) is not None:
        raise GitError("the session's work arrived incomplete", details=check.describe())


def _missing(target: Store, tips: Sequence[Oid], apart: Iterable[str]) -> Outcome | None:
    """How git says that something of `tips` is not there, None when all is.

    All files of each tip are looked for, also those that the user's own branches should have, and of the history what
    no ref of the user's has.
    """
    ours = (f"--exclude={ref}" for ref in ("HEAD", f"{PRIVATE}/*", *apart))
    history = (*tips, "--not", *ours, "--all")
    return _missing_below(target, "--no-walk", *tips) or _missing_below(target, *history)


def _missing_below(target: Store, *revisions: str) -> Outcome | None:
    # What a commit-graph says of a commit is no sign that it is there.
    look = ("-c", "core.commitGraph=false", "rev-list", "--objects", "--quiet")
    outcome = target.git(*look, *revisions, check=False, timeout_s=_CHECK_S)
    return None if outcome.ok else outcome


def copy_closure(
    source: Store, target: Store, *, tips: Iterable[Oid], known: Iterable[Oid] = (), alone: bool = False
) -> None:
    """Copy everything reachable from `tips` and not from `known` (which both sides must have).

    They are durable when it returns, so that a ref may name them; when it fails nothing is left. Raises GitError when
    an object is missing or damaged in `source`, or `target` cannot be written. With `alone` nothing that `target` has
    is looked at, so that damage there does not matter.
    """
    revisions = "".join([*(f"{oid}\n" for oid in tips), "--not\n", *(f"{oid}\n" for oid in known)]).encode()
    pack = git_command(
        ("pack-objects", "--revs", "--stdout", "-q", "--thin", "--delta-base-offset"),
        profile=source.profile,
        env=source.env,
        git_dir=source.git_dir,
        owner=source.owner,
        timeout_s=_TRANSFER_S,
    )
    with arriving(target.git_dir, target.owner) as arrival:
        index = git_command(
            ("index-pack", "--stdin", "--fix-thin"),
            profile=target.profile,
            env=target.env,
            git_dir=target.git_dir,
            owner=target.owner,
            env_extra=arrival.env(alone=alone),
            timeout_s=_TRANSFER_S,
        )
        with streaming(pack) as producer, streaming(index) as consumer:
            # A side that dies early closes its pipe; the exit statuses below say which one and why.
            with suppress(BrokenPipeError):
                producer.stdin.write(revisions)
                producer.stdin.close()
            with suppress(BrokenPipeError):
                shutil.copyfileobj(producer.stdout, consumer.stdin, _MIB)
            require_ok(producer.finish(), "git pack-objects")
            require_ok(consumer.finish(), "git index-pack")
        arrival.keep()
    sync_objects(target.git_dir)
