"""What a launch says in at most 8 lines: what is enforced, as measured, what is absent, and what was not copied.

One more tells what of the user's own credentials the agent has, where they gave it any.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from coding_agents.model.limits import NO_RATE, NO_TIME, duration_text, rate_text
from coding_agents.model.release import Given
from coding_agents.model.session import SessionRecord
from coding_agents.terminal.escape import escape

if TYPE_CHECKING:
    from coding_agents.workspace.copyset import CopyPlan

_NAMED = 3
_LONGEST_NAME = 48
_LONGEST_REASON = 100
_NO_REASONS: Mapping[str, str] = MappingProxyType({})
_HOLD = ("user", "capabilities", "no-new-privileges", "seccomp", "read-only-root", "mounts", "host-paths",
         "apparmor")  # fmt: skip
_GVISOR = {
    "gvisor": "; system calls: gVisor's own kernel",
    "old-gvisor": "; system calls: gVisor's own kernel, an old one in which `ls` fails",
}
_NOTHING = Given()
_LIMITS = ("cpus", "memory", "swap", "pids", "disk", "disk-read", "disk-write")
_LACKING = ("absent", "off", "unknown")


def banner(
    record: SessionRecord,
    copy: CopyPlan | None = None,
    *,
    model: str = "",
    registries: Iterable[str] = (),
    given: Given = _NOTHING,
) -> Iterator[str]:
    """The lines for a session that has just started.

    `copy` is what went into it at its launch, `model` who its requests to the model are from, `registries`
    whose package indexes the host reads for it, `given` what it has of the user's own credentials.
    """
    enforced = record.enforced
    opened = f"; open: {_few(record.private)}" if record.private and record.network == "allow-all" else ""
    runtime = f", {record.runtime}" if record.runtime else ""
    unasked = "; goes to origin unasked" if record.origin_push else ""
    told = f"{_signed(record)}{unasked}"
    yield f"session  {record.name} on branch {record.branch} ({record.engine}{runtime}){told}"
    ptrace = "; ptrace allowed" if record.allow_ptrace else ""
    armor = enforced.get("apparmor", "")
    instead = f"; apparmor: {escape(armor)} profile" if armor.startswith("engine's") else ""
    calls = _GVISOR.get(enforced.get("seccomp", ""), "")
    yield f"enforced {', '.join(name for name in _HOLD if enforced.get(name) == 'on')}{instead}{calls}{ptrace}"
    asks = f"; model: {escape(model)}" if model else ""
    reads = f"; registries: {', '.join(registries)}" if registries else ""
    yield f"network  {record.network}: {enforced.get('network', 'unknown')}{opened}{asks}{reads}"
    yield f"limits   {', '.join((*_measured(enforced), *_watched(record.limits)))}"
    yield f"absent   {_lacking(enforced.items()) or 'nothing'}"
    if given:
        yield given_line(given)
    if copy is None:
        return
    if copy.left_out:
        yield f"left out {len(copy.left_out)} that look like secrets: {_few(copy.left_out)}"
    odd = (
        ("copied although tracked and like a secret", copy.tracked_secrets),
        ("links that leave the tree", copy.flagged_symlinks),
        ("nested repositories, left empty", _with_reasons_first(copy)),
    )
    if any(paths for _, paths in odd):
        said = (f"{len(paths)} {what}: {_few(paths, copy.reasons)}" for what, paths in odd if paths)
        yield "note     " + "; ".join(said)
    if record.repo.kind != "path":
        url = record.repo.common_dir
        yield f"work     comes back to {url}; fetch it with: git fetch {url} {record.branch}"


def given_line(given: Given) -> str:
    """What of the user's own credentials the agent has, and what it can do with it."""
    return f"given    {'; '.join(_given(given))}"


def _given(given: Given) -> Iterator[str]:
    away = ", which the agent can read and take away"
    if given.release:
        yield f"your credential for {_few(given.release)}{away}"
    if given.files:
        yield f"your {', '.join(given.files)}{away}"
    if given.ssh_agent:
        hosts = tuple(dict.fromkeys(one.partition(" ")[2] for one in given.ssh_agent))
        yield f"logins with your ssh-agent at {_few(hosts)}, as often as it likes"


def _signed(record: SessionRecord) -> str:
    """Whose signature the agent's commits get while it works."""
    whose = {"user": f"your {record.signing_format} key", "session": "a key of its own"}.get(record.signing)
    return f"; commits signed with {whose}" if whose else ""


def _measured(enforced: Mapping[str, str]) -> Iterator[str]:
    return (f"{name} {enforced[name]}" for name in _LIMITS if name in enforced and enforced[name] != "absent")


def _watched(limits: Mapping[str, str]) -> Iterator[str]:
    """The limits that were asked for beside those that every session has."""
    time_s, rate = int(limits.get("time_s", NO_TIME)), int(limits.get("bandwidth", NO_RATE))
    if rate < NO_RATE:
        yield f"bandwidth {rate_text(rate)}"
    if time_s < NO_TIME:
        yield f"time {duration_text(time_s)}"


def _lacking(enforced: Iterable[tuple[str, str]]) -> str:
    """What does not hold, by the word that says why; `absent`, the usual one, goes without saying."""
    by_word: dict[str, list[str]] = {word: [] for word in _LACKING}
    for name, value in enforced:
        if value in by_word:
            by_word[value].append(name)
    said = [(word, ", ".join(names)) for word, names in by_word.items() if names]
    return "; ".join(names if word == "absent" else f"{word}: {names}" for word, names in said)


def _with_reasons_first(copy: CopyPlan) -> tuple[str, ...]:
    """Those that are empty inside, first the ones that a person may not expect."""
    return tuple(sorted(copy.nested, key=lambda path: path not in copy.reasons))


def _few(names: tuple[str, ...], reasons: Mapping[str, str] = _NO_REASONS) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(_short(name) + _why(reasons.get(name, "")) for name in names[:_NAMED]) + more


def _why(reason: str) -> str:
    return f" ({escape(reason)[:_LONGEST_REASON]})" if reason else ""


def _short(name: str) -> str:
    """A name from a repository: visible, and no longer than helps. The end of a path tells most."""
    shown = escape(name)
    return shown if len(shown) <= _LONGEST_NAME else "…" + shown[1 - _LONGEST_NAME :]
