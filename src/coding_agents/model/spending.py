"""What a session uses of its model: tokens and money, their budgets and prices. Money is in millionths of a dollar."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

import msgspec

from coding_agents.errors import UsageError

NONE = "none"
NO_TOKENS = 10**12
NO_COST = Decimal(10**6)
"""So much is no budget at all; it is written as `NONE`."""

_TOKENS = re.compile(r"([0-9]{1,13})([km]?)")
_UNITS = {"": 1, "k": 1000, "m": 1_000_000}


class Spent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Totals of a session: requests, tokens read (`cached` of them from the provider's cache) and written, money.

    `unpriced` counts requests to models without a price, which the money leaves out.
    """

    requests: int = 0
    read: int = 0
    cached: int = 0
    written: int = 0
    cost: int = 0
    unpriced: int = 0

    @property
    def tokens(self) -> int:
        return self.read + self.written

    def plus(self, *, read: int, cached: int, written: int, price: Price | None) -> Spent:
        """The totals after one more request."""
        return Spent(
            requests=self.requests + 1,
            read=self.read + read,
            cached=self.cached + cached,
            written=self.written + written,
            cost=self.cost + (price.of(read, cached, written) if price is not None else 0),
            unpriced=self.unpriced + (price is None),
        )


class Price(msgspec.Struct, frozen=True):
    """Dollars for a million tokens, which are millionths of a dollar for one."""

    read: Decimal
    cached: Decimal
    written: Decimal

    def of(self, read: int, cached: int, written: int) -> int:
        """What a request costs, rounded up."""
        exact = (read - cached) * self.read + cached * self.cached + written * self.written
        return int(exact.to_integral_value(rounding="ROUND_CEILING"))


def price_of(model: str, prices: Iterable[str]) -> Price | None:
    """The price of a model from the setting model.prices: that of its own name, else of the longest that begins it."""
    fits: dict[str, Price] = {}
    for line in prices:
        name, _, numbers = line.partition("=")
        if name == model or (name.endswith("*") and model.startswith(name[:-1])):
            fits[name] = Price(*map(Decimal, numbers.split(",")))
    if model in fits:
        return fits[model]
    return fits[max(fits, key=len)] if fits else None


def parse_tokens(text: str) -> int:
    """A number of tokens: 200000, 200k, 5m, or none for no budget. Raises UsageError."""
    if text.strip().lower() == NONE:
        return NO_TOKENS
    match = _TOKENS.fullmatch(text.strip().lower())
    tokens = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 1 <= tokens <= NO_TOKENS:
        raise UsageError(f"not a number of tokens: {text!r}", hint="Write it like 200000, 200k or 5m.")
    return tokens


def parse_cost(text: str) -> Decimal:
    """A sum of money in dollars: 5, 2.50, or none for no budget. Raises UsageError."""
    if text.strip().lower() == NONE:
        return NO_COST
    try:
        cost = Decimal(text.strip().removeprefix("$"))
    except InvalidOperation:
        cost = Decimal(0)
    if not (cost.is_finite() and 0 < cost <= NO_COST):
        raise UsageError(f"not a sum in dollars: {text!r}", hint="Write it like 5 or 2.50.")
    return cost
