"""Checks of network mode `squid`: what the proxy refuses, by requests that a hostile program makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from coding_agents.verify.judges import equal, failed, nothing
from coding_agents.verify.model import Check, Verdict

SQUID: Final = "squid"
_LISTED, _PRIVATE = "listed.verify.example", "private.verify.example"
_PROXY: Final = "the proxy's rules"

Tricks = dict[str, dict[str, Any]]


def listed_names() -> tuple[str, str]:
    """The names that a rule lets the session ask for: one at a private address that is open, and one at a shut port."""
    return _LISTED, _PRIVATE


def tricks(port: int, address: str) -> Tricks:
    """What is asked of the proxy, by name; `address` and `port` are those of somebody on this machine who answers."""
    listed = f"{_LISTED}:{port}"

    def connect(place: str, *headers: str, **more: Any) -> dict[str, Any]:
        return {
            "head": "\r\n".join((f"CONNECT {place} HTTP/1.1", f"Host: {place}", *headers, "", "")),
            **more,
        }

    def plain(target: str) -> dict[str, Any]:
        return {"head": f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"}

    number = int.from_bytes(bytes(map(int, address.split("."))), "big")
    return {
        "listed": connect(listed, hello=_LISTED),
        "unlisted": connect(f"other.verify.example:{port}", hello="other.verify.example"),
        "below": connect(f"below.{listed}", hello=f"below.{_LISTED}"),
        "port": connect(f"{_LISTED}:{port % 65535 + 1}", hello=_LISTED),
        "sni": connect(listed, hello="other.verify.example"),
        "no sni": connect(listed, hello=""),
        "ech": connect(listed, hello=_LISTED, ech=True),
        "no tls": connect(listed, first="SSH-2.0-verify\r\n"),
        "private name": connect(
            f"{_PRIVATE}:{port % 65535 + 1}", hello=_PRIVATE
        ),  # its rule opens no address
        "literal": connect(f"{address}:{port}", hello=_LISTED),
        "literal decimal": connect(f"{number}:{port}", hello=_LISTED),
        "literal hex": connect(f"0x{number:08x}:{port}", hello=_LISTED),
        "literal mapped": connect(f"[::ffff:{address}]:{port}", hello=_LISTED),
        "literal plain": plain(f"http://{address}:{port}/"),
        "dot": connect(f"{_LISTED}.:{port}", hello=_LISTED),
        "userinfo": connect(f"{_LISTED}@other.verify.example:{port}"),
        "nul": connect(f"{_LISTED}\0.other.verify.example:{port}"),
        "space": connect(f"{_LISTED} :{port}"),
        "newline": connect(f"{_LISTED}:{port}\nHost: other.verify.example"),
        "host header": connect(listed, "Host: other.verify.example"),
        "body": connect(listed, "Content-Length: 4"),
        "manager": plain("http://coding-agents-proxy/squid-internal-mgr/info"),
        "manager path": plain("/squid-internal-mgr/info"),
        "ftp": plain(f"ftp://{_LISTED}/"),
    }


_REFUSED: Final = {
    "unlisted": ("unlisted", "open a tunnel to a host that no rule allows", "not-listed", _PROXY),
    "below": ("below", "open a tunnel to a name below a listed one", "not-listed", _PROXY),
    "port": ("port", "open a tunnel to another port of a listed host", "port", _PROXY),
    "private-name": ("private name", "reach a private address by a listed name", "address", "each address is judged"),
    "literal": ("literal", "name an address in place of a host", "ip-literal", _PROXY),
    "literal-decimal": ("literal decimal", "name an address as one number", "ip-literal", _PROXY),
    "literal-hex": ("literal hex", "name an address in hexadecimal", "ip-literal", _PROXY),
    "literal-mapped": ("literal mapped", "name an address mapped into IPv6", "ip-literal", _PROXY),
    "literal-plain": ("literal plain", "name an address in a plain request", "ip-literal", _PROXY),
    "trailing-dot": ("dot", "name a host with a dot at its end", "bad-host", "a strict grammar"),
    "userinfo": ("userinfo", "put a listed name before an @", "bad-host", "a strict grammar"),
    "nul": ("nul", "put a NUL into a name", "malformed", "a strict grammar"),
    "space": ("space", "put a space into a target", "malformed", "a strict grammar"),
    "newline": ("newline", "put a newline into a target", "malformed", "a strict grammar"),
    "host-header": ("host header", "name two hosts in one request", "malformed", "a strict grammar"),
    "body": ("body", "send a body with a request for a tunnel", "malformed", "a strict grammar"),
}  # fmt: skip
_CUT: Final = {
    "sni": ("sni", "name another host to TLS than to the proxy (domain fronting)"),
    "no-sni": ("no sni", "name no host to TLS"),
    "ech": ("ech", "hide the host from whoever reads the ClientHello"),
    "no-tls": ("no tls", "carry something else than TLS through a tunnel"),
}  # fmt: skip
_SQUIDS: Final = {
    "manager": ("manager", "ask squid's manager"),
    "manager-path": ("manager path", "ask squid's manager by its path"),
    "ftp": ("ftp", "use squid for FTP"),
}


def proxy_checks() -> Iterator[Check]:
    """All of them; each is of mode `squid` alone."""
    yield _check("listed", "proxy listed", "reach a listed host, which must be possible", "nobody", _listed)
    for id, (name, tried, reason, wall) in _REFUSED.items():
        yield _check(id, f"proxy {name}", tried, wall, _refused(reason))
    for id, (name, tried) in _CUT.items():
        yield _check(
            id,
            f"proxy {name}",
            tried,
            "the proxy reads the ClientHello",
            _cut,
        )
    for id, (name, tried) in _SQUIDS.items():
        yield _check(id, f"proxy {name}", tried, "squid serves plain HTTP alone", _no_answer)
    yield _check("direct", "proxy direct", "go out without the proxy: names, TCP, UDP, ICMP, other resolvers",
                 "there is no interface but loopback", nothing("it worked"))  # fmt: skip
    yield _check("interfaces", "interfaces", "find an interface but loopback, or a route, beside the proxy",
                 "the proxy comes to the agent, not the agent to a network",
                 equal({"interfaces": ["lo"], "routes": []}, "there are"))  # fmt: skip
    yield _check("rules", "rules", "find a packet that the proxy's own network lets through against the plan",
                 "the kernel's rules, read back", nothing("let through"))  # fmt: skip
    yield _check("squid-user", "proxy squid user", "open a connection as the user that squid runs as",
                 "the kernel's rules: only the proxy's own user connects", equal("", "it told"))  # fmt: skip
    yield _check("recorded", "proxy recorded", "be refused without a record", "what is not recorded is not done",
                 nothing("not recorded"))  # fmt: skip


def _check(id: str, evidence: str, tried: str, stopped_by: str, judge: Any) -> Check:
    return Check(
        id=f"egress.{id}", group="egress", tried=tried, stopped_by=stopped_by, evidence=evidence, judge=judge,
        modes=(SQUID,), full=True, baseline=False,
    )  # fmt: skip


def _listed(answer: Any) -> Verdict:
    if (answer["status"], answer["came"]) == (200, "hello"):
        return Verdict("passed", "it answered")
    return failed(f"status {answer['status']}, reason {answer['reason']!r}, {answer['came'][:80]!r}")


def _refused(reason: str) -> Any:
    def judge(answer: Any) -> Verdict:
        if answer["status"] in (400, 403) and answer["reason"] == reason:
            return Verdict("passed", f"{answer['status']}: {reason}")
        return failed(f"status {answer['status']}, reason {answer['reason']!r}, {answer['came'][:80]!r}")

    return judge


def _cut(answer: Any) -> Verdict:
    """The tunnel was opened before TLS had spoken; nothing of the other end came through it."""
    if answer["status"] == 200 and answer["came"] == "tls: alert":
        return Verdict("passed", "ended by a TLS alert")
    return failed(f"status {answer['status']}, {answer['came'][:80]!r}")


def _no_answer(answer: Any) -> Verdict:
    if answer["status"] >= 400 and "Squid Object Cache" not in answer["came"]:
        return Verdict("passed", f"status {answer['status']}")
    return failed(f"status {answer['status']}, {answer['came'][:80]!r}")
