"""What answers mean: makers of judges.

A hostile container could claim refusals; here the attacks are ours, and nobody else runs in it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from coding_agents.verify.model import Judge, Verdict

DENIED = frozenset({"EPERM", "EACCES", "EROFS", "ENOSYS", "EAFNOSUPPORT"})
"""How the kernel says no. Not EINVAL or EFAULT: then the call was allowed, and only badly worded."""

SOON_S = 1.0
"""A guard refuses: who has waited longer was left without an answer."""

PASSED = Verdict("passed")
_SHOWN = 6


def failed(detail: str) -> Verdict:
    return Verdict("failed", detail)


def refused(*names: str, by: Collection[str] = DENIED) -> Judge:
    """Each of the named attempts (or all, or those that begin with a name and a space) was refused by the kernel."""

    def judge(answers: Any) -> Verdict:
        chosen = _chosen(answers, names)
        through = [f"{name}: {answer or 'it worked'}" for name, answer in chosen.items() if answer not in by]
        return failed(_list(through)) if through else Verdict("passed", _list(sorted(set(chosen.values()))))

    return judge


def not_done(*names: str) -> Judge:
    """None of the named attempts worked, whatever it was that they were told."""

    def judge(answers: Any) -> Verdict:
        chosen = _chosen(answers, names)
        done = [name for name, answer in chosen.items() if answer == ""]
        return (
            failed(f"it worked: {_list(done)}")
            if done
            else Verdict("passed", _list(sorted(set(chosen.values()))))
        )

    return judge


def worked(answers: Any) -> Verdict:
    """All of the attempts worked: what must be possible."""
    refusals = [f"{name}: {answer}" for name, answer in dict(answers).items() if answer]
    return failed(_list(refusals)) if refusals or not answers else PASSED


def nothing(what: str) -> Judge:
    """Nothing was found: the value is an empty list or mapping."""

    def judge(value: Any) -> Verdict:
        if not isinstance(value, list | dict | str):
            raise TypeError(type(value).__name__)
        return (
            failed(f"{what}: {_list(value if isinstance(value, list | dict) else [value])}")
            if value
            else PASSED
        )

    return judge


def only(allowed: Collection[str], what: str) -> Judge:
    """Nothing was found but what is allowed."""

    def judge(value: Any) -> Verdict:
        more = sorted(set(map(str, value)) - set(allowed))
        return failed(f"{what}: {_list(more)}") if more else PASSED

    return judge


def equal(wanted: object, what: str = "") -> Judge:
    """The value is exactly this."""

    def judge(value: Any) -> Verdict:
        return (
            PASSED if value == wanted else failed(f"{what or 'found'} {value!r} instead of {wanted!r}"[:400])
        )

    return judge


def at(key: str, inner: Judge) -> Judge:
    """What `inner` says of one part of the value."""
    return lambda value: inner(value[key])


def holds(test: Callable[[Any], bool], problem: str) -> Judge:
    """Whether a test of the value holds."""
    return lambda value: PASSED if test(value) else failed(f"{problem}: {str(value)[:200]}")


def unreachable(*, silent: bool = False, quick: bool = True) -> Judge:
    """Each target of {"name": [answer, seconds, detail]} was refused, and at once.

    `silent` accepts that there was no answer at all, where even a refusal does not find back.
    """

    def judge(value: Any) -> Verdict:
        if not value:
            return Verdict("unknown", "there was no target that anybody reaches")
        problems = []
        for name, (answer, seconds, _detail) in value.items():
            if answer == "open":
                problems.append(f"{name} answered")
            elif (answer == "silent" and not silent) or (quick and not silent and float(seconds) > SOON_S):
                problems.append(f"{name} was not refused, only left without an answer")
        if problems:
            return failed(_list(problems))
        return Verdict("passed", _list(sorted({str(one[2] or one[0]) for one in value.values()})))

    return judge


def _chosen(answers: Any, names: Sequence[str]) -> dict[str, str]:
    every = {str(name): str(answer) for name, answer in answers.items()}
    if not names:
        if not every:
            raise ValueError("no answers")
        return every
    chosen: dict[str, str] = {}
    for name in names:
        part = {key: answer for key, answer in every.items() if key == name or key.startswith(name + " ")}
        if not part:
            raise KeyError(name)
        chosen |= part
    return chosen


def _list(items: Collection[str]) -> str:
    listed = [str(one) for one in items]
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
