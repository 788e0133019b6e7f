"""How full a relay is, what is refused then, and which saves are let go."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.gitsync.pack_scan import PackTooLargeError
from coding_agents.gitsync.relay_limits import (
    DEFAULT_LIMITS,
    Pressure,
    RelayLimits,
    Usage,
    pressure,
    too_large,
    too_long,
    used_up,
)
from coding_agents.gitsync.thinning import AUTOSAVE, FEWER, NEWEST, Attempt, is_due, thin

MIB, GIB = 1 << 20, 1 << 30
HOUR = 3_600_000
NOW = 1_800_000_000_000
OURS = "refs/coding-agents"


def kept(count: int) -> list[str]:
    return [f"{OURS}/{kind}/{number}" for number in range(count) for kind in ("archive",)]


def test_the_defaults_are_those_that_are_documented() -> None:
    assert (DEFAULT_LIMITS.disk_bytes, DEFAULT_LIMITS.unpacked_bytes) == (2 * GIB, 20 * GIB)
    assert (DEFAULT_LIMITS.object_bytes, DEFAULT_LIMITS.refs) == (100 * MIB, 1000)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (Usage(0, 0), Pressure.NONE),
        (Usage(1638 * MIB, 0), Pressure.NONE),
        (Usage(1639 * MIB, 0), Pressure.THIN),
        (Usage(2 * GIB, 0), Pressure.FULL),
        (Usage(0, 16 * GIB - 1), Pressure.NONE),
        (Usage(0, 16 * GIB), Pressure.THIN),
        (Usage(0, 20 * GIB), Pressure.FULL),
        (Usage(0, 0, kept(799)), Pressure.NONE),
        (Usage(0, 0, kept(800)), Pressure.THIN),
        (Usage(0, 0, kept(1000)), Pressure.FULL),
        (Usage(0, 0, [f"{OURS}/autosave/{n}" for n in range(800)]), Pressure.THIN),
        (Usage(0, 0, [f"{OURS}/nested/{n}" for n in range(800)]), Pressure.THIN),
        (Usage(0, 0, [f"{OURS}/base", *(f"{OURS}/salvage/heads/{n}" for n in range(1000))]), Pressure.NONE),
    ],
)
def test_the_fullest_budget_gives_the_pressure(usage: Usage, expected: Pressure) -> None:
    assert pressure(usage, DEFAULT_LIMITS) is expected


def test_a_full_budget_is_named_with_its_figures_and_what_to_do() -> None:
    disk = used_up(Usage(3 * GIB, 0), DEFAULT_LIMITS, wanted=(), salvage=False)
    assert "3,072.0 MiB, relay.disk allows 2,048.0 MiB" in disk
    assert "the work stays here" in disk
    assert "`coding-agents config set relay.disk 4096m`" in disk
    unpacked = used_up(Usage(0, 21 * GIB), DEFAULT_LIMITS, wanted=(), salvage=True)
    assert "21,504.0 MiB, relay.unpacked allows 20,480.0 MiB" in unpacked
    refs = used_up(Usage(0, 0, kept(1000)), DEFAULT_LIMITS, wanted=(), salvage=False)
    assert "keeps 1000 old tips and saves on the host, relay.refs allows 1000" in refs
    assert "`coding-agents config set relay.refs 2000`" in refs
    too_big = too_large(PackTooLargeError("object", 150 * MIB + 1, 100 * MIB), Usage(0, 0), DEFAULT_LIMITS)
    assert "150.0 MiB, relay.object allows 100.0 MiB" in too_big
    assert "relay.object 151m" in too_big
    for reason in (disk, unpacked, refs, too_big):
        assert len(reason) < 400  # what a refusal shows of it


def test_a_push_is_refused_in_the_middle_for_what_is_left_of_the_disk() -> None:
    usage = Usage(2 * GIB - 10 * MIB, 0)
    assert too_long(10 * MIB, usage, DEFAULT_LIMITS) == ""
    assert "relay.disk allows" in too_long(10 * MIB + 1, usage, DEFAULT_LIMITS)
    assert "relay.push allows 512.0 MiB" in too_long(512 * MIB + 1, Usage(0, 0), DEFAULT_LIMITS)


def test_an_agent_cannot_use_up_the_place_of_its_own_rescue() -> None:
    limits = RelayLimits(refs=3)
    full = Usage(0, 0, kept(3))
    salvage = [f"{OURS}/salvage/head", f"{OURS}/salvage/worktree"]
    assert used_up(full, limits, wanted=["refs/heads/demo/x"], salvage=False)
    assert used_up(full, limits, wanted=salvage, salvage=True) == ""
    many = [f"{OURS}/salvage/heads/{number}" for number in range(4)]
    assert used_up(full, limits, wanted=many, salvage=True)
    assert used_up(Usage(0, 0, many[:3]), limits, wanted=many[:3], salvage=True) == ""


def test_the_refs_that_a_push_would_add_count_before_they_are_there() -> None:
    limits = RelayLimits(refs=10)
    wanted = [f"{OURS}/nested/{number}" for number in range(4)]
    assert used_up(Usage(0, 0, kept(6)), limits, wanted=wanted, salvage=False) == ""
    assert used_up(Usage(0, 0, kept(7)), limits, wanted=wanted, salvage=False)
    assert used_up(Usage(0, 0, [*kept(6), *wanted]), limits, wanted=wanted, salvage=False)


# --- thinning -------------------------------------------------------------------------------------------

_TIMES = st.lists(st.integers(NOW - 50 * HOUR, NOW), max_size=80, unique=True)


def names(times: Iterable[int]) -> set[str]:
    return {f"{AUTOSAVE}/{at_ms}" for at_ms in times}


@given(_TIMES)
def test_the_newest_stay_and_one_of_each_hour_and_no_more(times: list[int]) -> None:
    left = names(times) - set(thin(names(times), NOW))
    newest = sorted(times)[-NEWEST:]
    older = [at_ms for at_ms in times if at_ms not in newest]
    last_of_hours = {max(at for at in older if at // HOUR == hour) for hour in {at // HOUR for at in older}}
    assert left == names([*newest, *last_of_hours])


@given(_TIMES)
def test_thinning_twice_is_thinning_once(times: list[int]) -> None:
    refs = names(times)
    left = refs - set(thin(refs, NOW))
    assert thin(left, NOW) == ()


def test_who_thins_each_minute_keeps_one_of_every_hour() -> None:
    """Were hours counted back from now, each save would give way to the next before its hour is over."""
    refs: set[str] = set()
    for minute in range(10 * 60):
        now = NOW + minute * 60_000
        refs.add(f"{AUTOSAVE}/{now}")
        refs -= set(thin(refs, now))
    hours = {int(ref.rpartition("/")[2]) // HOUR for ref in refs}
    assert hours == set(range(NOW // HOUR, now // HOUR + 1))
    assert len(refs) <= len(hours) + NEWEST


def test_only_our_names_are_let_go_and_the_future_is_not_the_newest() -> None:
    strange = {f"{AUTOSAVE}/x", f"{AUTOSAVE}/-1", f"{AUTOSAVE}/01", f"{AUTOSAVE}/1/2", f"{AUTOSAVE}/٣",
               "refs/heads/main", f"{OURS}/archive/1"}  # fmt: skip
    ahead = names(NOW + 10 * HOUR + step for step in range(5))
    real = names(NOW - step for step in range(NEWEST))
    gone = set(thin(strange | ahead | real, NOW))
    assert gone < ahead
    assert len(gone) == 4


@given(_TIMES)
def test_of_a_relay_that_grows_full_fewer_stay_and_always_the_newest(times: list[int]) -> None:
    refs = names(times)
    usual, *fewer = (
        refs - set(gone) for gone in (thin(refs, NOW), *(thin(refs, NOW, keep) for keep in FEWER))
    )
    hourly, newest = fewer
    assert newest == names([max(times)] if times else [])
    assert newest <= hourly <= usual
    assert {int(ref.rpartition("/")[2]) // HOUR for ref in hourly} == {at // HOUR for at in times}


# --- when to thin a relay out ------------------------------------------------------------------------------

NEARLY = Usage(1700 * MIB, 0)
TENTH = 2 * GIB // 10 + 1
MINUTE_S, HOUR_S = 60, 3600


@pytest.mark.parametrize(
    ("last", "usage", "now_s", "expected"),
    [
        (None, NEARLY, 0, True),
        # A tenth of a budget came since, whichever it is.
        (Attempt(0, 1, NEARLY), Usage(1700 * MIB + TENTH, 0), MINUTE_S, True),
        (Attempt(0, 1, NEARLY), Usage(1700 * MIB + TENTH - MIB, 0), MINUTE_S, False),
        (Attempt(0, 1, NEARLY), Usage(1700 * MIB, 2 * GIB), MINUTE_S, True),
        (Attempt(0, 1, NEARLY), Usage(1700 * MIB, 0, kept(100)), MINUTE_S, True),
        (Attempt(0, 1, NEARLY, in_vain=True), Usage(1700 * MIB + TENTH, 0), MINUTE_S, True),
        # Or an hour is over, unless it was in vain.
        (Attempt(0, 1, NEARLY), NEARLY, HOUR_S, False),
        (Attempt(0, 1, NEARLY), NEARLY, HOUR_S + 1, True),
        (Attempt(0, 1, NEARLY, in_vain=True), NEARLY, 100 * HOUR_S, False),
        # Never more than a twentieth of the time, whatever comes.
        (Attempt(0, 300, NEARLY), Usage(2 * GIB, 20 * GIB), 300 + 20 * 300 - 1, False),
        (Attempt(0, 300, NEARLY), Usage(2 * GIB, 20 * GIB), 300 + 20 * 300, True),
        (Attempt(0, 300, None), Usage(2 * GIB, 20 * GIB), 300 + 20 * 300 - 1, False),
        # What failed at once is tried again, but not each minute.
        (Attempt(0, 1, None), Usage(2 * GIB, 20 * GIB), 600, False),
        (Attempt(0, 1, None), NEARLY, 601, True),
    ],
)
def test_a_relay_is_thinned_out_when_that_can_pay(
    last: Attempt | None, usage: Usage, now_s: float, expected: bool
) -> None:
    assert is_due(last, usage, DEFAULT_LIMITS, now_s) is expected
