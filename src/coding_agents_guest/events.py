"""The messages of the `events` service: one JSON object a line between the guest's entry point and the host.

A closed set of types with closed fields, checked both when a line is written and when it is read: an
unknown type, a missing or additional key, a value of another type or beyond its limit is a `WireError`.
Pure; shared by host and guest. Text may hold any Unicode scalar value, terminal control characters too:
whoever shows it to a person must make it safe first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Union

from coding_agents_guest.records import asdict, dataclass, replace
from coding_agents_guest.wire import WireError, dump_json, load_json

MAX_LINE = 64 * 1024
MAX_TEXT = 2000
MAX_PATH = 500
MAX_ITEMS = 100

_OID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}|")
_SESSION = re.compile(r"[0-9a-f]{12}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# Only what would change the meaning of our own argv: git itself judges the rest of a name.
_BRANCH = re.compile(r"(?!-)[^\x00-\x20\x7f~^:?*\[\\]{1,255}")


@dataclass(frozen=True)
class Ready:
    """guest → host: the entry point waits at the gate."""


@dataclass(frozen=True)
class Step:
    """guest → host: one step of the start sequence is done; `ms` is its duration."""

    name: str
    ms: int


@dataclass(frozen=True)
class Running:
    """guest → host: the agent's command or tmux session has started."""


@dataclass(frozen=True)
class Failed:
    """guest → host: the start sequence stopped at `step`."""

    step: str
    message: str


@dataclass(frozen=True)
class Saved:
    """guest → host: result of a save. `head` is the commit that now holds the work, "" if there is none.

    `committed`: an automatic commit was made. `left_out`: paths not saved on purpose (at most 100).
    """

    head: str
    pushed: bool
    committed: bool
    left_out: tuple[str, ...] = ()
    message: str = ""


@dataclass(frozen=True)
class Autosaved:
    """guest → host: result of an automatic save. `commit` holds the work, "" while there is none.

    `pushed`: the relay has all of it; else `message` says what is missing.
    """

    commit: str
    pushed: bool
    message: str = ""


@dataclass(frozen=True)
class Salvaged:
    """guest → host: a salvage put everything that is not in `left_out` into the relay.

    `head` is the volume's HEAD ("" while unborn), `worktree` the commit of its files ("" if they equal `head`).
    `kept` says what is known to be in the volume alone and must not go with it, "" for nothing.
    """

    head: str
    worktree: str
    clean: bool
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    kept: str = ""


@dataclass(frozen=True)
class Exit:
    """guest → host: the agent has ended with `status` (128+n on signal n); the container stops next."""

    status: int


@dataclass(frozen=True)
class Identity:
    """Who the agent's commits are by, and who commits them ("": the same)."""

    name: str
    email: str
    committer_name: str = ""
    committer_email: str = ""


@dataclass(frozen=True)
class GuestConfig:
    """All that varies between starts of a guest. No secret, no policy.

    `branch` is the full short name ("demo/session-1"), `base` a commit id or "" when unborn, `mode` "tmux"
    or "command", `message` that of the automatic commit, `origin` a URL or "", `deny` glob patterns of files
    that are never saved, `dotnet_channel` "" for none. `launch_tree` is the tree of the user's uncommitted
    work at launch, "" when there was none.
    """

    session: str
    branch: str
    identity: Identity
    base: str = ""
    launch_tree: str = ""
    first_start: bool = True
    mode: str = "command"
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    message: str = ""
    push: bool = True
    origin: str = ""
    deny: tuple[str, ...] = ()
    dotnet_channel: str = ""
    dotnet_index: str = ""


@dataclass(frozen=True)
class Go:
    """host → guest: the gate is open; start the agent with `config`."""

    config: GuestConfig


@dataclass(frozen=True)
class Autosave:
    """host → guest: save what there is, moving neither index nor HEAD, and answer with Autosaved.

    `branch` asks for the agent's commits on the session's branch as well.
    """

    branch: bool = False


Report = Union[Ready, Step, Running, Failed, Saved, Autosaved, Salvaged, Exit]
Order = Union[Go, Autosave]
Event = Union[Report, Order]


def encode_event(event: Event) -> bytes:
    """The line of `event`, with its line end. Raises WireError for what `parse_event` would refuse.

    Reports are shortened rather than refused (long text, many paths, undecodable bytes of file names), so
    that a guest can always say what happened.
    """
    if not isinstance(event, (Go, Autosave)):
        event = _shortened(event)
    line = dump_json({"type": _TYPE_OF[type(event)], **_plain(event)})
    parse_event(line)
    return line + b"\n"


def parse_event(line: bytes) -> Event:
    """The event that `line` holds, with or without its line end. Raises WireError."""
    if len(line) > MAX_LINE:
        raise WireError("event line too long")
    values = load_json(line)
    name = values.pop("type", None)
    if not isinstance(name, str) or name not in _EVENTS:
        raise WireError("unknown event type")
    kind, schema = _EVENTS[name]
    return kind(**_checked(schema, values, name))  # type: ignore[no-any-return]  # _EVENTS maps to events only


_Check = Callable[[Any], Any]


def _checked(schema: Mapping[str, _Check], values: Any, name: str) -> dict[str, Any]:
    """`values` with each field parsed; exactly the fields of `schema` must be there."""
    if not isinstance(values, dict) or set(values) != set(schema):
        raise WireError(f"{name} with other fields")
    checked = {}
    for key, check in schema.items():
        try:
            checked[key] = check(values[key])
        except ValueError as error:
            raise WireError(f"{name}.{key}: {error}") from None
    return checked


def _text(limit: int, pattern: re.Pattern[str] | None = None) -> _Check:
    def check(value: Any) -> str:
        if not isinstance(value, str) or len(value) > limit or "\0" in value:
            raise ValueError(f"not a text of at most {limit} characters")
        if pattern is not None and not pattern.fullmatch(value):
            raise ValueError("malformed")
        return value

    return check


def _texts(count: int, limit: int) -> _Check:
    item = _text(limit)

    def check(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or len(value) > count:
            raise ValueError(f"not a list of at most {count} texts")
        return tuple(item(one) for one in value)

    return check


def _count(highest: int) -> _Check:
    def check(value: Any) -> int:
        if type(value) is not int or not 0 <= value <= highest:
            raise ValueError(f"not a number from 0 to {highest}")
        return value

    return check


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("not true or false")
    return value


def _mode(value: Any) -> str:
    if value not in ("tmux", "command"):
        raise ValueError("neither tmux nor command")
    return str(value)


def _variables(value: Any) -> dict[str, str]:
    item = _text(MAX_LINE)
    if not isinstance(value, dict) or not all(_VARIABLE.fullmatch(name) for name in value):
        raise ValueError("not a mapping of variable names")
    return {name: item(one) for name, one in value.items()}


def _config(value: Any) -> GuestConfig:
    return GuestConfig(**_checked(_CONFIG, value, "config"))


def _identity(value: Any) -> Identity:
    # A guest's program is as old as its session: one that knows no committer is told of none.
    names = ("name", "email", "committer_name", "committer_email")
    known = names if isinstance(value, dict) and len(value) > 2 else names[:2]
    return Identity(**_checked({name: _text(MAX_PATH) for name in known}, value, "identity"))


_CONFIG: dict[str, _Check] = {
    "session": _text(12, _SESSION),
    "branch": _text(255, _BRANCH),
    "identity": _identity,
    "base": _text(64, _OID),
    "launch_tree": _text(64, _OID),
    "first_start": _flag,
    "mode": _mode,
    "command": _texts(1000, MAX_LINE),
    "env": _variables,
    "message": _text(MAX_TEXT),
    "push": _flag,
    "origin": _text(MAX_TEXT),
    "deny": _texts(1000, MAX_PATH),
    "dotnet_channel": _text(64),
    "dotnet_index": _text(MAX_TEXT),
}

_EVENTS: dict[str, tuple[Any, dict[str, _Check]]] = {
    "ready": (Ready, {}),
    "step": (Step, {"name": _text(64), "ms": _count(2**53)}),
    "running": (Running, {}),
    "failed": (Failed, {"step": _text(64), "message": _text(MAX_TEXT)}),
    "saved": (
        Saved,
        {
            "head": _text(64, _OID),
            "pushed": _flag,
            "committed": _flag,
            "left_out": _texts(MAX_ITEMS, MAX_PATH),
            "message": _text(MAX_TEXT),
        },
    ),
    "autosaved": (
        Autosaved,
        {"commit": _text(64, _OID), "pushed": _flag, "message": _text(MAX_TEXT)},
    ),
    "salvaged": (
        Salvaged,
        {
            "head": _text(64, _OID),
            "worktree": _text(64, _OID),
            "clean": _flag,
            "left_out": _texts(MAX_ITEMS, MAX_PATH),
            "notes": _texts(MAX_ITEMS, MAX_PATH),
            "kept": _text(MAX_TEXT),
        },
    ),
    "exit": (Exit, {"status": _count(255)}),
    "go": (Go, {"config": _config}),
    "autosave": (Autosave, {"branch": _flag}),
}
_TYPE_OF: dict[type, str] = {kind: name for name, (kind, _) in _EVENTS.items()}


def _plain(event: Event) -> dict[str, Any]:
    values = asdict(event)
    if isinstance(event, Go) and not event.config.identity.committer_name:
        for name in ("committer_name", "committer_email"):
            del values["config"]["identity"][name]
    return values


def _shortened(report: Report) -> Report:
    """`report` with its texts and lists within their limits, however long and broken they are."""
    if isinstance(report, (Failed, Autosaved)):
        return replace(report, message=_clean(report.message, MAX_TEXT))
    if isinstance(report, Saved):
        return replace(report, left_out=_clean_all(report.left_out), message=_clean(report.message, MAX_TEXT))
    if isinstance(report, Salvaged):
        return replace(
            report,
            left_out=_clean_all(report.left_out),
            notes=_clean_all(report.notes),
            kept=_clean(report.kept, MAX_TEXT),
        )
    return report


def _clean_all(texts: tuple[str, ...]) -> tuple[str, ...]:
    """As many of `texts` as are sure to fit a third of a line."""
    kept: list[str] = []
    room = MAX_LINE // 3
    for text in texts[:MAX_ITEMS]:
        clean = _clean(text, MAX_PATH)
        room -= len(dump_json(clean)) + 1
        if room < 0:
            break
        kept.append(clean)
    return tuple(kept)


def _clean(text: str, limit: int) -> str:
    # File names are bytes: os.fsdecode gives lone surrogates for those that are not UTF-8.
    return text.replace("\0", "").encode("utf-8", "backslashreplace").decode("utf-8")[:limit]
