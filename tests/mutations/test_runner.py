"""The runner of the table itself: what it takes for a guard that is missed, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.mutations import Copy, Edit, Row, complaint, rows

_TEST = "tests/unit/test_bounds_watch.py::test_the_date_moves_no_deadline"
_FILE = "src/coding_agents/supervisor/deadline.py"
_OLD = "    if deadline.boot == _boot():"


def _row(new: str, **more: object) -> Row:
    return Row("x", "G4", "the clock", (Edit(_FILE, _OLD, new),), (_TEST,), **more)  # type: ignore[arg-type]


def test_only_a_failed_assertion_of_the_named_test_counts(tmp_path: Path) -> None:
    copy = Copy.make(tmp_path / "copy")
    before = (copy.root / _FILE).read_bytes()
    verdicts = []
    for number, row in enumerate(
        (
            _row("    if False:"),
            _row("    if True and deadline.boot == _boot():"),
            _row("    if unknown_name:"),
            _row("    if False:", says="another reason"),
        )
    ):
        with copy.without(row.edits, number):
            verdicts.append(complaint(row, copy.run(row.tests, tmp_path)[0]))
    assert verdicts[0] == ""
    assert "stays green without the clock" in verdicts[1]
    assert "is red, but not by AssertionError" in verdicts[2]
    assert "NameError" in verdicts[2]
    assert "another reason" in verdicts[3]
    assert (copy.root / _FILE).read_bytes() == before
    broken = _row("    if (:")
    with copy.without(broken.edits, 9), pytest.raises(AssertionError, match="pytest ended with"):
        copy.run(broken.tests, tmp_path)


def test_a_text_that_has_moved_is_an_error(tmp_path: Path) -> None:
    assert Edit(_FILE, "no such text", "").problem().endswith("0 times, not once: 'no such text'")
    assert Edit("src/gone.py", "x", "").problem() == "src/gone.py does not exist"
    (tmp_path / "t.toml").write_text('[[row]]\nid = "a"\nguard = "b"\nwhy = "c"\n')
    with pytest.raises(ValueError, match="unknown keys"):
        rows(tmp_path)
