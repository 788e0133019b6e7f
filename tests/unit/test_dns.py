"""Resolvers of the host that a container can reach."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.network.dns import parse_nameservers, read_resolvers, usable

_MAIN, _STUB = Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nameserver 10.0.0.2\nnameserver 2001:db8::1\n", ("10.0.0.2", "2001:db8::1")),
        ("# nameserver 1.1.1.1\n  nameserver\t9.9.9.9  # x\n", ("9.9.9.9",)),
        ("nameserver 9.9.9.9\nnameserver 9.9.9.9\n", ("9.9.9.9",)),
        ("nameserver example.org\nnameserver\noptions ndots:0\n", ()),
        ("nameserver fe80::1%eth0\nnameserver 010.0.0.1\n", ()),
    ],
)
def test_nameservers(text: str, found: tuple[str, ...]) -> None:
    assert parse_nameservers(text) == found


def test_a_container_cannot_reach_the_hosts_loopback() -> None:
    assert usable(("127.0.0.53", "::1", "0.0.0.0", "169.254.1.1", "10.0.0.2")) == ("10.0.0.2",)


def test_at_most_three() -> None:
    assert len(usable(tuple(f"10.0.0.{n}" for n in range(1, 9)))) == 3


def test_behind_a_local_stub_are_the_real_servers() -> None:
    files = {_MAIN: "nameserver 127.0.0.53\n", _STUB: "nameserver 10.9.8.7\n"}
    assert read_resolvers(files.__getitem__) == ("10.9.8.7",)


def test_the_hosts_own_come_first() -> None:
    files = {_MAIN: "nameserver 192.0.2.1\n", _STUB: "nameserver 10.9.8.7\n"}
    assert read_resolvers(files.__getitem__) == ("192.0.2.1",)


def test_a_host_without_any() -> None:
    def missing(path: Path) -> str:
        raise FileNotFoundError(path)

    assert read_resolvers(missing) == ()


@given(st.text())
def test_any_text_gives_addresses(text: str) -> None:
    for address in usable(parse_nameservers(text)):
        assert "%" not in address
