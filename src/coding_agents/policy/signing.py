"""Which commits are signed while a session runs. Pure; the object's own form is `model.commit`'s."""

from __future__ import annotations

import msgspec

from coding_agents.model.commit import Commit, CommitError, Person, clean_person, parse_commit
from coding_agents.policy.matrix import Operation

SLACK_S = 300
"""Seconds by which a date may lie outside of the session."""


class SigningFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a session's commits must say. Times are seconds since the epoch; people are (name, address).

    `committer` names the agent, `authors` are those that a commit may be by, `since` is when the session began.
    """

    object_format: str
    authors: tuple[tuple[str, str], ...]
    committer: tuple[str, str]
    since: int
    now: int


class Judged(msgspec.Struct, frozen=True):
    """`commit` is what may be signed; None when it may not, and then `reason` says why.

    `operation` is what the policy is asked about.
    """

    operation: Operation
    commit: Commit | None = None
    reason: str = ""


def judge_payload(payload: bytes, facts: SigningFacts) -> Judged:
    """What the bytes are that a guest wants signed. Never raises."""
    if payload.startswith(b"object "):
        return Judged(Operation.SIGN_TAG, reason="it is a tag")
    if payload.startswith(b"certificate "):
        return Judged(Operation.SIGN_OTHER, reason="it is a push certificate")
    try:
        commit = parse_commit(payload, object_format=facts.object_format)
    except CommitError as error:
        return Judged(Operation.SIGN_OTHER, reason=str(error))
    reason = _why_not(commit, facts)
    if reason:
        return Judged(Operation.SIGN_FOREIGN, reason=reason)
    return Judged(Operation.SIGN_COMMIT, commit)


def _why_not(commit: Commit, facts: SigningFacts) -> str:
    """Why a commit is not this session's own, "" when it is."""
    if not _is(commit.committer, facts.committer):
        name, email = map(clean_person, facts.committer)
        return f"its committer is not {name} <{email}>"
    if not any(_is(commit.author, one) for one in facts.authors):
        return "its author is neither the user nor the agent of this session"
    for role, person in (("author", commit.author), ("committer", commit.committer)):
        if not facts.since - SLACK_S <= person.when <= facts.now + SLACK_S:
            return f"its {role}'s date is not within the session (git commit --amend --reset-author sets it anew)"
    return ""


def _is(person: Person, who: tuple[str, str]) -> bool:
    name, email = (clean_person(text).encode("utf-8", "surrogateescape") for text in who)
    return (person.name, person.email) == (name, email)
