"""A pytest plugin for `./dev fuzz`: hypothesis runs on until CODING_AGENTS_FUZZ_SECONDS are over.

Loaded with `-p support.fuzzing`. Each property test gets far more examples than the usual hundred, and what it
finds is kept in .hypothesis for the next ordinary run.
"""

from __future__ import annotations

import os
import random
import time

import pytest
from hypothesis import HealthCheck, settings

_SECONDS = float(os.environ.get("CODING_AGENTS_FUZZ_SECONDS", "60"))
_began = time.monotonic()

settings.register_profile(
    "fuzz", max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
settings.load_profile("fuzz")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Only property tests, as the others find nothing new by running again; in another order each time."""
    items[:] = [item for item in items if getattr(getattr(item, "obj", None), "is_hypothesis_test", False)]
    random.shuffle(items)


def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Leave out the tests that would begin after the end; the first ones have run in any case."""
    if time.monotonic() - _began > _SECONDS:
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        return True
    return None
