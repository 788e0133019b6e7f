"""A copy of origin's branches and tags: one bare repository of ours for each address, which its sessions share.

It holds what the host has fetched from that address with the user's own credentials, and nothing of the user's own
repositories. A session reads refs of it alone (`git upload-pack` with protocol v0), never an object by its id.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from coding_agents.errors import GitError, StoreError
from coding_agents.gitsync.base import init_bare
from coding_agents.gitsync.origin_address import Address
from coding_agents.gitsync.origin_refs import clear_loose, settle_refs
from coding_agents.gitsync.packs import Store
from coding_agents.gitsync.relay_repo import service_command
from coding_agents.model.masked import Masked
from coding_agents.model.origin import is_fetched, refspecs, shown_refs
from coding_agents.model.refs import Oid
from coding_agents.proc.bounded import run_bounded_aside
from coding_agents.proc.git import Profile
from coding_agents.proc.git_user import NO_REPOSITORY, user_command
from coding_agents.proc.limits import ProcessLimits
from coding_agents.proc.runner import Command, Outcome
from coding_agents.store.files import locked, make_dir

_GIB = 1 << 30
MOST_REFS = 100_000
PACK_BYTES = _GIB
STORE_BYTES = 8 * _GIB
FRESH_S = 10.0
_LIST_BYTES = 64 << 20  # a hundred thousand refs of three hundred bytes are thirty megabytes
_LIST_S, _FETCH_S, _LOCK_S = 60.0, 900.0, 900.0
# Of git and what it starts (index-pack, ssh, a helper of the user's). A pack is a file, so its size is bounded, too.
_LIMITS = ProcessLimits(cpu_s=900, memory_bytes=4 * _GIB, file_bytes=PACK_BYTES, open_files=1024)
# Refs are made durable by us, all at once; git would do it with each.
_FETCH = (
    "-c", "fetch.unpackLimit=1", "-c", "core.fsync=objects,derived-metadata", "fetch", "--quiet", "--prune",
    "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--no-recurse-submodules", "--refmap=",
)  # fmt: skip
_HEAD = re.compile(r"ref: refs/heads/([^\s\x00-\x1f]{1,250})\tHEAD")
_LINE = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64})\t(refs/[^\s\x00-\x1f\x7f~^:?*\[\\]{1,500})")
_PEELED = "^{}"
_NEEDS = (
    "could not read Username", "could not read Password", "Authentication failed", "Permission denied",
    "terminal prompts disabled", "Host key verification failed", "error: 403", "error: 401",
)  # fmt: skip
_REDIRECT = (
    "unable to update url base from redirection",
    "error: 301",
    "error: 302",
    "error: 307",
    "error: 308",
)
_UNTRUSTED = ("certificate verification failed", "SSL certificate problem", "server certificate")
# What a git says whose index-pack was ended by SIGXFSZ, in different versions.
_TOO_LARGE = ("File size limit", "index-pack died of signal 25", "invalid index-pack output")
_AWAY = ("Could not resolve host", "Connection refused", "Connection timed out", "Network is unreachable",
         "Failed to connect", "No route to host", "Temporary failure in name resolution",
         "Could not read from remote repository")  # fmt: skip


class Listing(Masked, frozen=True):
    """Branches and tags of origin by full name, and its default branch ("" when it does not say which)."""

    MASKED = frozenset({"refs"})

    refs: Mapping[str, Oid]
    default: str
    object_format: str = "sha1"


class OriginStore:
    """The copy of one address below `data_dir`, as far as `patterns` go. `env` is the user's environment."""

    def __init__(
        self,
        data_dir: Path,
        shown: str,
        patterns: Sequence[str],
        *,
        env: Mapping[str, str],
        fresh_s: float = FRESH_S,
    ) -> None:
        # Not for the address alone: what other settings have let in is none of this session's.
        whose = "\0".join((shown, *sorted(patterns))).encode("utf-8", "surrogateescape")
        self.git_dir = data_dir / "origins" / f"{hashlib.sha256(whose).hexdigest()[:20]}.git"
        self._patterns = tuple(patterns)
        self._env = env
        self._fresh_s = fresh_s
        self._one = asyncio.Lock()
        self._known: tuple[float, Listing] | None = None

    @property
    def store(self) -> Store:
        return Store(self.git_dir, Profile.OWN, self._env)

    def forget(self) -> None:
        """Let the next `refresh` look at origin whatever was known of it."""
        self._known = None

    async def refresh(self, address: Address) -> Listing:
        """Make the copy what origin is now, or was a moment ago: what that has. Raises GitError, StoreError."""
        async with self._one:
            if self._known is not None and time.monotonic() - self._known[0] < self._fresh_s:
                return self._known[1]
            listing = await self._list(address)
            here = await self._fetch(address, listing)
            self._known = time.monotonic(), Listing(here, listing.default, listing.object_format)
            return self._known[1]

    async def _list(self, address: Address) -> Listing:
        """Raises GitError."""
        outcome = await self._as_user(
            address, ("ls-remote", "--symref", "--", address.remote), timeout_s=_LIST_S, most=_LIST_BYTES
        )
        return await asyncio.to_thread(parse_listing, outcome.text(), self._patterns)

    async def _fetch(self, address: Address, listing: Listing) -> Mapping[str, Oid]:
        """The refs of the copy afterwards."""
        patterns = self._patterns
        with ExitStack() as held:
            await asyncio.to_thread(self._open, listing.object_format, held)
            here = await asyncio.to_thread(self.store.refs, *shown_refs(patterns))
            if here != listing.refs:
                await asyncio.to_thread(_require_room, self.git_dir)
                await asyncio.to_thread(self.store.sweep, until=time.time() - _FETCH_S)
                await self._as_user(
                    address,
                    (*_FETCH, "--", address.remote, *refspecs(patterns)),
                    timeout_s=_FETCH_S,
                    most=1 << 16,
                    git_dir=self.git_dir,
                )
                await asyncio.to_thread(self.store.sync)
                here = await asyncio.to_thread(self.store.refs, *shown_refs(patterns))
                await asyncio.to_thread(settle_refs, self.git_dir, here)
            head = f"refs/heads/{listing.default}"
            if head in here:
                await asyncio.to_thread(self.store.git, "symbolic-ref", "HEAD", head, check=False)
            return here

    def _open(self, object_format: str, held: ExitStack) -> None:
        make_dir(self.git_dir.parent)
        held.enter_context(locked(self.git_dir.with_suffix(".lock"), timeout_s=_LOCK_S))
        init_bare(self.git_dir, object_format=object_format, env=self._env)
        clear_loose(self.git_dir)  # of a fetch that was cut short

    async def _as_user(
        self,
        address: Address,
        args: Sequence[str],
        *,
        timeout_s: float,
        most: int,
        git_dir: Path = NO_REPOSITORY,
    ) -> Outcome:
        def command() -> Command:
            return user_command(
                args, env=self._env, git_dir=git_dir, settings=address.settings, limits=_LIMITS,
                timeout_s=timeout_s,
            )  # fmt: skip

        outcome = await run_bounded_aside(await asyncio.to_thread(command), most=most)
        if not outcome.ok:
            raise unreachable(address, outcome, "fetched")
        return outcome


def upload_pack(store: Store, patterns: Sequence[str], *, limits: ProcessLimits, timeout_s: float) -> Command:
    """`git upload-pack` for one fetch of what `patterns` have, by no object's id."""
    settings = ("uploadpack.allowTipSHA1InWant=false", "uploadpack.allowReachableSHA1InWant=false",
                "uploadpack.allowAnySHA1InWant=false", "uploadpack.allowFilter=false")  # fmt: skip
    return service_command(
        store,
        "upload-pack",
        shown_refs(patterns),
        settings=settings,
        env_extra={},
        limits=limits,
        timeout_s=timeout_s,
    )


def parse_listing(text: str, patterns: Sequence[str]) -> Listing:
    """What `ls-remote --symref` has printed, as far as `patterns` go. Raises GitError for more refs than we keep.

    Refs whose names git would not take are left out.
    """
    refs: dict[str, Oid] = {}
    default, object_format = "", "sha1"
    for line in text.split("\n"):
        if (found := _HEAD.fullmatch(line)) is not None:
            default = found[1]
        elif (match := _LINE.fullmatch(line)) is not None and not match[2].endswith(_PEELED):
            object_format = "sha256" if len(match[1]) == 64 else "sha1"
            if is_fetched(match[2], patterns):
                refs[match[2]] = Oid.parse(match[1])
        if len(refs) > MOST_REFS:
            raise GitError(
                f"origin has more than {MOST_REFS} branches and tags",
                hint="Name those that sessions need: origin.fetch in the settings.",
            )
    return Listing(refs, default, object_format)


def unreachable(address: Address, outcome: Outcome, what: str) -> GitError:
    """The error for a git that talked to origin and failed: its message is for the guest, its details are not."""
    said = address.without_secret(outcome.stderr.decode("utf-8", "replace"))
    details = address.without_secret(outcome.describe())
    hint = f"On the host, see what `git ls-remote {address.shown}` says."
    if outcome.timed_out:
        why = "it did not end in time, or sent too much"
    elif any(sign in said for sign in _NEEDS):
        why = "the host has no credential for it that works without a question"
    elif any(sign in said for sign in _REDIRECT):
        why = "it answers with another address, which is not followed"
    elif any(sign in said for sign in _UNTRUSTED):
        why = "the host does not trust its certificate"
    elif outcome.status in (-25, 128 + 25) or any(sign in said for sign in _TOO_LARGE):
        why = f"a pack of more than {PACK_BYTES >> 20} MiB, or a damaged one"
    elif any(sign in said for sign in _AWAY):
        why = "it cannot be reached"
    else:
        why = "git failed"
    return GitError(f"origin cannot be {what}: {why}", details=details, hint=hint)


def _require_room(git_dir: Path) -> None:
    used = 0
    for path in (git_dir / "objects").rglob("*"):
        try:
            used += path.lstat().st_blocks * 512
        except FileNotFoundError:
            continue
    if used > STORE_BYTES:
        raise StoreError(
            f"the host's copy of origin takes {used >> 20} MiB, {STORE_BYTES >> 20} are allowed",
            hint=f"Remove {git_dir}: it is fetched anew when it is needed.",
        )
