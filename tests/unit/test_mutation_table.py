"""The mutation table against the tree: it can be run, and no guarantee is without a row. `tests/mutations` runs it."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from support.docs import page
from support.mutations import ROOT, Row, rows

_ROWS = rows()
_WITH_ENGINE = ("tests/engine/", "tests/escape/", "tests/e2e/")


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: row.id)
def test_a_rows_guard_and_its_tests_are_there(row: Row) -> None:
    assert [problem for edit in row.edits if (problem := edit.problem())] == []
    assert all(edit.old != edit.new for edit in row.edits)
    for test in row.tests:
        file, name = test.split("[")[0].split("::")
        assert re.search(rf"^(?:async )?def {name}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE), test
        assert file.startswith(_WITH_ENGINE) <= row.engine, f"{test} needs an engine"


def test_each_guarantee_has_a_row_and_each_row_a_name_of_its_own() -> None:
    named = set(re.findall(r"^\| \*\*(G[0-9]+)\*\*", page("docs/threat-model.md").text, re.MULTILINE))
    assert {row.guarantee for row in _ROWS} == named
    assert [name for name, count in Counter(row.id for row in _ROWS).items() if count > 1] == []
