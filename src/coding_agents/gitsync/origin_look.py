"""What a person is shown of a push to origin: commits, files and findings, read as objects and within bounds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping

import msgspec

from coding_agents.gitsync.findings.budget import Budget
from coding_agents.gitsync.findings.model import Finding, Severity, ranked
from coding_agents.gitsync.findings.objects import changed_paths, reading
from coding_agents.gitsync.findings.scan import Subject
from coding_agents.gitsync.origin_rules import AskedPush
from coding_agents.gitsync.packs import Store
from coding_agents.gitsync.summary import summarize
from coding_agents.model.approval import Shown
from coding_agents.model.refs import Oid
from coding_agents.proc.git import require_ok
from coding_agents.proc.runner import run

_COMMITS, _PATHS, _FINDINGS = 50, 200, 100
_TEXT = 200
BUDGET = Budget(total_bytes=256 << 20, seconds=30.0)
"""Of a look: git in the session waits for it."""


class Look(msgspec.Struct, frozen=True):
    """What was found: `shown` of it to a person, whether the push is one by `force`, and a hash of all findings."""

    shown: Shown
    force: bool
    findings: str


def look_at_push(
    store: Store,
    asked: AskedPush,
    refs: Mapping[str, Oid],
    *,
    default: str,
    author: tuple[str, ...] | None,
    find: Callable[[Subject], Iterable[Finding]],
) -> Look:
    """Look at a push that has arrived in `store`; `refs` are origin's, `default` is its default branch, `find` finds.

    What it is compared with is what the branch is there now, else where it left the default branch. Raises GitError.
    """
    trunk = refs.get(f"refs/heads/{default}")
    force = asked.old is not None and not store.is_ancestor(asked.old, asked.new)
    base = asked.old if asked.old is not None and not force else _fork_point(store, trunk, asked.new)
    known = tuple(dict.fromkeys(oid for oid in (asked.old, trunk) if oid is not None))
    subject = Subject(base, asked.new, None, author, known)
    found = ranked(find(subject))
    counts = summarize(store, base=base, tip=asked.new)
    changes, _ = changed_paths(store, base, asked.new, limit=_PATHS)
    shown = Shown(
        base=str(base or ""),
        commit_count=_count(store, asked.new, known),
        file_count=counts.files,
        insertions=counts.insertions,
        deletions=counts.deletions,
        commits=_commits(store, asked.new, known),
        paths=tuple(_text(change.path) for change in changes),
        finding_count=len(found),
        blocking=sum(one.severity is Severity.BLOCK for one in found),
        findings=tuple(
            (one.severity.value, one.rule, _text(one.path), _text(one.detail)) for one in found[:_FINDINGS]
        ),
    )
    return Look(shown, force, _hash(found))


def _fork_point(store: Store, trunk: Oid | None, tip: Oid) -> Oid | None:
    if trunk is None:
        return None
    answer = run(reading(store, ("merge-base", trunk, tip)))
    return Oid.parse(answer.text().split()[0]) if answer.ok and answer.text().strip() else None


def _count(store: Store, tip: Oid, known: tuple[Oid, ...]) -> int:
    return int(_read(store, "rev-list", "--count", tip, "--not", *known))


def _commits(store: Store, tip: Oid, known: tuple[Oid, ...]) -> tuple[tuple[str, str, str], ...]:
    listing = _read(
        store, "rev-list", f"--max-count={_COMMITS}", "--format=%H%x00%<(100,trunc)%an%x00%<(200,trunc)%s",
        tip, "--not", *known,
    )  # fmt: skip
    rows = [line.split("\0") for line in listing.split("\n")]
    return tuple((row[0], _text(row[1].rstrip()), _text(row[2].rstrip())) for row in rows if len(row) == 3)


def _read(store: Store, *args: str) -> str:
    return require_ok(run(reading(store, args)), f"git {args[0]}").text()


def _text(text: str) -> str:
    """Hostile text, cut, in a form that can be written down; it is not made safe to show here."""
    clean = text.encode("utf-8", "backslashreplace").decode()
    return clean if len(clean) <= _TEXT else f"{clean[: _TEXT - 1]}…"


def _hash(findings: list[Finding]) -> str:
    return hashlib.sha256(" ".join(sorted(one.id for one in findings)).encode()).hexdigest()
