"""Parsing of limits: what is accepted, what it means, what is refused."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.errors import UsageError
from coding_agents.model.limits import (
    GIB,
    MAX_MEMORY,
    MIB,
    MIN_MEMORY,
    Limits,
    cpus_text,
    parse_cpus,
    parse_memory,
    parse_pids,
    parse_size,
    size_text,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8g", 8 * GIB),
        ("512m", 512 * MIB),
        ("512MiB", 512 * MIB),
        ("1.5g", 3 * GIB // 2),
        ("2 GB", 2 * GIB),
        ("4096", 4096),
        ("4096b", 4096),
        ("1k", 1024),
        ("1t", 1024 * GIB),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "g", "-1g", "8x", "1e9", "0x10", "８g", "8gg", "8 g b", "1.g", "nan", "inf"]
)
def test_not_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="not a size"):
        parse_size(text)


def test_memory_has_bounds() -> None:
    assert parse_memory(str(MIN_MEMORY)) == MIN_MEMORY
    assert parse_memory(str(MAX_MEMORY)) == MAX_MEMORY
    for text in (str(MIN_MEMORY - 1), str(MAX_MEMORY + 1), "0"):
        with pytest.raises(UsageError, match="memory must be between 256m and 64t"):
            parse_memory(text)


@pytest.mark.parametrize(
    ("text", "cpus"), [("4", "4"), ("0.5", "0.5"), ("2.50", "2.5"), (" 16 ", "16"), ("100", "100")]
)
def test_cpus(text: str, cpus: str) -> None:
    assert cpus_text(parse_cpus(text)) == cpus


@pytest.mark.parametrize("text", ["", "0", "0.05", "-1", "4.", ".5", "1e1", "four", "9999", "٤", "nan"])
def test_not_cpus(text: str) -> None:
    with pytest.raises(UsageError, match="CPUs"):
        parse_cpus(text)


def test_pids() -> None:
    assert parse_pids("4096") == 4096
    for text in ("0", "63", "4194305", "-1", "many", "1.5", "٤٤٤"):
        with pytest.raises(UsageError, match="processes"):
            parse_pids(text)


@given(st.integers(min_value=1, max_value=MAX_MEMORY))
def test_a_shown_size_reads_back(size: int) -> None:
    assert parse_size(size_text(size)) == size


@given(st.decimals(min_value=Decimal("0.1"), max_value=4096, places=3))
def test_shown_cpus_read_back(cpus: Decimal) -> None:
    assert parse_cpus(cpus_text(cpus)) == cpus


@given(st.text())
def test_anything_else_is_a_usage_error(text: str) -> None:
    for parse in (parse_size, parse_memory, parse_cpus, parse_pids):
        try:
            assert parse(text) > 0 or parse is parse_size
        except UsageError:
            continue


def test_defaults_are_the_documented_ones() -> None:
    limits = Limits()
    assert (cpus_text(limits.cpus), size_text(limits.memory_bytes), limits.pids) == ("4", "8g", 4096)
    assert limits.shm_bytes >= GIB
    assert limits.to_json()["cpus"] == "4"
