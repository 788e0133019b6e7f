"""A plugin for pytest: writes how each test failed, as lines of JSON, to the file that MUTATION_REPORT names."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped or report.failed:
        error = call.excinfo.typename if call.excinfo is not None else ""
        line = {"test": item.nodeid, "phase": report.when, "error": error, "text": str(report.longrepr)[-20000:]}
        with open(os.environ["MUTATION_REPORT"], "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    return report
