"""Look at branches in a process of its own, under limits of the kernel: what hostile content makes of it ends there.

It is this interpreter with `look_process`, which gets what to look at as JSON and answers with findings as JSON. When
it is killed, or says anything else, that is a finding which blocks.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from coding_agents.errors import GitError
from coding_agents.gitsync.findings.budget import Budget
from coding_agents.gitsync.findings.model import Finding, in_order, limit
from coding_agents.gitsync.findings.objects import READ_LIMITS
from coding_agents.gitsync.findings.scan import Subject
from coding_agents.gitsync.packs import Store
from coding_agents.proc.limits import ProcessLimits
from coding_agents.proc.runner import Command, Outcome, run

_MODULE = "coding_agents.supervisor.look_process"
_MARGIN_S = 30.0  # beyond the budget, to start and to tell
_MOST_BYTES = 64 << 20
# The gits that it starts are under its limits, too: git maps packs, and walks what a guest has made.
_LIMITS = ProcessLimits(
    cpu_s=180, memory_bytes=READ_LIMITS.memory_bytes, file_bytes=_MOST_BYTES, open_files=256, niceness=5
)


class Job(msgspec.Struct, frozen=True):
    """`subject` is to be looked at in `store`."""

    store: Store
    subject: Subject


class Looked(msgspec.Struct, frozen=True):
    """The findings, gravest first, and how many of the jobs were done."""

    findings: tuple[Finding, ...]
    done: int


def look_apart(jobs: Sequence[Job], budget: Budget, *, more: Iterable[Finding] = ()) -> Looked:
    """The findings of `jobs` and `more`, together. Raises GitError when the session's branch cannot be read."""
    if not jobs:
        return Looked(tuple(in_order(more)), 0)
    outcome = run(_command(jobs, budget))
    try:
        answer = _parse(outcome)
    except (ValueError, TypeError, RecursionError, msgspec.ValidationError):  # whatever else it said
        ended = limit(f"the look ended before its end: {_why(outcome)}")
        ended = replace(ended, state=f"commit {jobs[0].subject.tip}")
        return Looked(tuple(in_order([ended, *more])), len(jobs))
    if isinstance(answer, GitError):
        raise answer
    return Looked(tuple(in_order([*answer.findings, *more])), answer.done)


def _command(jobs: Sequence[Job], budget: Budget) -> Command:
    request = {"budget": msgspec.to_builtins(budget), "jobs": [_of_job(job) for job in jobs]}
    return Command(
        (sys.executable, "-P", "-m", _MODULE),
        env={
            "PATH": jobs[0].store.env.get("PATH", os.defpath),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "LC_ALL": "C.UTF-8",
        },
        cwd=Path("/"),
        stdin=json.dumps(request).encode("ascii"),  # lone surrogates, of names that are no UTF-8, as \\udcXX
        timeout_s=budget.seconds + _MARGIN_S,
        limits=_LIMITS,
    )


def _of_job(job: Job) -> dict[str, Any]:
    store = job.store
    owner = None if store.owner is None else [store.owner.uid, store.owner.gid]
    return {
        "git_dir": os.fspath(store.git_dir),
        "profile": store.profile.name,
        "env": dict(store.env),
        "owner": owner,
        "subject": msgspec.to_builtins(job.subject, enc_hook=str),  # ids are texts
    }


def _parse(outcome: Outcome) -> Looked | GitError:
    """Its answer. Raises ValueError, or what reading it as one raises, when it is none."""
    if not outcome.ok or len(outcome.stdout) > _MOST_BYTES:
        raise ValueError("no answer")
    answer = json.loads(outcome.stdout)
    if "error" in answer:
        message, details = answer["error"]
        return GitError(str(message), details=str(details))
    return msgspec.convert(answer, Looked)


def _why(outcome: Outcome) -> str:
    if outcome.timed_out:
        return "it took too long"
    if outcome.status < 0:
        return f"signal {-outcome.status}"
    return "it ran out of memory" if b"MemoryError" in outcome.stderr else f"status {outcome.status}"
