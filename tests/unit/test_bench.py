"""The bench's own arithmetic: what it calls over budget."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))

from bench.report import table
from bench.rows import Row, in_turn, worst


def ratio_row(value: float) -> Row:
    return Row(what="push", value=value, unit="ms", baseline=100.0, against="bare", max_ratio=1.3, slack=20.0)


@pytest.mark.parametrize(
    ("value", "verdict"), [(150.0, "ok"), (150.1, "over"), (300.0, "over"), (300.1, "FAR OVER")]
)
def test_a_ratio_with_slack_is_judged_by_ratio_times_baseline_plus_slack(value: float, verdict: str) -> None:
    row = ratio_row(value)
    assert row.verdict == verdict
    assert row.budget == "≤ 1.3× + 20 ms"


def test_a_limit_is_judged_whatever_the_baseline() -> None:
    row = Row(what="help", value=101.0, unit="ms", baseline=1.0, against="python", max_value=100.0)
    assert (row.verdict, row.ratio) == ("over", 101.0)


def test_the_worst_row_decides_and_no_rows_are_no_failure() -> None:
    assert worst([ratio_row(10.0), ratio_row(450.0), ratio_row(20.0)]) == 3.0
    assert worst([]) == 0.0


def test_measures_are_taken_in_turn_and_their_medians_returned() -> None:
    calls: list[str] = []
    values = {"a": iter((3.0, 1.0, 2.0)), "b": iter((30.0, 10.0, 90.0))}

    def measure(name: str) -> float:
        calls.append(name)
        return next(values[name])

    assert in_turn(3, lambda: measure("a"), lambda: measure("b")) == (2.0, 30.0)
    assert calls == ["a", "b"] * 3


def test_the_table_names_baseline_ratio_and_verdict() -> None:
    line = table([ratio_row(1234.5)])[2]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "push", "1,234 ms", "100 ms (bare)", "12.35×", "≤ 1.3× + 20 ms", "FAR OVER",
    ]  # fmt: skip
