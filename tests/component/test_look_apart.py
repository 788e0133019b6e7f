"""A look at hostile content is a process of its own: what becomes of it is a finding that blocks, and nothing else."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from coding_agents.errors import GitError
from coding_agents.gitsync.findings.budget import Budget
from coding_agents.gitsync.findings.scan import Subject
from coding_agents.model.refs import Oid
from coding_agents.proc.runner import Command
from coding_agents.supervisor import look_apart as apart
from support.review_project import Project, make_project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = make_project(tmp_path, changes=False)
    made.write(".envrc", "x\n")
    made.commit()
    made.push()
    return made


def instead(monkeypatch: pytest.MonkeyPatch, program: str, *, seconds: float = 60) -> None:
    """What looks runs `program` of Python's, with the limits and the input of the real one."""
    real = apart._command

    def other(jobs: list[apart.Job], budget: Budget) -> Command:
        return replace(real(jobs, budget), argv=(sys.executable, "-c", program), timeout_s=seconds)

    monkeypatch.setattr(apart, "_command", other)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "signal 9"),
        ("import sys; sys.stdin.read(); x = bytearray(64 << 30)", "out of memory"),
        ("print('[]')", "status 0"),
        ('print(\'{"findings": [], "done": 1} trailing\')', "status 0"),
        ('print(\'{"findings": [{"rule": 1}], "done": 1}\')', "status 0"),
        ("print(5)", "status 0"),
        ("print('{\"error\": 1}')", "status 0"),
        ("print('[' * 100000)", "status 0"),
        ("raise SystemExit(3)", "status 3"),
    ],
)
def test_what_ends_early_or_says_something_else_blocks(
    project: Project, monkeypatch: pytest.MonkeyPatch, program: str, why: str
) -> None:
    instead(monkeypatch, program)
    (finding,) = project.json()["findings"]
    assert (finding["rule"], finding["severity"]) == ("limit", "block")
    assert why in finding["detail"]
    assert project.json()["blocking"] is True


def test_one_that_never_ends_blocks(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    instead(monkeypatch, "import time; time.sleep(600)", seconds=1)
    found = project.json()["findings"]
    assert [one["detail"] for one in found] == ["the look ended before its end: it took too long"]


def test_it_has_limits_of_the_kernel_and_nothing_of_ours(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET_OF_YOURS", "x")
    told = tmp_path / "told"
    instead(
        monkeypatch,
        f"""
import json, os, resource, sys
sys.stdin.read()
kinds = (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
told = [[resource.getrlimit(kind)[1] for kind in kinds], sorted(os.environ), os.listdir("/proc/self/fd")]
open({str(told)!r}, "w").write(json.dumps(told))
""",
    )
    project.json()
    limits, names, files = apart.json.loads(told.read_text())
    wanted = apart._LIMITS
    assert limits == [wanted.cpu_s, wanted.memory_bytes, wanted.file_bytes, wanted.open_files]
    assert resource.RLIM_INFINITY not in limits
    assert set(names) <= {"PATH", "PYTHONPATH", "LC_ALL", "LC_CTYPE"}
    assert len(files) <= 4


def test_a_branch_that_cannot_be_read_is_an_error_and_one_beside_it_a_finding(project: Project) -> None:
    """As they were, when all was one process."""
    store = project.session.relay.store
    tip, gone = store.resolve("refs/heads/demo/work"), Oid("1" * 40)
    assert tip is not None
    good = apart.Job(store, Subject(project.session.relay.base, tip, None, None))
    bad = apart.Job(store, Subject(None, gone, None, None, ref="refs/heads/other"))
    with pytest.raises(GitError):
        apart.look_apart([apart.Job(store, replace(bad.subject, ref=""))], Budget())
    assert apart.look_apart([bad], Budget()).findings[0].rule == "limit"
    looked = apart.look_apart([good, bad], Budget())
    assert ("limit", "refs/heads/other") in {(one.rule, one.ref) for one in looked.findings}
    assert ("environment", "") in {(one.rule, one.ref) for one in looked.findings}
    assert looked.done == 2


@pytest.mark.parametrize("name", ["\udcff\udcfe/.envrc", "x\ny/.envrc", "\U0001f600/.envrc"])
def test_names_come_through_as_they_are(project: Project, name: str) -> None:
    path = project.guest / name
    path.parent.mkdir()
    path.write_text("x\n")
    project.commit()
    project.push()
    tip = project.session.relay.store.resolve("refs/heads/demo/work")
    assert tip is not None
    job = apart.Job(project.session.relay.store, Subject(project.session.relay.base, tip, None, None))
    assert name in {one.path for one in apart.look_apart([job], Budget()).findings}


def test_what_is_not_listed_is_counted_once(project: Project) -> None:
    """Of a rule 200 are listed; the look and who asks for it do not shorten twice."""
    for number in range(206):
        project.write(f"{number:03}/.envrc", f"{number}\n")
    project.commit()
    project.push()
    found = [one for one in project.json()["findings"] if one["rule"] == "environment"]
    assert len(found) == 201
    assert [one["detail"] for one in found if not one["path"]] == ["7 more of this rule are not listed"]


def test_nothing_to_look_at_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: Command) -> None:
        raise AssertionError

    starting: Callable[[Command], None] = never
    monkeypatch.setattr(apart, "run", starting)
    assert apart.look_apart([], Budget()) == apart.Looked((), 0)
