"""Checks of the way to origin: what is pushed there and fetched from there for a session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from coding_agents.verify.judges import equal, failed, nothing
from coding_agents.verify.model import Check, Judge, Verdict

RETURN: Final = "return-path"
PUSHES: Final = (
    ("unapproved", "push the session's own branch to origin, which nobody has approved"),
    ("protected", "push to a protected branch of origin"),
    ("release", "push to a branch of releases of origin"),
    ("tag", "push a tag to origin"),
    ("deletion", "delete a branch of origin"),
    ("several", "push several branches to origin at once"),
    ("force", "put another history in the place of a branch of origin"),
    ("option", "push to origin with an option for the other side"),
    ("elsewhere", "push by the same way to an address that is not origin"),
)
FETCHES: Final = (
    ("request", "fetch from origin what a merge request of somebody else holds"),
    ("hidden", "fetch from origin a ref that is neither a branch nor a tag"),
    ("id", "fetch from origin an object by its id"),
)


_APPROVAL: Final = "the host pushes what a person has approved, and nothing else"
_FETCH: Final = "the host fetches branches and tags of origin, and serves those"


def origin_checks() -> Iterator[Check]:
    """All of them."""
    for name, tried in PUSHES:
        yield _check(f"push-{name}", f"origin push {name}", tried, _APPROVAL, _not_taken)
    yield _check("nothing-passed", "host origin", "get any of these pushes past the host", _APPROVAL,
                 nothing("changed"))  # fmt: skip
    for name, tried in FETCHES:
        yield _check(f"fetch-{name}", f"origin fetch {name}", tried, _FETCH, _not_taken)
    yield _check("fetch-works", "origin fetch works", "fetch a branch of origin without a network",
                 "nothing: this must work", equal("", "git said"))  # fmt: skip


def _check(name: str, evidence: str, tried: str, stopped_by: str, judge: Judge) -> Check:
    return Check(id=f"origin.{name}", group=RETURN, evidence=evidence, tried=tried, stopped_by=stopped_by,
                 judge=judge, modes=("restricted",), baseline=False)  # fmt: skip


def _not_taken(answer: Any) -> Verdict:
    """What git said when it was refused, the reason of it first of all; an empty text when it was taken."""
    if not isinstance(answer, str):
        raise TypeError(type(answer).__name__)
    lines = [line.strip() for line in answer.splitlines() if line.strip()] or [""]
    why = next((line for line in lines if "rejected]" in line), lines[-1])
    return Verdict("passed", why[-200:]) if answer else failed("it was taken")
