"""A plugin for pytest: writes how each test failed, as lines of JSON, to the file that MUTATION_REPORT names."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

# An example that fails is enough: nobody reads it, and the search for a smaller one takes longest.
settings.register_profile(
    "mutations", deadline=None, derandomize=True, phases=(Phase.explicit, Phase.generate)
)


def _kinds(error: BaseException) -> set[str]:
    """The kinds of failure, of all that are in a group (as Hypothesis raises them)."""
    if isinstance(error, BaseExceptionGroup):
        return {kind for one in error.exceptions for kind in _kinds(one)}
    return {type(error).__name__}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped or report.failed:
        error = "+".join(sorted(_kinds(call.excinfo.value))) if call.excinfo is not None else ""
        line = {
            "test": item.nodeid,
            "phase": report.when,
            "error": error,
            "text": str(report.longrepr)[-20000:],
        }
        with Path(os.environ["MUTATION_REPORT"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    return report
