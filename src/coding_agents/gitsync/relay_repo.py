"""The relay repository: the quarantine of one session, and the two processes that serve it.

Layout of refs (all but the first two, the nested and the given ones are hidden from the agent):

    refs/heads/<agent>/<branch>          the session's branch, which the agent may push
    refs/heads/<base branch>             where the session started, so that the agent can compare; read only
    refs/coding-agents/base              the same commit, kept by us
    refs/coding-agents/launch, launch-index  the user's uncommitted state at launch (workspace.launch_state)
    refs/coding-agents/nested/<path>     repositories inside the work tree (coding_agents_guest.nestedref); the
                                         agent may push them, too
    refs/coding-agents/given/{head,tree}/<path>  submodules that went in: their commit, and their files where the
                                         user had changed some; read only
    refs/coding-agents/lfs/<tree>        content of large files (coding_agents_guest.lfspointer); the agent may push
                                         them, too
    refs/coding-agents/lfs-home          which of them need not be sent (gitsync.lfs); the agent may read it
    refs/coding-agents/autosave/latest   the last automatic save; the agent may push it, too
    refs/coding-agents/autosave/<ms>     earlier ones by the host's time in milliseconds since the epoch
    refs/coding-agents/to-sign           the last commit that was to be signed; the agent may push it where it has
                                         commits signed
    refs/coding-agents/archive/<n>       old tips of non-fast-forward pushes, and what salvages brought and is home
    refs/coding-agents/archiving/<ref>   what a ref named before the push that is carried out (gitsync.old_tips)
    refs/coding-agents/salvage/{head,worktree}  what a salvage container found in the volume, until it is home
    refs/coding-agents/salvage/heads/<name>  branches and other refs there that HEAD does not contain
    refs/coding-agents/salvage/earlier/<oid>/<one of these>  of earlier salvages, when it is not home yet
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

import msgspec
from msgspec.structs import replace

from coding_agents.gitsync.base import BaseStore, appear, init_draft
from coding_agents.gitsync.packs import PRIVATE, Store
from coding_agents.model.refs import Branch, Oid
from coding_agents.proc.git import Profile, git_command
from coding_agents.proc.limits import ProcessLimits
from coding_agents.proc.runner import Command
from coding_agents_guest.lfspointer import LFS, LFS_HOME
from coding_agents_guest.nestedref import LATEST, NESTED, TO_SIGN

BASE = f"{PRIVATE}/base"
ARCHIVE = f"{PRIVATE}/archive"
ARCHIVING = f"{PRIVATE}/archiving/"
SALVAGE = f"{PRIVATE}/salvage"
SALVAGE_REFS = (f"{SALVAGE}/head", f"{SALVAGE}/worktree")
SALVAGE_HEADS = f"{SALVAGE}/heads/"
GIVEN = f"{PRIVATE}/given"

# The settings of repositories that guests push into.
# receive.unpackLimit=1 keeps what arrives packed, so a pack bomb stays as small on disk as it was on the
# wire; core.bigFileThreshold makes index-pack stream large blobs instead of holding them in memory
# (MAX_ALLOCATION bounds what it does hold).
# fsck: names that git itself refuses to check out are errors here, not warnings.
RECEIVING = """\
[core]
\tbigFileThreshold = 8m
\tlogAllRefUpdates = always
[receive]
\tfsckObjects = true
\tdenyDeletes = true
\tunpackLimit = 1
\tautogc = false
\tadvertisePushOptions = false
\tadvertiseAtomic = true
[receive "fsck"]
\thasDot = error
\thasDotdot = error
\thasDotgit = error
\tfullPathname = error
\temptyName = error
\tnullSha1 = error
[uploadpack]
\tallowTipSHA1InWant = false
\tallowReachableSHA1InWant = false
\tallowAnySHA1InWant = false
\tallowFilter = false
[transfer]
\tadvertiseSID = false
"""

# git takes the size of a commit, tree or delta from the pack's own header and asks for that much memory: three
# megabytes on the wire become three gigabytes of the host's. This variable makes it stop instead.
MAX_ALLOCATION = {"GIT_ALLOC_LIMIT": "512m"}


class Identity(Enum):
    """Who is at the other end of the channel; decided by which container the channel leads to."""

    AGENT = "agent"
    SALVAGE = "salvage"


class Relay(msgspec.Struct, frozen=True):
    """One session's relay. `base` is None when the session started on an unborn branch.

    `to_sign` tells that the agent may push commits that it wants signed.
    """

    git_dir: Path
    branch: Branch
    base: Oid | None
    base_branch: str | None
    env: Mapping[str, str]
    to_sign: bool = False

    @property
    def store(self) -> Store:
        return Store(self.git_dir, Profile.OWN, self.env)


def create_relay(
    git_dir: Path, *, base_store: BaseStore, branch: Branch, base: Oid | None, base_branch: str | None
) -> Relay:
    """Make the relay at `git_dir`; `base` must have been given to `base_store`. Raises GitError.

    It appears whole or not at all; repeating the call on a relay that is there changes nothing.
    """
    relay = open_relay(git_dir, branch=branch, base=base, base_branch=base_branch, env=base_store.env)
    if git_dir.exists():
        return relay
    draft = git_dir.with_name(f"{git_dir.name}.new")
    shutil.rmtree(draft, ignore_errors=True)  # left by an interrupted launch
    init_draft(draft, object_format=base_store.object_format, env=base_store.env, branch=branch.short)
    with (draft / "config").open("a", encoding="utf-8") as config:
        config.write(RECEIVING)
    info = draft / "objects" / "info"
    info.mkdir(exist_ok=True)
    (info / "alternates").write_bytes(os.fsencode(base_store.git_dir / "objects") + b"\n")
    shallow = base_store.git_dir / "shallow"
    if shallow.exists():
        shutil.copyfile(shallow, draft / "shallow")
    if base is not None:
        refs = [relay.branch.ref, *([f"refs/heads/{relay.base_branch}"] if relay.base_branch else []), BASE]
        Store(draft, Profile.OWN, relay.env).update_refs(*(f"create {ref} {base}" for ref in refs))
    appear(draft, git_dir)
    return relay


def open_relay(
    git_dir: Path,
    *,
    branch: Branch,
    base: Oid | None,
    base_branch: str | None,
    env: Mapping[str, str],
    to_sign: bool = False,
) -> Relay:
    """The relay of an earlier launch. A base branch that collides with the session's branch is not shown."""
    if base_branch is not None and _collide(base_branch, branch.short):
        base_branch = None
    return Relay(git_dir, branch, base, base_branch, env, to_sign)


def receive_pack_command(
    relay: Relay,
    identity: Identity,
    *,
    max_input: int,
    rewrite: bool,
    limits: ProcessLimits,
    timeout_s: float,
) -> Command:
    """`git receive-pack` for one push of at most `max_input` bytes; hides every other ref.

    `rewrite` says whether a non-fast-forward is let through (the caller archives the old tip).
    """
    # Salvage sees the session's branch as well, so that it sends what is new and not all of history;
    # that it may not push there is the policy's decision, before git sees the command.
    salvage = (*SALVAGE_REFS, SALVAGE_HEADS.rstrip("/"))  # a pattern stands for all below it, too
    # And what went in of submodules, for the same reason; that is what GIVEN holds, and nobody may push there.
    mine = (relay.branch.ref, NESTED.rstrip("/"), LFS.rstrip("/"), LATEST, GIVEN)
    more = salvage if identity is Identity.SALVAGE else (TO_SIGN,) if relay.to_sign else ()
    visible = (*mine, *more)
    refuse_rewrite = "false" if rewrite else "true"
    settings = (f"receive.maxInputSize={max_input}", f"receive.denyNonFastForwards={refuse_rewrite}")
    return service_command(
        relay.store,
        "receive-pack",
        visible,
        settings=settings,
        env_extra=MAX_ALLOCATION,
        limits=limits,
        timeout_s=timeout_s,
    )


def upload_pack_command(relay: Relay, *, limits: ProcessLimits, timeout_s: float) -> Command:
    """`git upload-pack` for one fetch of the session's branch, of the base branch, of what went in of submodules or of
    LFS_HOME."""
    readable = (
        relay.branch.ref,
        *([f"refs/heads/{relay.base_branch}"] if relay.base_branch else []),
        GIVEN,
        LFS_HOME,
    )
    return service_command(
        relay.store, "upload-pack", readable, settings=(), env_extra={}, limits=limits, timeout_s=timeout_s
    )


def service_command(
    store: Store,
    name: str,
    visible: tuple[str, ...],
    *,
    settings: tuple[str, ...],
    env_extra: Mapping[str, str],
    limits: ProcessLimits,
    timeout_s: float,
) -> Command:
    """`git NAME` on a bare repository of ours for one conversation, which is shown the refs `visible` alone."""
    # The environment has no GIT_PROTOCOL, so the protocol is v0, in which only advertised ids can be had.
    hide = ("refs/", *(f"!{ref}" for ref in visible))
    config = (*settings, *(f"transfer.hideRefs={pattern}" for pattern in hide))
    options = [part for setting in config for part in ("-c", setting)]
    command = git_command(
        (*options, name, os.fspath(store.git_dir)),
        profile=Profile.OWN,
        env=store.env,
        cwd=store.git_dir,
        env_extra=env_extra,
        timeout_s=timeout_s,
    )
    return replace(command, limits=limits)


def _collide(one: str, other: str) -> bool:
    """Whether the two ref names cannot both exist (or would be one, where letter case does not count)."""
    a, b = one.lower(), other.lower()
    return a == b or a.startswith(f"{b}/") or b.startswith(f"{a}/")
