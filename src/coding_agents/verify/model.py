"""The values of a verification: what was found, what it means, and the checks that say so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

Status = Literal["passed", "failed", "unknown"]


class Attempt(msgspec.Struct, frozen=True):
    """One attack that runs inside: a function of `coding_agents.attacks`, and its arguments."""

    module: str
    function: str
    arguments: tuple[Any, ...] = ()


class Found(msgspec.Struct, frozen=True):
    """What came of one attempt, or of a look of the host's: hostile where it is from inside.

    `error` tells why there is no value; `ms` how long it took.
    """

    value: Any = None
    error: str = ""
    ms: int = 0


Evidence = Mapping[str, Found]
"""What was found in one mode, by the name of the attempt or of the host's look."""


class Verdict(msgspec.Struct, frozen=True):
    """What one piece of evidence means, and in one line why."""

    status: Status
    detail: str = ""


Judge = Callable[[Any], Verdict]
"""Judges a value. It may raise anything on one that is not of the expected shape, which is `unknown` then."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One claim: `tried` is the attack, `stopped_by` the wall; `evidence` names what `judge` looks at.

    `group` is the attack class. `modes` are those in which it is made. `full` leaves it to the full run, `baseline`
    tells that it makes sense in a container without walls, too.
    """

    id: str
    group: str
    tried: str
    stopped_by: str
    evidence: str
    judge: Judge
    modes: Sequence[str] = ("restricted", "allow-all")
    full: bool = False
    baseline: bool = True


class Result(msgspec.Struct, frozen=True):
    """A check that was made, as `--json` has it."""

    id: str
    group: str = msgspec.field(name="class")
    mode: str
    status: Status
    tried: str
    stopped_by: str
    detail: str
    duration_ms: int


class Report(msgspec.Struct, frozen=True):
    """All results. `baseline` has those of each arm by its name; None when it was not asked for."""

    engine: str
    version: str
    results: tuple[Result, ...]
    baseline: Mapping[str, tuple[Result, ...]] | None = None

    @property
    def breaches(self) -> tuple[Result, ...]:
        return tuple(one for one in self.results if one.status == "failed")

    @property
    def score(self) -> int:
        return score(self.results)


def score(results: Sequence[Result]) -> int:
    """How many of 100 checks passed, rounded down: 100 means all of them. What is unknown has not passed."""
    passed = sum(one.status == "passed" for one in results)
    return passed * 100 // len(results) if results else 0


def judge(check: Check, mode: str, evidence: Evidence) -> Result:
    """The result of a check in one mode. Evidence that is missing or makes no sense is `unknown`."""
    found = evidence.get(check.evidence)
    if found is None:
        verdict = Verdict("unknown", "it was not tried")
    elif found.error:
        verdict = Verdict("unknown", found.error)
    else:
        try:
            verdict = check.judge(found.value)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            verdict = Verdict("unknown", f"the answer makes no sense: {type(error).__name__}: {error}")
    return Result(
        id=check.id,
        group=check.group,
        mode=mode,
        status=verdict.status,
        tried=check.tried,
        stopped_by=check.stopped_by,
        detail=verdict.detail[:500],
        duration_ms=found.ms if found is not None else 0,
    )
