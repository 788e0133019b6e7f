"""Which resolvers a container will ask, so that the guard can open exactly those.

An engine gives containers the resolvers of its host. A local stub (systemd-resolved, dnsmasq) listens on
loopback, which a container cannot reach; then the servers behind systemd's stub are the ones.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path

_RESOLV_CONF = Path("/etc/resolv.conf")
_BEHIND_THE_STUB = Path("/run/systemd/resolve/resolv.conf")
_MAX_SERVERS = 3  # resolv.conf(5): MAXNS
_MAX_BYTES = 64 * 1024


def parse_nameservers(text: str) -> tuple[str, ...]:
    """The addresses of `nameserver` lines, in order, without repeats; malformed and scoped ones left out.

    >>> parse_nameservers("nameserver 10.0.0.2\\nsearch example.org\\n")
    ('10.0.0.2',)
    """
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                found.append(str(ipaddress.ip_address(words[1])))
            except ValueError:
                continue
    return tuple(dict.fromkeys(address for address in found if "%" not in address))


def usable(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `addresses` that a container can reach, at most as many as a resolver library asks."""
    parsed = [ipaddress.ip_address(address) for address in addresses]
    return tuple(
        str(one) for one in parsed if not (one.is_loopback or one.is_unspecified or one.is_link_local)
    )[:_MAX_SERVERS]


def read_resolvers(read: Callable[[Path], str] | None = None) -> tuple[str, ...]:
    """The resolvers to name in a holder; empty when the host has none that a container can reach.

    Of the engine's machine when it is this one; a remote engine's own resolvers are not known here.
    """
    for path in (_RESOLV_CONF, _BEHIND_THE_STUB):
        try:
            text = (read or _read)(path)
        except OSError:
            continue
        if addresses := usable(parse_nameservers(text)):
            return addresses
    return ()


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_MAX_BYTES).decode("utf-8", "replace")
