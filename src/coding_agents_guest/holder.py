"""The holder: owns a session's network namespace, puts the guard up in it, and then can do nothing more.

It starts as root with NET_ADMIN, SETUID, SETGID and SETPCAP alone, applies the rules of guard.py, reads
them back from the kernel, gives up every privilege, writes `ready` and sleeps until it is told to end.
Because that is all it does, every restart, by whomever, puts the guard up again. Any failure ends it before
`ready`.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from coding_agents_guest.guard import TABLE, Guard, render_ruleset, verify_ruleset
from coding_agents_guest.privileges import PrivilegeError, drop_all_privileges
from coding_agents_guest.records import replace

_NOBODY = 65534
_TOOL_TIMEOUT_S = 20.0
# Our image's own programs; nothing of an inherited environment takes part.
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
READY = "ready"

Work = Callable[[Guard, Callable[[], None]], int]
"""Is given the guard that stands, and what reports it; returns a status."""


class HolderError(Exception):
    """The guard could not be put up, or is not what it must be."""


def main(argv: Sequence[str]) -> int:
    """Run the holder; `--dns IP` and `--allow IP:PORT` can be repeated, `--rate` is in bytes a second, `--uid` a user.

    Returns 0 after SIGTERM.
    """
    return guarded(argv, _hold)


def guarded(argv: Sequence[str], work: Work) -> int:
    """Put the guard up that `argv` asks for, then do `work`, which gives every privilege up and reports `ready`.

    Returns its status, or 1 with a line on standard error. SIGTERM, SIGINT and SIGCHLD are blocked.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
    try:
        return work(raise_guard(_parse_arguments(argv)), _report_ready)
    except (HolderError, PrivilegeError, ValueError, OSError, subprocess.SubprocessError) as error:
        print(f"holder: {error}", file=sys.stderr, flush=True)
        return 1


def _hold(_guard: Guard, ready: Callable[[], None]) -> int:
    drop_all_privileges(_NOBODY, _NOBODY)
    ready()
    _sleep_until_told()
    return 0


def _report_ready() -> None:
    print(READY, flush=True)


def raise_guard(guard: Guard) -> Guard:
    """Apply the rules of `guard` and our own subnets in this network namespace; returns both. Raises HolderError."""
    addresses = json.loads(_tool(("ip", "-j", "address", "show")))
    routes = json.loads(_tool(("ip", "-j", "route", "show"))) + json.loads(
        _tool(("ip", "-6", "-j", "route", "show"))
    )
    own = own_networks(addresses, routes)
    guard = replace(guard, own=tuple(ipaddress.ip_network(one) for one in own))
    _tool(("nft", "-f", "-"), stdin=render_ruleset(guard))
    problems = verify_ruleset(json.loads(_tool(("nft", "-j", "list", "table", "inet", TABLE))), guard)
    if problems:
        raise HolderError("the kernel holds other rules: " + "; ".join(problems))
    return guard


def own_networks(addresses: Iterable[Mapping[str, Any]], routes: Iterable[Mapping[str, Any]]) -> list[str]:
    """The subnets of our interfaces and every gateway, from `ip -j address` and `ip -j route`. Pure.

    Addresses of our own within them stay reachable, because packets to those pass lo.
    """
    interfaces = [
        info for link in addresses if link.get("ifname") != "lo" for info in link.get("addr_info", ())
    ]
    subnets = {
        str(ipaddress.ip_interface(f"{one['local']}/{one['prefixlen']}").network) for one in interfaces
    }
    hops = [hop for route in routes for hop in (route, *route.get("nexthops", ()))]
    gateways = {hop["gateway"] for hop in hops if "gateway" in hop}
    gateways |= {hop["via"]["host"] for hop in hops if "via" in hop}
    return sorted(subnets | {str(ipaddress.ip_network(gateway)) for gateway in gateways})


def _parse_arguments(argv: Sequence[str]) -> Guard:
    parser = argparse.ArgumentParser(prog="holder", allow_abbrev=False)
    parser.add_argument("--dns", action="append", default=[])
    parser.add_argument("--allow", action="append", default=[])
    parser.add_argument("--rate", type=int, default=0)
    parser.add_argument("--uid", type=int, default=0)
    arguments = parser.parse_args(argv)
    return Guard.parse(dns=arguments.dns, allow=arguments.allow, rate=arguments.rate, uid=arguments.uid)


def _tool(argv: tuple[str, ...], *, stdin: str = "") -> str:
    done = subprocess.run(
        argv,
        input=stdin,
        capture_output=True,
        text=True,
        env=_ENVIRONMENT,
        timeout=_TOOL_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise HolderError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout or "[]"


def _sleep_until_told() -> None:
    """Wait for SIGTERM or SIGINT (blocked, so that none is missed) and reap whatever dies in here."""
    while signal.sigwait({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}) == signal.SIGCHLD:
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            pass
