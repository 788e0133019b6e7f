"""Checks of the network: what is knocked at stands on this machine; all else is judged by routes and rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from coding_agents.verify.judges import equal, failed, holds, not_done, nothing, unreachable
from coding_agents.verify.model import Check, Judge, Verdict

EGRESS: Final = "egress"
_ALLOW: Final = ("allow-all",)
_RESTRICTED: Final = ("restricted",)
_GUARD: Final = "the guard of the session's network namespace"
_NOTHING: Final = "there is no interface but loopback"

KINDS: Final = {
    "gateway": "the engine's machine, at its end of the session's own bridge",
    "host": "the engine's machine, at its other addresses",
    "link-local": "an address of 169.254.0.0/16, where clouds keep their metadata",
    "neighbour": "a container in another private network",
    "ipv6": "the engine's machine, at its IPv6 addresses",
}
"""Who is knocked at, by the kind of target."""

RULES: Final = {
    "metadata": ("the metadata services of clouds",
                 "169.254.169.254 tcp 80, 168.63.129.16 tcp 80, fd00:ec2::254 tcp 80"),
    "private": ("private networks", "10.0.0.1 tcp 443, 172.16.0.1 tcp 22, 192.168.0.1 udp 161"),
    "shared": ("carrier-grade NAT and benchmark ranges", "100.64.0.1 tcp 443, 198.18.0.1 tcp 80"),
    "special": ("multicast, broadcast and reserved ranges",
                "224.0.0.251 udp 5353, 255.255.255.255 udp 67, 240.0.0.1 tcp 80"),
    "loopback": ("loopback that leaves the machine, and 0.0.0.0", "127.0.0.1 tcp 80, 0.0.0.0 tcp 80"),
    "ipv6": ("unique local, link-local, mapped and tunnelled IPv6",
             "fd12::1 tcp 80, fe80::1 tcp 80, ::ffff:10.0.0.1 tcp 80, 2002:a00:1::1 tcp 80, ff02::fb udp 5353"),
    "dns": ("other servers of names than the engine's resolvers", "9.9.9.9 udp 53, 1.1.1.1 tcp 53, 2620:fe::fe udp 53"),
    "dns-encrypted": ("DNS over TLS and QUIC", "9.9.9.9 tcp 853, 9.9.9.9 udp 853"),
}  # fmt: skip
"""What the rules of the kernel must refuse, as packets "address protocol port": none of them is ever sent."""


def network_checks() -> Iterator[Check]:
    """All of them."""
    for kind, who in KINDS.items():
        silent = kind == "ipv6"  # the kernel's own refusal does not find back to a link-local address
        for protocol in ("tcp", "udp", "icmp"):
            yield _check(f"network.{kind}-{protocol}", f"knock {protocol} {kind}", f"reach {who}, by {protocol}",
                         _GUARD, unreachable(silent=silent), modes=_ALLOW, baseline=True)  # fmt: skip
        yield _check(f"network.{kind}-restricted", f"knock tcp {kind}", f"reach {who}", _NOTHING,
                     unreachable(), modes=_RESTRICTED)  # fmt: skip
    for name, (what, packets) in RULES.items():
        yield _check(f"network.rules-{name}", f"rules {name}", f"the kernel's rules let through to {what}: {packets}",
                     _GUARD, nothing("let through"), modes=_ALLOW)  # fmt: skip
    yield _check("network.rules", "rules", "find any packet that the kernel's rules let through against the plan",
                 f"{_GUARD}, read back from the kernel", nothing("let through"), modes=_ALLOW)  # fmt: skip
    yield _check("network.incoming", "incoming", "be reached from the engine's machine, listening at all addresses",
                 _GUARD, unreachable(silent=True), modes=_ALLOW)  # fmt: skip
    yield _check("network.interfaces", "interfaces", "find an interface but loopback, or a route",
                 "no network was asked for", equal({"interfaces": ["lo"], "routes": []}, "there are"),
                 modes=_RESTRICTED)  # fmt: skip
    yield _check("network.raw-sockets", "change network", "open raw and packet sockets, set marks",
                 "no capabilities; the seccomp profile", not_done("packet", "raw icmp", "raw tcp", "raw ipv6", "mark"),
                 baseline=True)  # fmt: skip
    yield _check("network.rules-change", "change network", "list, flush and delete the rules of the namespace",
                 "no capabilities", not_done("flush", "list", "table", "iptables"))  # fmt: skip
    yield _check("network.routes-change", "change network", "change routes, addresses, links and forwarding",
                 "no capabilities; a read-only /proc/sys",
                 not_done("route", "rule", "address", "link", "down", "forward"), baseline=True)  # fmt: skip
    yield _check("network.ports", "host published", "find a port of the session that the engine publishes",
                 "there is no way to ask for one", nothing("published"))  # fmt: skip
    yield _check("network.other-session", "other session", "reach another session at its address", _GUARD,
                 unreachable(), modes=_ALLOW, full=True)  # fmt: skip


def _check(id: str, evidence: str, tried: str, stopped_by: str, judge: Judge, **more: Any) -> Check:
    more.setdefault("baseline", False)
    return Check(
        id=id, group=EGRESS, evidence=evidence, tried=tried, stopped_by=stopped_by, judge=judge, **more
    )


def full_checks() -> Iterator[Check]:
    """What takes longer than a quick run has: bombs, in a small session made of a hostile image."""
    once: dict[str, Any] = {"modes": ("small",), "full": True, "baseline": False}
    container = "container-and-kernel"
    yield Check(id="limits.fork-bomb", group=container, evidence="bomb", tried="fork without end",
                stopped_by="the pids cgroup", judge=_bomb, **once)  # fmt: skip
    yield Check(id="limits.memory-bomb", group=container, evidence="memory bomb",
                tried="take four times the memory that the session has", stopped_by="the memory cgroup",
                judge=holds(lambda end: end in ("killed", "refused"), "the program"), **once)  # fmt: skip
    yield Check(id="limits.host-answers", group=container, evidence="host answers",
                tried="keep the host from answering meanwhile", stopped_by="the pids, memory and cpu cgroups",
                judge=holds(lambda seconds: seconds < 5, "seconds it took"), **once)  # fmt: skip
    yield Check(id="limits.work-survives", group="return-path", evidence="bombed work",
                tried="lose the work of a session by bombs", stopped_by="the host decides that work is saved",
                judge=holds(bool, "it did not come"), **once)  # fmt: skip
    yield Check(id="images.entry-point", group="custom-images", evidence="image entry point",
                tried="ENTRYPOINT and CMD of the image", stopped_by="the launcher's own entry point",
                judge=nothing("it ran"), **once)  # fmt: skip
    yield Check(id="images.health-check", group="custom-images", evidence="image health check",
                tried="HEALTHCHECK of the image, which would run before the gate opens",
                stopped_by="--no-healthcheck", judge=nothing("there is"), **once)  # fmt: skip
    yield Check(id="images.labels", group="custom-images", evidence="image labels",
                tried="LABEL that names another session", stopped_by="identity by engine id and nonce",
                judge=nothing("taken"), **once)  # fmt: skip


def _bomb(found: Any) -> Verdict:
    if found["refused"] == "EAGAIN":
        return Verdict("passed", f"refused after {int(found['children'])} processes")
    return failed(f"{found['children']} processes were allowed")
