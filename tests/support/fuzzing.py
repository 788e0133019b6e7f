"""A pytest plugin for `./dev fuzz`: every property test again and again, on new inputs, until the time is over.

Loaded with `-p support.fuzzing`; CODING_AGENTS_FUZZ_SECONDS says how long. Tests take turns of some hundred examples
(as many as they ask for, where each is slow), so that none takes all the time. A turn that has begun is finished.
What is found is kept in .hypothesis for the next ordinary run; the test that found it gets no more turns.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from functools import wraps

import pytest
from hypothesis import HealthCheck, settings

_SECONDS = float(os.environ.get("CODING_AGENTS_FUZZ_SECONDS", "60"))
_A_TURN = 200
_counts: dict[str, int] = {}


def pytest_configure(config: pytest.Config) -> None:
    # Here and not on import: tests/conftest.py, which chooses the same examples for every run, is loaded by now.
    everything = list(HealthCheck)
    settings.register_profile(
        "fuzz",
        max_examples=_A_TURN,
        deadline=None,
        derandomize=False,
        suppress_health_check=everything,
        print_blob=True,
    )
    settings.load_profile("fuzz")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Only property tests, as the others find nothing new by running again."""
    items[:] = [item for item in items if getattr(getattr(item, "obj", None), "is_hypothesis_test", False)]
    for item in items:
        _count(item)


def pytest_runtestloop(session: pytest.Session) -> bool:
    """Turns in another order each time, until the time is over."""
    end = time.monotonic() + _SECONDS
    left = list(session.items)
    while left and time.monotonic() < end:
        random.shuffle(left)
        for item in list(left):
            if time.monotonic() >= end:
                break
            failed = session.testsfailed
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            if session.testsfailed > failed:
                left.remove(item)
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("examples")
    for name, count in sorted(_counts.items()):
        terminalreporter.line(f"{count:8} {name}")
    terminalreporter.line(f"{sum(_counts.values()):8} in all")


def _count(item: pytest.Item) -> None:
    """Count the calls of the function below @given (https://hypothesis.readthedocs.io, "inner_test")."""
    handle = item.obj.hypothesis  # type: ignore[attr-defined]
    inner: Callable[..., object] = handle.inner_test
    _counts[item.nodeid] = 0

    @wraps(inner)
    def counted(*args: object, **kwargs: object) -> object:
        _counts[item.nodeid] += 1
        return inner(*args, **kwargs)

    handle.inner_test = counted
