"""Findings: what they say, how grave they are, and in which order a person reads them."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from enum import Enum

import msgspec

MAX_DETAIL = 300
LARGE_BYTES = 10 << 20
_PER_RULE = 200
_NUMBER = re.compile(r"[0-9]+")
YOURS = "yours"
"""The rule of a path that stands as it stood in the user's own work tree at launch."""


class Severity(Enum):
    """`block`: runs, leads out or gives away a secret without anybody asking once more; a merge wants a person's word.

    `warn`: ordinary in good work and useful in an attack. `note`: good to know.
    """

    BLOCK = "block"
    WARN = "warn"
    NOTE = "note"


class Finding(msgspec.Struct, frozen=True):
    """One thing to look at. `path` ("" for the branch as a whole) and `detail` are hostile text.

    `commit` is the one that has it when the last state has not, "" for the last state. `ref` names another branch or
    repository that came back, "" for the session's branch; it is hostile text, too. `state` is what it speaks of: mode
    and object of a path, or the commit of all that was looked at.
    """

    rule: str
    severity: Severity
    path: str
    detail: str
    commit: str = ""
    ref: str = ""
    state: str = ""

    @property
    def id(self) -> str:
        """16 hex digits that name this finding for as long as what it speaks of does not change by a byte.

        The detail counts only where there is no path: the same file is the same thing to look at, whatever it is
        compared with. Numbers in it do not: how much a look leaves out depends on how busy the machine is.
        """
        about = self.path or _NUMBER.sub("#", self.detail)
        parts = (self.rule, self.severity.value, self.ref, self.commit, self.state, about)
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


class Entry(msgspec.Struct, frozen=True):
    """What stands at a path: mode as git writes it ("000000": nothing) and object id."""

    mode: str
    oid: str

    @property
    def is_file(self) -> bool:
        return self.mode in ("100644", "100755")


ABSENT = Entry("000000", "")


class Change(msgspec.Struct, frozen=True):
    """One path that differs between two trees."""

    path: str
    old: Entry
    new: Entry


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """`findings` without repetitions, gravest first; those of a rule beyond the first 200 become one that counts them.

    No list may be so long that nobody reads it, and none may be shortened in silence.
    """
    by_rule: defaultdict[tuple[Severity, str], list[Finding]] = defaultdict(list)
    for finding in dict.fromkeys(findings):
        by_rule[finding.severity, finding.rule].append(finding)
    shown: list[Finding] = []
    for (severity, rule), group in by_rule.items():
        # Those of the session's branch, and of its last state, come first.
        group.sort(key=lambda one: (one.ref, bool(one.commit), one.path, one.detail))
        shown += group[:_PER_RULE]
        if hidden := group[_PER_RULE:]:
            # Accepted as what they are now, unseen; another one among them is another thing to accept.
            state = hashlib.sha256("".join(one.id for one in hidden).encode()).hexdigest()
            detail = f"{len(hidden)} more of this rule are not listed"
            shown.append(Finding(rule, severity, "", detail, state=state))
    return in_order(shown)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """`findings` without repetitions, gravest first: for lists that are short already."""
    order = list(Severity)
    return sorted(
        dict.fromkeys(findings),
        key=lambda one: (order.index(one.severity), one.rule == YOURS, one.rule, bool(one.path)),
    )


def limit(detail: str) -> Finding:
    """Beyond a budget anything may stand, so a person must know before a merge."""
    return Finding("limit", Severity.BLOCK, "", detail)


def clipped(text: str) -> str:
    """`text` short enough for a detail."""
    return text if len(text) <= MAX_DETAIL else f"{text[:MAX_DETAIL]}…"
