"""How much of the host one session's relay may take, how full it is, and how a refusal tells it (no IO)."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

import msgspec

from coding_agents.gitsync.pack_scan import PackTooLargeError
from coding_agents.proc.limits import ProcessLimits

_MIB = 1 << 20
_GIB = 1 << 30
LEAST_FILE = 16 * _MIB
"""Of one file of a git process: never so little that refs and their logs could not be written."""
_THIN_FROM = 0.8

_PRIVATE = "refs/coding-agents/"
_AGENTS_OWN = tuple(f"{_PRIVATE}{kind}/" for kind in ("archive", "archiving", "autosave", "nested", "lfs"))
_SALVAGED = f"{_PRIVATE}salvage/"


class RelayLimits(msgspec.Struct, frozen=True):
    """Bounds on what a guest can make the host spend; bytes, seconds and numbers.

    Of the whole relay: `disk_bytes` on disk, `unpacked_bytes` of all objects as they are unpacked, `refs` of old
    tips, automatic saves, nested repositories and large files; what salvage found is counted apart, against the same
    number, so that no agent can use up the place of its own rescue. Of one push: `push_bytes` on the wire,
    `object_bytes` of one object unpacked, `objects` in its pack. Pushes are carried out one at a time (an archive's
    number is chosen so); one that sends nothing for `idle_s` in the middle of its pack makes place for the next.

    Of conversations `conversations` are served at the same time; `burst` may follow each other at once, then one
    begins every `every_s`, and one that would wait longer than `patience_s` is refused. An agent that pushes each
    commit does not notice; one that does nothing else costs the host one git process and two records a second.

    Of each process of git: `cpu_s` and `memory_bytes` (of address space), `open_files`; `wall_s` bounds the
    conversation.
    """

    push_bytes: int = 512 * _MIB
    disk_bytes: int = 2 * _GIB
    unpacked_bytes: int = 20 * _GIB
    object_bytes: int = 100 * _MIB
    objects: int = 2_000_000
    refs: int = 1000
    conversations: int = 16
    burst: int = 120
    every_s: float = 1.0
    patience_s: float = 10.0
    request_s: float = 30.0
    idle_s: float = 60.0
    wall_s: float = 900.0
    cpu_s: int = 300
    memory_bytes: int = 4 * _GIB
    open_files: int = 1024

    def of_git(self, file_bytes: int) -> ProcessLimits:
        """The limits of one process of git that may write files of `file_bytes`."""
        return ProcessLimits(self.cpu_s, self.memory_bytes, file_bytes, self.open_files)


DEFAULT_LIMITS = RelayLimits()


class Usage(msgspec.Struct, frozen=True):
    """What a relay holds: bytes on disk, bytes of its objects unpacked, and its refs by full name."""

    disk_bytes: int
    unpacked_bytes: int
    refs: Collection[str] = ()

    @property
    def kept(self) -> int:
        """Refs that agents cause to be kept: old tips, automatic saves, nested repositories, large files."""
        return sum(ref.startswith(_AGENTS_OWN) for ref in self.refs)

    @property
    def salvaged(self) -> int:
        """Refs that salvage wrote."""
        return sum(ref.startswith(_SALVAGED) for ref in self.refs)


class Pressure(Enum):
    """How near a relay is to its budgets."""

    NONE = "plenty of room"
    THIN = "four fifths of a budget are used: automatic saves thin out"
    FULL = "a budget is used up: pushes are refused"


def pressure(usage: Usage, limits: RelayLimits) -> Pressure:
    """The pressure of the fullest budget."""
    used = max(
        usage.disk_bytes / limits.disk_bytes,
        usage.unpacked_bytes / limits.unpacked_bytes,
        usage.kept / limits.refs,
    )
    if used >= 1:
        return Pressure.FULL
    return Pressure.THIN if used >= _THIN_FROM else Pressure.NONE


def used_up(usage: Usage, limits: RelayLimits, *, wanted: Collection[str], salvage: bool) -> str:
    """Why a push to the refs `wanted` is refused before its pack is looked at; "" when there is room."""
    if usage.disk_bytes >= limits.disk_bytes:
        what = "the session's space on the host is used up"
        return _full(what, "relay.disk", usage.disk_bytes, limits.disk_bytes)
    if usage.unpacked_bytes >= limits.unpacked_bytes:
        what = "the session's objects on the host, unpacked, use up their space"
        return _full(what, "relay.unpacked", usage.unpacked_bytes, limits.unpacked_bytes)
    counted = (_SALVAGED,) if salvage else _AGENTS_OWN
    new = sum(ref.startswith(counted) and ref not in usage.refs for ref in wanted)
    kept = usage.salvaged if salvage else usage.kept
    # An agent's push may rewrite its branch, whose old tip is one more.
    if kept + max(new, 0 if salvage else 1) > limits.refs:
        what = f"the session keeps {kept} old tips and saves on the host, relay.refs allows {limits.refs}"
        return f"{what}; {_raise('relay.refs', str(2 * limits.refs))}"
    return ""


def too_large(error: PackTooLargeError, usage: Usage, limits: RelayLimits) -> str:
    """Why a push is refused whose pack exceeds a bound."""
    if error.what == "object":
        return _over("this push has an object too large", "relay.object", error.size, limits.object_bytes)
    if error.what == "unpacked":
        what = "with this push the session's objects on the host, unpacked, exceed their space"
        return _full(what, "relay.unpacked", usage.unpacked_bytes + error.size, limits.unpacked_bytes)
    return f"a push of {error.size} objects is refused, {limits.objects} are allowed; push in smaller steps"


def too_long(received: int, usage: Usage, limits: RelayLimits) -> str:
    """Why a push is refused of which `received` bytes have come; "" when they are within the bounds."""
    if received > limits.push_bytes:
        return _over("this push is too large", "relay.push", received, limits.push_bytes)
    if usage.disk_bytes + received > limits.disk_bytes:
        what = "with this push the session's space on the host is used up"
        return _full(what, "relay.disk", usage.disk_bytes + received, limits.disk_bytes)
    return ""


def _full(what: str, key: str, size: int, limit: int) -> str:
    """What has a total is raised to twice of it, so that the next push fits, too."""
    return f"{what}: {_mib(size)}, {key} allows {_mib(limit)}; {_raise(key, _setting(max(size, 2 * limit)))}"


def _over(what: str, key: str, size: int, limit: int) -> str:
    return f"{what}: {_mib(size)}, {key} allows {_mib(limit)}; {_raise(key, _setting(size))}"


def _raise(key: str, value: str) -> str:
    return (
        f"the work stays here. To allow more, on the host: `coding-agents config set {key} {value}`, "
        "then stop and start the session"
    )


def _setting(size: int) -> str:
    return f"{-(-size // _MIB)}m"


def _mib(size: int) -> str:
    return f"{size / _MIB:,.1f} MiB"
