"""Every guard of the table is taken away in turn, and the tests that are there for it must notice."""

from __future__ import annotations

import pytest

from support.mutations import Copy, Row, complaint, rows

_ROWS = rows()
_NUMBER = {row.id: number for number, row in enumerate(_ROWS)}


def _marked(row: Row) -> object:
    return pytest.param(row, id=row.id, marks=[pytest.mark.engine] if row.engine else [])


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """Short names: tests below it bind sockets, whose paths have 107 bytes."""
    return Copy.make(tmp_path_factory.mktemp("m") / "c")


@pytest.fixture
def chosen(request: pytest.FixtureRequest) -> str:
    """The engine for rows that need one: one is enough to show that a guard is missed."""
    asked = str(request.config.getoption("--engine"))
    return "docker" if asked == "all" else asked


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("needs", [pytest.param("none"), pytest.param("engine", marks=pytest.mark.engine)])
def test_with_all_guards_the_tests_are_green(copy: Copy, needs: str, chosen: str) -> None:
    wanted = {test for row in _ROWS if row.engine == (needs == "engine") for test in row.tests}
    found, said = copy.run(sorted(wanted), copy.root.parent, engine="none" if needs == "none" else chosen)
    assert found == [], said


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("row", [_marked(row) for row in _ROWS])
def test_a_guard_that_is_taken_away_is_missed(copy: Copy, row: Row, chosen: str) -> None:
    with copy.without(row.edits, _NUMBER[row.id]):
        found, said = copy.run(row.tests, copy.root.parent, engine=chosen if row.engine else "none")
    assert not complaint(row, found), f"{complaint(row, found)}\n{said[-2500:]}"
