"""The process of `look_apart`: jobs as JSON on standard input, findings as JSON on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from coding_agents.errors import GitError
from coding_agents.gitsync.findings.budget import Account, Budget
from coding_agents.gitsync.findings.model import Finding, limit, ranked
from coding_agents.gitsync.findings.scan import Subject, scan
from coding_agents.gitsync.packs import Store
from coding_agents.model.refs import Oid
from coding_agents.proc.git import Profile
from coding_agents.proc.runner import Owner
from coding_agents.supervisor.look_apart import Looked
from coding_agents.workspace.deny import load_deny_list


def main() -> None:
    """Answer one request. What is no GitError ends the process, which its parent notices."""
    request = json.load(sys.stdin.buffer)
    account = Account(msgspec.convert(request["budget"], Budget))
    try:
        looked = _look(request["jobs"], account, load_deny_list().matches)
        answer = msgspec.to_builtins(looked)
    except GitError as error:
        answer = {"error": [error.message, error.details]}
    sys.stdout.write(json.dumps(answer))


def _look(jobs: list[Any], account: Account, is_secret_name: Callable[[str], bool]) -> Looked:
    found: list[Finding] = []
    for number, job in enumerate(jobs):
        if job["subject"]["ref"] and account.is_spent():
            found.append(
                limit(f"{len(jobs) - number} other branch(es) and repositories inside were not looked at")
            )
            return Looked(tuple(ranked(found)), number)
        subject = _subject(job["subject"])
        try:
            found += scan(_store(job), subject, account=account, is_secret_name=is_secret_name)
        except GitError as error:
            if not subject.ref:  # the session's branch: without it there is nothing to say
                raise
            found.append(replace(limit(f"not looked at: {error.message}"), ref=subject.ref))
    return Looked(tuple(ranked(found)), len(jobs))


def _store(job: Mapping[str, Any]) -> Store:
    owner = Owner(*job["owner"]) if job["owner"] is not None else None
    return Store(Path(job["git_dir"]), Profile[job["profile"]], job["env"], owner)


def _subject(given: Mapping[str, Any]) -> Subject:
    base, launch = (Oid.parse(given[key]) if given[key] else None for key in ("base", "launch"))
    author = tuple(given["author"]) if given["author"] is not None else None
    known = tuple(map(Oid.parse, given["known"]))
    return Subject(base, Oid.parse(given["tip"]), launch, author, known, given["ref"])


if __name__ == "__main__":
    main()
