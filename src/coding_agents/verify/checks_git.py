"""Checks of what the host does for a session's git: credentials and signatures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from coding_agents.verify.judges import PASSED, at, failed, holds, nothing
from coding_agents.verify.model import Check, Judge, Verdict

BROKERS: Final = "brokers"

_NEAR: Final = ("a repository beside it", "a longer name", "above it", "the whole host")
_FAR: Final = ("another host", "a host below it", "an account in the host", "another port", "in the clear")
_DISGUISED: Final = (
    "by dots", "by escaped dots", "a line break in a value", "a carriage return", "an escaped line break", "a NUL",
    "host told twice", "as an address", "another spelling",
)  # fmt: skip
CREDENTIALS: Final[tuple[tuple[str, tuple[str, ...], str], ...]] = (
    ("credentials.stored", ("the place itself",), "be given a password that the user's git has stored"),
    ("credentials.sibling", _NEAR, "be given one for a repository beside that, or for all of its host"),
    ("credentials.other-host", _FAR, "be given one for another host, port or account"),
    (
        "credentials.disguised",
        _DISGUISED,
        "hide another place in a request that two programs read differently",
    ),
)
SIGNATURES: Final[tuple[tuple[str, tuple[str, ...], str], ...]] = (
    ("signing.tag", ("a tag",), "have a tag signed"),
    ("signing.other", ("a push certificate", "a letter", "nothing", "no message", "larger than any"),
     "have a push certificate, a letter or nothing at all signed"),
    ("signing.another", ("another's committer", "the user as committer", "another's author", "a commit of the user's"),
     "have a commit signed that names somebody else, or hides the agent"),
    ("signing.dates", ("of yesterday", "of tomorrow"), "have a commit signed that is dated outside of the session"),
    ("signing.unknown", ("an unknown tree", "an unknown parent", "a commit as its tree"),
     "have a commit signed whose content the host has never seen"),
    ("signing.disguised", ("a signature inside", "a merged tag", "another header", "a NUL", "two people in a line",
                           "a folded header", "a line break before it"),
     "hide something else in a commit that is to be signed"),
)  # fmt: skip
_CREDENTIAL: Final = "the host's credential broker reads each request strictly, and knows what is released"
_SIGN: Final = "the host's signing broker parses each object, and signs commits of this session alone"


def git_checks() -> Iterator[Check]:
    """All of them."""
    for id, names, tried in CREDENTIALS:
        yield _check(id, BROKERS, "credentials", tried, _CREDENTIAL, _untold(names))
    yield _check("credentials.by-git", BROKERS, "credential of git", "have git itself told the user's token",
                 _CREDENTIAL, nothing("told"))  # fmt: skip
    for id, names, tried in SIGNATURES:
        yield _check(id, BROKERS, "signatures", tried, _SIGN, _unsigned(names))
    yield _check("signing.key", BROKERS, "signing key", "find the key that signs the session's commits",
                 "it is the host's, and stays there", nothing("found"), modes=("restricted",))  # fmt: skip
    yield _check("signing.works", BROKERS, "signatures", "have an honest commit of the session signed",
                 "nothing: this must work", at("honest", holds(_is_signature, "the answer was")))  # fmt: skip


def _check(
    id: str, group: str, evidence: str, tried: str, stopped_by: str, judge: Judge, **more: Any
) -> Check:
    return Check(id=id, group=group, evidence=evidence, tried=tried, stopped_by=stopped_by, judge=judge,
                 baseline=False, **more)  # fmt: skip


def _untold(names: tuple[str, ...]) -> Judge:
    """None of the named answers holds a password: nothing is released to this session."""

    def judge(answers: Any) -> Verdict:
        told = [name for name in names if "password" in answers[name]]
        return failed(f"answered: {', '.join(told)}") if told else PASSED

    return judge


def _unsigned(names: tuple[str, ...]) -> Judge:
    def judge(answers: Any) -> Verdict:
        signed = [name for name in names if answers[name] != ""]
        return failed(f"signed: {', '.join(signed)}") if signed else PASSED

    return judge


def _is_signature(answer: Any) -> bool:
    return any(f"-----BEGIN {kind} SIGNATURE-----" in answer for kind in ("SSH", "PGP"))
