"""What a measurement says: a value, what it is compared with in the same run, and how much it may be."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

GROSS = 2.0  # times the budget: no noise of a shared machine explains that


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Either a ratio to `baseline` (what `against` names, measured in the same run, in turn with the value) may be at
    most `max_ratio`, plus `slack` in the value's own unit, or the value itself may be at most `max_value`.
    """

    what: str
    value: float
    unit: str
    against: str = ""
    baseline: float | None = None
    max_ratio: float | None = None
    slack: float = 0.0
    max_value: float | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.baseline is None else self.value / self.baseline

    @property
    def load(self) -> float:
        """How much of the budget is used up: 1 is all of it."""
        if self.max_value is not None:
            return self.value / self.max_value
        if self.max_ratio is None or self.baseline is None:
            raise ValueError(f"{self.what} has no budget")
        return self.value / (self.max_ratio * self.baseline + self.slack)

    @property
    def verdict(self) -> str:
        if self.load <= 1:
            return "ok"
        return "over" if self.load <= GROSS else "FAR OVER"

    @property
    def budget(self) -> str:
        if self.max_value is not None:
            return f"≤ {self.max_value:g} {self.unit}"
        return f"≤ {self.max_ratio:g}×" + (f" + {self.slack:g} {self.unit}" if self.slack else "")


def in_turn(count: int, *measures: Callable[[], float]) -> tuple[float, ...]:
    """The median of each of `measures`, taken `count` times in turn, so that a busy moment hits all of them."""
    taken: list[list[float]] = [[] for _ in measures]
    for _ in range(count):
        for values, measure in zip(taken, measures, strict=True):
            values.append(measure())
    return tuple(statistics.median(values) for values in taken)


def milliseconds(action: Callable[[], object]) -> float:
    """The wall time of one action."""
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def worst(rows: Sequence[Row]) -> float:
    """The largest share of a budget that a row takes."""
    return max((row.load for row in rows), default=0.0)
