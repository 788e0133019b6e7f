"""The record of one session, `session.json`: who it is, what was made for it, and how far it got.

It is the identity of a session: engine ids and a nonce of the host's own; labels on containers prove nothing.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from coding_agents.model.signing import Mode
from coding_agents.model.spending import Spent

VERSION = 1

State = Literal["starting", "running", "waiting", "stopping", "stopped", "lost", "failed"]
Phase = Literal["starting", "running", "stopping", "stopped", "failed", "lost"]
Activity = Literal["", "working", "waiting"]
Where = Literal["branch", "incoming", "volume", "none"]

_ID = re.compile(r"[0-9a-f]{12}")


class RepoRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The host repository of a session.

    `work_tree` is empty for our own bare repositories, `git_dir` is that of the work tree, `common_dir`
    holds objects and refs; `repo_id` has 12 hex digits, owner ids are those of the files, `url` (of
    origin) is without user information.
    """

    kind: Literal["path", "url", "empty"]
    name: str
    work_tree: str
    git_dir: str
    common_dir: str
    repo_id: str
    owner_uid: int
    owner_gid: int
    object_format: str = "sha1"
    url: str = ""

    @property
    def path(self) -> str:
        """Where a person finds it: the work tree, or our bare repository."""
        return self.work_tree or self.common_dir


class Volumes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names of the session's own volumes."""

    workspace: str = ""
    home: str = ""
    config: str = ""
    door: str = ""


class Saved(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the work is, as the host knows it.

    `relay_tip` is the session branch in the relay, `integrated` the ref it reached in the host
    repository, `verified` that salvage compared it with the volume, `left_out` paths not committed, `nested`
    the refs there of repositories inside the work tree.
    """

    relay_tip: str = ""
    integrated: str = ""
    where: Where = "none"
    verified: bool = False
    left_out: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()
    note: str = ""


class Deadline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An instant at which a session's time is up, in milliseconds: of CLOCK_BOOTTIME in the boot with the id `boot`,
    and of the wall clock."""

    boot: str
    boottime_ms: int
    wall_ms: int


class SessionRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything the host must remember about a session. Times are milliseconds since the epoch.

    `base` is the commit the branch starts from ("" when unborn), `branch_tip` where the branch stood in the repository
    when we last looked or moved it, `branch_next` where we are just moving it to ("" mostly), `mode` how its latest
    start runs the agent (a `prompt` is given to it in mode "command" only), `version` of the program that launched it,
    `committer_name` that of the user with the agent's ("" in old records: the author's), `trailers` the lines at the
    end of its commits, `signing_key` the key that signs them (its public half, or what gpg knows it by; "" where none
    does), `private` the addresses that the user opened in the network guard, `allow_ptrace` whether its programs may
    be debugged, `origin_push` whether its own branch may go to origin unasked, `asked` the protections that the user
    named, `best_effort` those that may be missing, `engine_env` the variables that choose the engine as they were at
    launch, `engine_id` how that engine tells itself from others ("" when it is not known), `started_at` the engine's
    start time of the container whose gate was opened ("" while closed), `deadline` when the time of that start is up,
    `spent` what it has used of its model, `activity` what the agent does as far as its requests to the model tell (""
    when they do not), `enforced` the measured protections, `quota` whether its writable volumes lie in a file system
    of its own, of the size `limits["disk"]`, `packages` the digests of the MCP servers' packages in its image,
    `guest_digest` the SHA-256 of the guest's program in the volume `guest_volume`.
    """

    v: int = VERSION
    id: str
    nonce: str
    name: str
    agent: str
    repo: RepoRef
    branch: str
    base: str = ""
    base_branch: str = ""
    branch_tip: str = ""
    branch_next: str = ""
    network: Literal["allow-all", "squid", "restricted"]
    engine: Literal["docker", "podman"]
    engine_env: tuple[tuple[str, str], ...] = ()
    engine_id: str = ""
    runtime: str = ""
    image_ref: str = ""
    image_id: str = ""
    packages: tuple[str, ...] = ()
    container_id: str = ""
    holder_id: str = ""
    network_name: str = ""
    volumes: Volumes = Volumes()
    guest_volume: str = ""
    guest_digest: str = ""
    mode: Literal["tmux", "command"]
    command: tuple[str, ...] = ()
    prompt: str = ""
    message: str = ""
    push: bool = True
    rm: bool = False
    author_name: str = ""
    author_email: str = ""
    committer_name: str = ""
    committer_email: str = ""
    trailers: tuple[str, ...] = ()
    signing: Mode = "off"
    signing_format: str = ""
    signing_key: str = ""
    private: tuple[str, ...] = ()
    allow_ptrace: bool = False
    origin_push: bool = False
    quota: bool = False
    asked: tuple[str, ...] = ()
    best_effort: tuple[str, ...] = ()
    version: str = ""
    host_uid: int
    created_ms: int
    phase: Phase = "starting"
    started_at: str = ""
    deadline: Deadline | None = None
    exit_status: int | None = None
    saved: Saved = Saved()
    spent: Spent = Spent()
    activity: Activity = ""
    enforced: dict[str, str] = {}
    limits: dict[str, str] = {}

    def __post_init__(self) -> None:
        if not is_session_id(self.id):
            raise ValueError(f"session id {self.id!r} is not 12 hex digits")

    @property
    def people(self) -> tuple[str, str, str, str]:
        """Who its commits are by, and who commits them: name and address of each."""
        return self.author_name, self.author_email, self.committer_name, self.committer_email

    @property
    def container(self) -> str:
        """The name of the agent's container: the session's own name."""
        return self.name

    def evolve(self, **changes: Any) -> SessionRecord:
        """A copy with `changes`. Raises TypeError for a field that does not exist."""
        return msgspec.structs.replace(self, **changes)


class _Versioned(msgspec.Struct):
    v: int = 0


def is_session_id(text: str) -> bool:
    """Whether `text` is 12 lower-case hex digits; only such a text is ever joined to a path."""
    return _ID.fullmatch(text) is not None


def encode_session(record: SessionRecord) -> bytes:
    """The content of `session.json`, readable by people."""
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def decode_session(data: bytes) -> SessionRecord:
    """The record in the bytes of a `session.json`. Raises ValueError with the reason."""
    version = msgspec.json.decode(data, type=_Versioned).v
    if version != VERSION:
        raise ValueError(f"written in format {version}, this version of coding-agents reads format {VERSION}")
    return msgspec.json.decode(data, type=SessionRecord)


def to_public(record: SessionRecord, state: State) -> dict[str, object]:
    """The session object of `list --json` and `launch --json`: a documented contract, exactly these keys."""
    return {
        "session": record.id,
        "name": record.name,
        "container": record.container,
        "engine": record.engine,
        "runtime": record.runtime,
        "agent": record.agent,
        "repo": record.repo.url if record.repo.kind == "url" else record.repo.path,
        "branch": record.branch,
        "network": record.network,
        "image": record.image_ref,
        "state": state,
        "enforced": dict(record.enforced),
    }
