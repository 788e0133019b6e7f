"""Tests that run in the emulated guest alone (tools/emulated_guest.py): as root, and nobody else is on the machine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import EngineUnderTest
from support.product import Product, make_repo, user_of

if not Path("/etc/coding-agents-emulated").exists():
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One repository for all: what it holds is not what is tested here."""
    return make_repo(tmp_path_factory.mktemp("home") / f"p{uuid.uuid4().hex[:8]}")


@pytest.fixture(scope="session")
def product(engine: EngineUnderTest, repo: Path) -> Iterator[Product]:
    with user_of(engine.name, repo.parent) as user:
        yield user


_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Say at once what failed: a guest whose time is up has no summary."""
    if report.failed:
        print(
            f"\n{report.nodeid} ({report.when}, {report.duration:.0f} s)\n{report.longreprtext}", flush=True
        )
    if report.skipped:
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Nothing is missing in the guest that could excuse a test: what was skipped has failed."""
    if _skipped:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
