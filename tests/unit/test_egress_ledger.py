"""What a session may still do, what is told of a request, and what is kept until the host has recorded it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents_guest.egress.entry import Entry
from coding_agents_guest.egress.ledger import Account, Ledger, Limits, SpentError
from coding_agents_guest.egress.orders import HostProxy, Orders, orders_json, parse_orders
from coding_agents_guest.egress.outbox import Outbox
from coding_agents_guest.egress.rules import Request, Rules, parse_rule

# --- budgets -----------------------------------------------------------------------------------------------------

_PIECES = st.lists(st.tuples(st.booleans(), st.integers(0, 5000)), max_size=40)


@given(st.integers(0, 20_000), st.integers(0, 20_000), st.integers(0, 9000), st.lists(_PIECES, max_size=4))
def test_no_more_passes_than_the_budgets_say(up: int, down: int, each: int, requests: list[Any]) -> None:
    ledger = Ledger(Limits(up=up, down=down, request_up=each))
    passed = [0, 0]
    for pieces in requests:
        account, mine = Account(ledger), 0
        for upwards, size in pieces:
            try:
                (account.sent if upwards else account.received)(size)
            except SpentError:
                break
            passed[not upwards] += size
            mine += size if upwards else 0
        assert mine <= each or not each
    assert passed[0] <= up or not up
    assert passed[1] <= down or not down


def test_what_would_exceed_a_budget_is_stopped_before_it_goes() -> None:
    account = Account(Ledger(Limits(up=10)))
    account.sent(10)
    with pytest.raises(SpentError):
        account.sent(1)
    with pytest.raises(OSError, match="budget"):
        account.received(0)


def test_a_budget_that_is_lowered_counts_for_what_is_under_way() -> None:
    ledger = Ledger(Limits())
    account = Account(ledger)
    account.sent(1000)
    ledger.limits = Limits(up=500)
    assert ledger.spent
    with pytest.raises(SpentError):
        account.sent(1)


@given(
    st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=200), st.integers(1, 5), st.integers(1, 20)
)
def test_requests_are_bounded_at_once_and_in_a_time(
    steps: list[tuple[float, bool]], at_once: int, rate: int
) -> None:
    ledger = Ledger(Limits(at_once=at_once, per_second=rate))
    now, begun = 1e6, 0
    for pause, ends in steps:
        now += pause
        if ends and ledger.under_way:
            ledger.end()
        begun += ledger.begin(now)
        assert ledger.under_way <= at_once
        assert begun <= 400 + rate * (now - 1e6) + 1


def test_a_flood_is_held_to_its_rate_and_one_that_pauses_goes_on() -> None:
    ledger = Ledger(Limits(at_once=10_000, per_second=50))
    assert sum(ledger.begin(100.0) for _ in range(1000)) == 400
    assert sum(ledger.begin(101.0) for _ in range(1000)) == 50


# --- what the host has still to record ---------------------------------------------------------------------------


def test_events_stay_until_they_are_recorded() -> None:
    outbox = Outbox(8)
    for number in range(3):
        outbox.put({"n": number})
    assert [number for number, _ in outbox.after(1)] == [2, 3]
    outbox.taken(2)
    assert outbox.after(0) == [(3, {"n": 2})]
    outbox.taken(2)
    outbox.taken(99)
    assert outbox.after(0) == []


@given(st.lists(st.booleans() | st.integers(0, 60), max_size=80))
def test_refusals_never_push_out_what_has_passed(steps: list[bool | int]) -> None:
    """True: something passed, as long as it is not full; False: a refusal; a number: all up to it is recorded."""
    outbox = Outbox(16)
    kept: list[int] = []
    for number, step in enumerate(steps, 1):
        if step is True and not outbox.full:
            outbox.put({"passed": 1})
            kept.append(outbox._number)
        elif step is True or step is False:
            outbox.put({"passed": 0}, passed=False)
        else:
            outbox.taken(step)
            kept = [one for one in kept if one > step]
        here = {place for place, event in outbox.after(0) if event["passed"]}
        assert here == set(kept), number
        assert len(outbox.after(0)) <= 16


def test_a_flood_of_refusals_fills_it_and_leaves_room_for_ends() -> None:
    outbox = Outbox(16)
    for _ in range(100):
        outbox.put({}, passed=False)
    assert outbox.full
    assert len(outbox.after(0)) == 12
    for _ in range(4):
        outbox.put({"end": 1})
    numbers = [number for number, _ in outbox.after(0)]
    assert numbers == [*range(1, 13), 101, 102, 103, 104], "and the gap tells of the others"


def test_who_waits_is_told() -> None:
    async def scene() -> list[int]:
        outbox = Outbox()
        waiting = asyncio.ensure_future(outbox.wait(0))
        await asyncio.sleep(0)
        assert not waiting.done()
        outbox.put({})
        await asyncio.wait_for(waiting, 5)
        await asyncio.wait_for(outbox.wait(0), 5)
        return [number for number, _ in outbox.after(0)]

    assert asyncio.run(scene()) == [1]


# --- what is told ------------------------------------------------------------------------------------------------


def _told(entry: Entry, outbox: Outbox) -> dict[str, Any]:
    entry.end()
    return dict(outbox.after(0)[-1][1])


def test_a_request_is_told_with_its_bytes_and_without_what_may_be_secret() -> None:
    outbox = Outbox()
    entry = Entry(outbox)
    entry.of(Request("http", "a.example", 80, "GET", "/x"))
    entry.account = Account(Ledger(Limits()))
    entry.account.sent(7)
    entry.tell_of_begin()
    told = _told(entry, outbox)
    assert [event["outcome"] for _, event in outbox.after(0)] == ["begun", "allowed"]
    assert told["ms"] >= 0
    assert told | {"ms": 0} == {
        "outcome": "allowed", "scheme": "http", "method": "GET", "host": "a.example", "port": 80, "path": "/x",
        "up": 7,
        "down": 0, "ms": 0,
    }  # fmt: skip


@given(st.text(max_size=400), st.text(max_size=2000), st.text(max_size=400))
def test_what_a_guest_wrote_is_told_in_visible_ascii_within_bounds(host: str, path: str, note: str) -> None:
    outbox = Outbox()
    entry = Entry(outbox)
    entry.of(Request("http", host, 80, "GET", path))
    entry.refused("not-listed", note)
    for value in _told(entry, outbox).values():
        text = str(value)
        assert text.isascii()
        assert text.isprintable()
        assert len(text) <= 3000


# --- what the host orders ----------------------------------------------------------------------------------------

_ORDERS = {
    "opened": [["user", "a.example"]], "closed": [], "limits": {"up": 1}, "allow_ech": False, "host_proxy": None,
    "names": [],
}  # fmt: skip


def test_orders_arrive_as_they_were_sent() -> None:
    rules = Rules(
        [parse_rule("GET http://a.example/x/", "user")], [parse_rule("*.b.example:8443", "settings")]
    )
    proxy = HostProxy("10.0.0.1", 3128, "Basic x", ("c.example",))
    orders = Orders(rules, Limits(up=5, request_down=6), True, proxy, (("d.example", "10.0.0.2"),))
    again = parse_orders(orders_json(orders))
    assert (again.rules.opened, again.rules.closed) == (rules.opened, rules.closed)
    assert (again.limits, again.allow_ech, again.names) == (orders.limits, True, orders.names)
    assert again.host_proxy == proxy


@pytest.mark.parametrize(
    "change",
    [
        {"opened": [["user", "a.example"], ["user", "b..example"]]}, {"closed": [["user", "10.0.0.1"]]},
        {"opened": [["user"]]},
        {"opened": {"user": "a.example"}}, {"limits": {"up": -1}}, {"limits": {"up": True}}, {"limits": {"up": "1"}},
        {"limits": {"other": 1}}, {"limits": None}, {"opened": [["user", "a.example\n*.b.example"]]},
        {"names": [["a"]]},
    ],
)  # fmt: skip
def test_orders_with_a_mistake_are_none_at_all(change: dict[str, Any]) -> None:
    parse_orders(_ORDERS)
    with pytest.raises((ValueError, TypeError)):
        parse_orders({**_ORDERS, **change})


@pytest.mark.parametrize("key", sorted(_ORDERS))
def test_orders_are_whole(key: str) -> None:
    with pytest.raises(KeyError):
        parse_orders({name: value for name, value in _ORDERS.items() if name != key})
