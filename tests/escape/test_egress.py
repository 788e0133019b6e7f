"""A hostile agent attacks the way out of mode `squid`: it is refused, that is recorded, and nothing arrives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from coding_agents.attacks import egress
from support.engines import EngineUnderTest
from support.escape import Captive, capture, fresh_repo
from support.internet import ALSO, GOOD, ZONE, Internet, find_internet
from support.product import Product, wait_for

pytestmark = [pytest.mark.engine, pytest.mark.escape]

ALLOWED = (
    "good.example", "*.example.test", "private.example", "metadata.example", "cgnat.example", "benchmark.example",
    "loopback.example", "zero.example", "mapped.example", "ula.example", "mixed.example", "rebind.example",
    "nowhere.example", "GET,HEAD http://elsewhere.example/debian/",
)  # fmt: skip


@pytest.fixture(scope="module")
def world(engine: EngineUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    yield from find_internet(tmp_path_factory.mktemp("internet"))


@pytest.fixture(scope="module")
def captive(owner: Product, world: Internet) -> Iterator[Captive]:
    config = owner.home / ".config/coding-agents/config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text('[network]\nallow = ["GET,HEAD http://elsewhere.example/debian/"]\n')
    (config.parent / "network-allowlist.txt").write_text("".join(f"{rule}\n" for rule in ALLOWED))
    session = capture(owner, fresh_repo(owner), "--network-proxy", "squid")
    yield session
    owner.run("remove", "--force", session.name, status=None)


def connect(place: str, *headers: str, hello: str | None = None, **more: Any) -> dict[str, Any]:
    lines = (f"CONNECT {place} HTTP/1.1", f"Host: {place}", *headers, "", "")
    return {"head": "\r\n".join(lines), "hello": hello, **more}


def plain(target: str, *headers: str, method: str = "GET") -> dict[str, Any]:
    return {"head": "\r\n".join((f"{method} {target} HTTP/1.1", *headers, "Connection: close", "", ""))}


def requests_in(session: Captive) -> list[dict[str, Any]]:
    return [one for one in session.product.audit(session.name) if one["type"] == "egress"]


def test_what_is_listed_is_reached_and_recorded(captive: Captive, world: Internet) -> None:
    assert '"you": "good.example"' in captive.attack(egress.fetch, "good.example", "/hello?token=secret")
    assert world.arrived("http", host="good.example", path="/hello?token=secret", sni="good.example", at=GOOD)
    answers = captive.attack(
        egress.ask, [plain("http://elsewhere.example/debian/dists?key=secret", "Host: elsewhere.example")]
    )
    assert (answers[0]["status"], "elsewhere.example" in answers[0]["came"]) == (200, True)
    assert world.arrived(
        "http", host="elsewhere.example", method="GET", path="/debian/dists?key=secret", at=ALSO
    )

    def told() -> Any:
        found = {one["subject"]: one for one in requests_in(captive) if one["outcome"] == "allowed"}
        return found if len(found) >= 2 else None

    records = wait_for(told, "the records", timeout_s=2)
    tunnel, page = records["https://good.example:443"], records["http://elsewhere.example:80/debian/dists"]
    assert (tunnel["source"], tunnel["rule"], tunnel["detail"]["sni"]) == (
        "proxy",
        "user:good.example",
        "good.example",
    )
    assert (page["rule"], page["detail"]["method"]) == (
        "settings:GET,HEAD http://elsewhere.example/debian/",
        "GET",
    )
    assert all(one["detail"]["up"] > 100 and one["detail"]["down"] > 100 for one in (tunnel, page))
    assert "secret" not in str(records)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unlisted": (connect("other.example:443", hello="other.example"), "not-listed"),
    "apex of a wildcard": (connect("example.test:443"), "not-listed"),
    "below a host": (connect("sub.good.example:443", hello="sub.good.example"), "not-listed"),
    "other port": (connect("good.example:22", first="SSH-2.0-x\r\n"), "port"),
    "http port of a tunnel": (connect("good.example:80", first="GET / HTTP/1.1\r\n\r\n"), "port"),
    "address": (connect(f"{GOOD}:443", hello="good.example"), "ip-literal"),
    "private address": (connect("10.79.0.2:443"), "ip-literal"),
    "decimal address": (connect("185597952:443"), "ip-literal"),
    "hex address": (connect("0x0b4f000a:443"), "ip-literal"),
    "octal address": (connect("013.0117.0.012:443"), "ip-literal"),
    "short address": (connect("11.79.10:443"), "ip-literal"),
    "IPv6 address": (connect("[2606:4700::1]:443"), "ip-literal"),
    "mapped address": (connect("[::ffff:10.79.0.2]:443"), "ip-literal"),
    "trailing dot": (connect("good.example.:443", hello="good.example"), "bad-host"),
    "userinfo": (connect("good.example@other.example:443"), "bad-host"),
    "underscore": (connect("good_example.example:443"), "bad-host"),
    "NUL": (connect("good.example\0.other.example:443"), "malformed"),
    "space": (connect("good.example :443"), "malformed"),
    "escapes": (connect("good%2eexample:443"), "bad-host"),
    "non-ASCII": (connect("g\xf6\xf6d.example:443"), "malformed"),
    "another Host": ({"head": "CONNECT good.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n"}, "malformed"),
    "two Hosts": (connect("good.example:443", "Host: other.example:443"), "malformed"),
    "a body": (connect("good.example:443", "Content-Length: 5"), "malformed"),
    "folded header": (connect("good.example:443", "X: a\r\n b"), "malformed"),
    "bare newline": ({"head": "CONNECT good.example:443 HTTP/1.1\nHost: good.example\r\n\r\n"}, "malformed"),
    "private name": (connect("private.example:443", hello="private.example"), "address"),
    "metadata name": (connect("metadata.example:443", hello="metadata.example"), "address"),
    "CGNAT name": (connect("cgnat.example:443"), "address"),
    "benchmark name": (connect("benchmark.example:443"), "address"),
    "loopback name": (connect("loopback.example:443"), "address"),
    "name of 0.0.0.0": (connect("zero.example:443"), "address"),
    "name of a mapped address": (connect("mapped.example:443"), "address"),
    "name of a local IPv6 address": (connect("ula.example:443"), "address"),
    "public and private": (connect("mixed.example:443", hello="mixed.example"), "address"),
    "no such name": (connect("nowhere.example:443"), "unresolved"),
    "plain, unlisted": (plain("http://other.example/", "Host: other.example"), "not-listed"),
    "plain, method": (plain("http://elsewhere.example/debian/x", "Host: elsewhere.example", method="POST"), "method"),
    "plain, path": (plain("http://elsewhere.example/other", "Host: elsewhere.example"), "path"),
    "plain, climbing": (plain("http://elsewhere.example/debian/../other", "Host: elsewhere.example"), "path"),
    "plain, climbing by escapes": (plain("http://elsewhere.example/debian/%2e%2e/o", "Host: x.example"), "path"),
    "plain, address": (plain("http://10.79.0.2/", "Host: 10.79.0.2"), "ip-literal"),
    "plain, private name": (plain("http://private.example/", "Host: private.example"), "address"),
    "plain, other Host": (plain("http://other.example/debian/", "Host: elsewhere.example"), "not-listed"),
}  # fmt: skip


def test_what_is_not_listed_or_could_mean_something_else_is_refused(
    captive: Captive, world: Internet
) -> None:
    answers = dict(
        zip(REFUSED, captive.attack(egress.ask, [one for one, _ in REFUSED.values()]), strict=True)
    )
    assert {name: answer["reason"] for name, answer in answers.items()} == {
        name: reason for name, (_, reason) in REFUSED.items()
    }
    assert all(answer["status"] in (400, 403, 502) for answer in answers.values())
    for host in ("other.example", "private.example", "metadata.example", "sub.good.example"):
        assert not world.arrived("http", host=host)


CHANGE = b"\x14\x03\x03\x00\x01\x01"  # what a client in compatibility mode puts before a second hello
HIDDEN = {
    "another name in TLS": (connect("good.example:443", hello="other.example"), "sni"),
    "no name in TLS": (connect("good.example:443", hello=""), "no-sni"),
    "a hidden name in TLS": (connect("good.example:443", hello="good.example", ech=True), "ech"),
    "another name in a second hello": (
        connect(
            "good.example:443",
            first=(
                egress.client_hello("good.example") + CHANGE + egress.client_hello("other.example")
            ).decode("latin-1"),
        ),
        "sni",
    ),
    "no TLS": (connect("good.example:443", first="GET / HTTP/1.1\r\nHost: good.example\r\n\r\n"), "not-tls"),
}


def test_a_tunnel_leads_where_its_tls_client_says(captive: Captive, world: Internet) -> None:
    before = len(world.arrived("tls")), len(requests_in(captive))
    answers = captive.attack(egress.ask, [one for one, _ in HIDDEN.values()])
    assert [(one["status"], one["came"]) for one in answers] == [(200, "tls: alert")] * len(HIDDEN)

    def told() -> Any:
        found = [one["detail"]["reason"] for one in requests_in(captive)[before[1] :]]
        return found if len(found) == len(HIDDEN) else None

    assert wait_for(told, "the records", timeout_s=4) == [reason for _, reason in HIDDEN.values()]
    assert len(world.arrived("tls")) == before[0] + len(HIDDEN)  # connected to, and told nothing
    assert not world.arrived("http", sni="other.example")


def test_a_name_that_changes_its_address_is_judged_each_time(captive: Captive, world: Internet) -> None:
    """Resolved once for each request: the address that was judged is the one that is connected to."""
    answers = captive.attack(egress.ask, [connect("rebind.example:443", hello="rebind.example")] * 6)
    assert {(one["status"], one["reason"]) for one in answers} == {(200, ""), (403, "address")}
    assert not [one for one in world.arrived("tls") if one["at"] != GOOD and one["at"] != ALSO]


def test_without_the_proxy_there_is_no_way(captive: Captive, world: Internet) -> None:
    asked = len(world.arrived("dns"))
    found = captive.attack(egress.without_the_proxy, ["good.example"], [GOOD, "10.79.0.2", "2606:4700::1"])
    assert "done" not in found.values(), found
    assert len(world.arrived("dns")) == asked
    assert captive.attack_behind_the_gate(egress.without_the_proxy, [], ["169.254.169.254"]) == {
        f"{kind} 169.254.169.254": "OSError 101" for kind in ("tcp", "udp", "dns")
    }  # no route at all
    assert set(ZONE)  # what it could have reached


def test_the_proxy_itself_offers_nothing(captive: Captive) -> None:
    manager = [
        plain(target, f"Host: {host}")
        for target, host in (
            ("/squid-internal-mgr/info", "127.0.0.1:3128"),
            ("http://127.0.0.1:3129/squid-internal-mgr/info", "127.0.0.1"),
            ("http://coding-agents-proxy/squid-internal-mgr/info", "x"), ("cache_object://localhost/info", "x"),
            ("ftp://good.example/", "good.example"), ("/", "127.0.0.1:3128"), ("http://localhost:3131/", "localhost"),
        )
    ]  # fmt: skip
    answers = captive.attack(
        egress.ask, [*manager, plain("http://good.example/", "Host: good.example", method="TRACE")]
    )
    assert all(one["status"] >= 400 or not one["status"] for one in answers[:-1]), answers
    assert not [one for one in answers if "Squid Object Cache" in one["came"]]


def test_whoever_took_squid_over_gets_nowhere(captive: Captive) -> None:
    """Beside the proxy's own user nobody in its container can open a connection."""
    script = f"import socket; socket.create_connection(('{GOOD}', 443), 5); print('open')"
    argv = ("exec", "-u", "{}", captive.holder, "python3", "-IS", "-c", script)

    def tried(user: str) -> str:
        return captive.product.engine_run(*(user if word == "{}" else word for word in argv), check=False)

    assert tried("1002:1002") == "open\n"
    assert "open" not in tried("13:13")
    assert "open" not in tried("0:0")
