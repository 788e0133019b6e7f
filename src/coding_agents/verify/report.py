"""A verification as text for people and as the object of `--json`. What it says of a container is hostile still."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from coding_agents.verify.model import Report, Result, score

GROUPS = {
    "egress": "Ways out by the network",
    "container-and-kernel": "Container and kernel",
    "same-uid": "Other processes of the session",
    "return-path": "The way home of the work",
    "terminal-and-logs": "Terminal and logs",
    "configuration-as-code": "Configuration as code",
    "model-as-a-network": "The model as a network",
    "brokers": "What the host serves inside",
    "custom-images": "Custom images",
    "audit": "Audit log",
    "silent-weakening": "Silent weakening",
}
"""The attack classes, in the order in which they are told, and what they are called."""

_MARKS = {"passed": "ok", "failed": "FAILED", "unknown": "unknown"}


def to_json(report: Report) -> dict[str, object]:
    """The object of `--json`: a documented contract. `baseline` is None when it was not asked for."""
    arms = report.baseline
    return {
        "score": report.score,
        "checks": [msgspec.to_builtins(one) for one in report.results],
        "baseline": None
        if arms is None
        else {
            name: {"score": score(found), "checks": [msgspec.to_builtins(one) for one in found]}
            for name, found in arms.items()
        },
    }


def to_lines(report: Report, *, every: bool = False) -> Iterator[str]:
    """Lines for people: what failed first, then what is unknown, then each class in one line; `every` lists all."""
    for status in ("failed", "unknown"):
        for one in report.results:
            if one.status == status:
                yield f"{_MARKS[status]:8} {one.id} ({one.mode}): {one.tried}"
                yield f"{'':8} {one.detail or 'no detail'}; it is to be stopped by: {one.stopped_by}"
    for group, title in GROUPS.items():
        found: Sequence[Result] = [one for one in report.results if one.group == group]
        if found:
            yield f"{title}: {_counts(found)}"
        for one in found if every else ():
            yield f"  {_MARKS[one.status]:8} {one.id} ({one.mode}): {one.tried}; stopped by: {one.stopped_by}"
    yield f"{report.engine} {report.version}: {_counts(report.results)}, score {report.score}"
    for name, found in (report.baseline or {}).items():
        same = comparable(report, found)
        yield f"for contrast, {name}: {_counts(found)}; of the same checks here: {_counts(same)}"


def comparable(report: Report, arm: Sequence[Result]) -> list[Result]:
    """The results of the sessions for the checks that an arm of the baseline made, in the mode with a network."""
    wanted = {one.id for one in arm}
    return [one for one in report.results if one.id in wanted and one.mode == "allow-all"]


def _counts(results: Sequence[Result]) -> str:
    passed, failed, unknown = (sum(one.status == each for one in results) for each in _MARKS)
    parts = [f"{passed} of {len(results)} stopped"]
    parts += [f"{failed} not stopped"] if failed else []
    parts += [f"{unknown} unknown"] if unknown else []
    return ", ".join(parts)
