"""The guard as data: what is open, and what the check finds in rules as nft 1.0.6 printed them."""

from __future__ import annotations

import copy
import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.network.guard import counted
from coding_agents_guest import holder
from coding_agents_guest.guard import TABLE, Endpoint, Guard, render_ruleset, verify_ruleset
from coding_agents_guest.holder import HolderError, own_networks, raise_guard
from coding_agents_guest.nftmodel import Packet, UnknownRulesetError, parse_chains
from coding_agents_guest.privileges import remaining_privileges

GUARD = Guard.parse(
    dns=["10.0.0.2", "fd00::53"],
    allow=["10.1.2.3:443", "[fd00::1]:8443"],
    own=["11.5.0.0/24", "2a00:1:2:3::/64"],
)
# `nft -j list table` after loading render_ruleset(GUARD).
LISTED = json.loads((Path(__file__).parent / "data/guard-nft-1.0.6.json").read_text())
RULES = [entry["rule"] for entry in LISTED["nftables"] if "rule" in entry]
ACCEPT = {"accept": None}


@pytest.mark.parametrize(
    ("address", "protocol", "port", "is_open"),
    [
        ("1.1.1.1", "tcp", 443, True),
        ("1.1.1.1", "udp", 53, False),
        ("1.1.1.1", "tcp", 53, False),
        ("1.1.1.1", "tcp", 853, False),
        ("1.1.1.1", "udp", 853, False),
        ("1.1.1.1", "udp", 54, True),
        ("1.1.1.1", "other", 53, True),
        ("2606:4700::1111", "udp", 53, False),
        ("2606:4700::1111", "tcp", 853, False),
        ("10.0.0.2", "tcp", 853, False),
        ("2606:4700::1111", "tcp", 443, True),
        ("0.0.0.0", "tcp", 80, False),
        ("10.0.0.1", "tcp", 80, False),
        ("10.0.0.2", "udp", 53, True),
        ("10.0.0.2", "tcp", 53, True),
        ("10.0.0.2", "tcp", 443, False),
        ("10.1.2.3", "tcp", 443, True),
        ("10.1.2.3", "udp", 443, False),
        ("10.1.2.3", "tcp", 444, False),
        ("11.5.0.1", "tcp", 80, False),
        ("100.64.0.1", "tcp", 80, False),
        ("100.128.0.1", "tcp", 80, True),
        ("127.0.0.1", "tcp", 80, False),
        ("168.63.129.16", "tcp", 80, False),
        ("169.254.169.254", "tcp", 80, False),
        ("172.15.255.255", "tcp", 80, True),
        ("172.16.0.0", "tcp", 80, False),
        ("172.31.255.255", "tcp", 80, False),
        ("172.32.0.0", "tcp", 80, True),
        ("192.168.1.1", "tcp", 80, False),
        ("198.18.0.1", "tcp", 80, False),
        ("224.0.0.251", "udp", 5353, False),
        ("255.255.255.255", "udp", 67, False),
        ("::1", "tcp", 80, False),
        ("::ffff:1.1.1.1", "tcp", 80, False),
        ("64:ff9b::a00:1", "tcp", 80, False),
        ("2001:db8::1", "tcp", 80, False),
        ("2002:a00:1::", "tcp", 80, False),
        ("2a00:1:2:3::1", "tcp", 80, False),
        ("2a00:1:2:4::1", "tcp", 80, True),
        ("fd00::53", "udp", 53, True),
        ("fd00:ec2::254", "tcp", 80, False),
        ("fe80::1", "tcp", 80, False),
        ("fec0::1", "tcp", 80, False),
        ("ff02::1", "udp", 5353, False),
    ],
)
def test_what_is_open_and_what_the_kernels_rules_accept(
    address: str, protocol: str, port: int, is_open: bool
) -> None:
    parsed = ipaddress.ip_address(address)
    assert GUARD.is_open(parsed, protocol, port) is is_open
    chains = parse_chains(LISTED, family="inet", table=TABLE)
    assert chains["output"].accepts(Packet(parsed, protocol, port)) is is_open
    assert not chains["input"].accepts(Packet(parsed, protocol, port))


@given(st.ip_addresses(), st.sampled_from(["tcp", "udp", "other"]), st.integers(1, 65535))
def test_the_rules_agree_with_the_intent_everywhere(address: Any, protocol: str, port: int) -> None:
    chains = parse_chains(LISTED, family="inet", table=TABLE)
    assert chains["output"].accepts(Packet(address, protocol, port)) is GUARD.is_open(address, protocol, port)


@given(st.ip_addresses(v=4), st.booleans())  # half of them special ones
def test_special_addresses_are_never_open(plain: ipaddress.IPv4Address, mapped: bool) -> None:
    address: Any = ipaddress.IPv6Address(int(plain) | 0xFFFF << 32) if mapped else plain
    if not address.is_global or address.is_multicast or mapped:
        assert not Guard().is_open(address, "tcp", 443)


def test_the_listed_rules_are_right_and_a_larger_ruleset_too() -> None:
    assert verify_ruleset(LISTED, GUARD) == []
    other = {"table": {"family": "ip", "name": "nat", "handle": 1}}
    assert verify_ruleset({"nftables": [other, *LISTED["nftables"]]}, GUARD) == []


def test_rules_of_another_guard_are_found_out() -> None:
    assert "tcp to 10.1.2.3 port 443 is open" in verify_ruleset(LISTED, Guard())
    more = Guard.parse(dns=["10.0.0.9"], allow=["10.9.9.9:80"])
    assert "udp to 10.0.0.9 port 53 is refused" in verify_ruleset(LISTED, more)
    assert "tcp to 10.9.9.9 port 80 is refused" in verify_ruleset(LISTED, more)


@pytest.mark.parametrize("position", range(len(RULES)))
def test_every_missing_rule_is_found_or_opens_nothing(position: int) -> None:
    listed = _without(RULES[position])
    problems = verify_ruleset(listed, GUARD)
    text = json.dumps(RULES[position]["expr"])
    harmless = '"lo"' in text or '"ct"' in text or "nd-" in text or text.startswith('[{"counter"')
    assert bool(problems) != harmless


@given(st.data())
def test_every_additional_acceptance_is_found_unless_it_was_open(data: st.DataObject) -> None:
    address = data.draw(st.ip_addresses())
    field = {"payload": {"protocol": "ip" if address.version == 4 else "ip6", "field": "daddr"}}
    match: list[dict[str, Any]] = [{"match": {"op": "==", "left": field, "right": str(address)}}]
    port = data.draw(st.none() | st.integers(1, 65535))
    if port is not None:
        left = {"payload": {"protocol": "tcp", "field": "dport"}}
        match.append({"match": {"op": "==", "left": left, "right": port}})
    chain = data.draw(st.sampled_from(["input", "forward", "output"]))
    rule = {"family": "inet", "table": TABLE, "chain": chain, "expr": [*match, ACCEPT]}
    # Without a port it opens DNS, too, which is open nowhere but at resolvers, and there nothing else is.
    was_open = chain == "output" and port is not None and GUARD.is_open(address, "tcp", port)
    assert bool(verify_ruleset(_with_first(rule), GUARD)) is not was_open


@pytest.mark.parametrize(
    "expression",
    [
        {"jump": {"target": "elsewhere"}},
        {
            "match": {
                "op": "==",
                "left": {"payload": {"protocol": "ip", "field": "saddr"}},
                "right": "1.1.1.1",
            }
        },
        {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": "@set"}},
        {"match": {"op": "<", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 80}},
        {"match": {"op": "==", "left": {"meta": {"key": "oif"}}, "right": "eth0"}},
        {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["new"]}},
        {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": 132}},
        {"queue": None},
        {},
    ],
)
def test_what_is_not_understood_is_a_problem(expression: dict[str, Any]) -> None:
    rule = {"family": "inet", "table": TABLE, "chain": "output", "expr": [expression, ACCEPT]}
    assert verify_ruleset(_with_first(rule), GUARD) != []


def test_a_refusal_by_hop_limit_is_not_taken_for_one() -> None:
    hop_limit = {"payload": {"protocol": "ip6", "field": "hoplimit"}}
    expression = [{"match": {"op": "==", "left": hop_limit, "right": 255}}, {"drop": None}]
    rule = {"family": "inet", "table": TABLE, "chain": "output", "expr": expression}
    assert verify_ruleset(_with_first(rule), GUARD) == ["refusal that depends on the hop limit"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"policy": "accept"}, "policy drop"),
        ({"hook": "prerouting"}, "policy drop"),
        ({"type": "nat"}, "policy drop"),
        ({"name": "other"}, "is missing"),
    ],
)
def test_changed_chains_are_found(change: dict[str, str], problem: str) -> None:
    listed = copy.deepcopy(LISTED)
    chain = next(
        entry["chain"] for entry in listed["nftables"] if entry.get("chain", {}).get("name") == "input"
    )
    chain.update(change)
    assert problem in " ".join(verify_ruleset(listed, GUARD))


@pytest.mark.parametrize(
    "listed",
    [
        {},
        {"nftables": []},
        {"nftables": [{}]},
        {"nftables": [{"table": {"family": "inet", "name": TABLE, "flags": ["dormant"]}}]},
        {"nftables": [{"table": {"family": "inet", "name": TABLE}}]},
        {"nftables": [*LISTED["nftables"], {"map": {"family": "inet", "table": TABLE, "name": "m"}}]},
        {"nftables": [*LISTED["nftables"], {"chain": {"family": "inet", "table": TABLE, "name": "more"}}]},
    ],
)
def test_other_structures_are_problems(listed: dict[str, Any]) -> None:
    assert verify_ruleset(listed, GUARD) != []


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_no_document_breaks_the_parser(value: Any) -> None:
    with pytest.raises(UnknownRulesetError):
        parse_chains({"nftables": value}, family="inet", table=TABLE)


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.1",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "fd00::1:80",
        "[10.0.0.1]:80",
        "a:80",
        "0.0.0.0:80",
        ":80",
        "[fe80::1%eth0]:80",
        "10.0.0.1:８０",
    ],
)
def test_malformed_endpoints_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Endpoint.parse(text)


def test_each_rule_has_its_line_and_the_table_is_replaced_whole() -> None:
    lines = render_ruleset(GUARD).splitlines()
    assert lines[:3] == [f"table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} {{"]
    assert all(line.count("accept") + line.count("reject") <= 1 for line in lines)


def test_own_networks_are_the_subnets_and_gateways() -> None:
    addresses = [
        {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "prefixlen": 8}]},
        {
            "ifname": "eth0",
            "addr_info": [{"local": "11.5.0.7", "prefixlen": 24}, {"local": "2a00::7", "prefixlen": 64}],
        },
    ]
    routes = [
        {"dst": "default", "gateway": "12.0.0.1", "dev": "eth0"},
        {
            "dst": "13.0.0.0/8",
            "nexthops": [{"gateway": "14.0.0.1"}, {"via": {"family": "inet6", "host": "2b00::1"}}],
        },
        {"dst": "11.5.0.0/24", "dev": "eth0"},
    ]
    assert own_networks(addresses, routes) == [
        "11.5.0.0/24", "12.0.0.1/32", "14.0.0.1/32", "2a00::/64", "2b00::1/128",
    ]  # fmt: skip


NOTHING_LEFT = (
    "Name:\tpython3\nUid:\t65534\t65534\t65534\t65534\nGid:\t65534\t65534\t65534\t65534\nGroups:\t \n"
    + "".join(f"Cap{name}:\t{'0' * 16}\n" for name in ("Inh", "Prm", "Eff", "Bnd", "Amb"))
    + "NoNewPrivs:\t1\n"
)


def test_a_holder_under_whom_the_kernel_holds_other_rules_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands between it and the kernel: what it reads back counts, not that `nft` ended well."""

    def tool(argv: tuple[str, ...], *, stdin: str = "") -> str:
        return json.dumps(LISTED) if argv[0] == "nft" and not stdin else "[]"

    monkeypatch.setattr(holder, "_tool", tool)
    raise_guard(GUARD)
    with pytest.raises(HolderError, match=r"10\.0\.0\.2 port 53 is open"):
        raise_guard(Guard())


def test_unprivileged_status_is_accepted() -> None:
    assert remaining_privileges(NOTHING_LEFT, uid=65534, gid=65534) == []


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("Uid:\t65534\t65534\t65534\t65534", "Uid:\t65534\t65534\t0\t65534"),
        ("Gid:\t65534\t65534\t65534\t65534", "Gid:\t0\t65534\t65534\t65534"),
        ("Groups:\t ", "Groups:\t0 "),
        ("CapBnd:\t" + "0" * 16, "CapBnd:\t0000000000001000"),
        ("CapInh:\t" + "0" * 16 + "\n", ""),
        ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
    ],
)
def test_any_remaining_privilege_is_named(line: str, other: str) -> None:
    problems = remaining_privileges(NOTHING_LEFT.replace(line, other), uid=65534, gid=65534)
    assert [problem.split(" ")[0] for problem in problems] == [line.split(":")[0]]


def _without(rule: dict[str, Any]) -> dict[str, Any]:
    return {"nftables": [entry for entry in LISTED["nftables"] if entry.get("rule") is not rule]}


def _with_first(rule: dict[str, Any]) -> dict[str, Any]:
    entries = list(LISTED["nftables"])
    entries.insert(next(n for n, entry in enumerate(entries) if "rule" in entry), {"rule": rule})
    return {"nftables": entries}


LIMITED = Guard.parse(dns=["10.0.0.2"], rate=2_560_000)


def _limited(
    *,
    over: int = 2_560_000,
    at: int = 1,
    inverted: bool = True,
    chains: tuple[str, ...] = ("input", "output"),
) -> Any:
    """The listed rules with a limit at place `at` of each of `chains`, in the words of nft 1.0.6."""
    listed = copy.deepcopy(LISTED)
    unit = ("kbytes", over // 1024) if over % 1024 == 0 else ("bytes", over)
    expr = [
        {"limit": {"rate": unit[1], "burst": 128, "per": "second", "inv": inverted, "rate_unit": unit[0]}},
        {"counter": {"packets": 0, "bytes": 0}},
        {"drop": None},
    ]
    for chain in chains:
        places = [i for i, one in enumerate(listed["nftables"]) if one.get("rule", {}).get("chain") == chain]
        rule = {"family": "inet", "table": TABLE, "chain": chain, "handle": 99, "expr": expr}
        listed["nftables"].insert(places[0] + at, {"rule": rule})
    return listed


def _limits(listed: Any, guard: Guard = LIMITED) -> list[str]:
    return [problem for problem in verify_ruleset(listed, guard) if "limit" in problem]


def test_a_limit_of_the_rate_is_rendered_before_all_but_lo() -> None:
    lines = [line.strip() for line in render_ruleset(LIMITED).splitlines()]
    limit = "limit rate over 2560000 bytes/second burst 131072 bytes counter drop"
    assert [lines[i - 1] for i, line in enumerate(lines) if line == limit] == [
        'iif "lo" accept',
        'oif "lo" accept',
    ]
    assert "limit rate" not in render_ruleset(GUARD)


def test_a_limit_of_the_rate_is_read_back() -> None:
    assert _limits(_limited()) == []
    assert _limits(_limited(over=1_000_001), Guard.parse(dns=["10.0.0.2"], rate=1_000_001)) == []
    assert verify_ruleset(_limited(), GUARD) == []  # it opens nothing, and shuts nothing for good


@pytest.mark.parametrize(
    ("listed", "wrong"),
    [
        (LISTED, ["input", "output"]),
        (_limited(over=2_561_024), ["input", "output"]),
        (_limited(chains=("input",)), ["output"]),
        (_limited(at=2), ["input", "output"]),  # after what lets known flows pass
    ],
)
def test_a_limit_that_does_not_hold_is_found(listed: Any, wrong: list[str]) -> None:
    assert _limits(listed) == [
        f"chain {name!r} does not limit what passes to 2560000 bytes a second" for name in wrong
    ]


def test_a_limit_that_lets_pass_what_is_over_it_is_not_understood() -> None:
    assert "unknown limit" in verify_ruleset(_limited(inverted=False), LIMITED)[0]


def test_the_kernels_counters_tell_what_passed_the_limit_and_what_it_dropped() -> None:
    listed = _limited()
    assert counted(listed) == (0, 0)
    for entry in listed["nftables"]:
        for one in entry.get("rule", {}).get("expr", []):
            if "counter" in one:
                one["counter"]["bytes"] = 100
    reads = [rule for rule in listed["nftables"] if "rule" in rule and "counter" in json.dumps(rule)]
    output = [rule for rule in reads if rule["rule"]["chain"] == "output"]
    assert counted(listed) == (100 * (len(output) - 1), 100)
    for nonsense in ({}, {"nftables": [{"rule": {}}]}, {"nftables": [7]}):
        with pytest.raises(ValueError, match="not rules of nft"):
            counted(nonsense)


PROXIED = Guard.parse(
    dns=["10.0.0.2", "fd00::53"],
    allow=["10.1.2.3:443", "[fd00::1]:8443"],
    own=["11.5.0.0/24", "2a00:1:2:3::/64"],
    uid=1002,
)
# As nft 1.0.6 lists `meta skuid != 1002 counter reject`.
OTHERS = [
    {"match": {"op": "!=", "left": {"meta": {"key": "skuid"}}, "right": 1002}},
    {"counter": {"packets": 0, "bytes": 0}},
    {"reject": {"type": "icmpx", "expr": "port-unreachable"}},
]


def _proxied(place: int) -> Any:
    """The listed rules with one more in the chain `output`: after so many of it."""
    listed = copy.deepcopy(LISTED)
    at = [
        number
        for number, entry in enumerate(listed["nftables"])
        if entry.get("rule", {}).get("chain") == "output"
    ]
    rule = {"family": "inet", "table": TABLE, "chain": "output", "handle": 99, "expr": OTHERS}
    listed["nftables"].insert(at[place], {"rule": rule})
    return listed


def test_one_user_alone_opens_connections() -> None:
    """In the network of a proxy: whoever took squid over gets nowhere, and engines ask the resolvers as root."""
    lines = [line.strip() for line in render_ruleset(PROXIED).splitlines()]
    others = lines.index("meta skuid != 1002 counter reject")
    assert lines.index("ip daddr 10.0.0.2 meta l4proto { tcp, udp } th dport 53 accept") < others
    assert others < lines.index("ip daddr 10.1.2.3 tcp dport 443 accept")
    public, resolver = ipaddress.ip_address("1.1.1.1"), ipaddress.ip_address("10.0.0.2")
    assert [PROXIED.is_open(public, "tcp", 443, uid) for uid in (1002, None, 0, 13)] == [
        True,
        True,
        False,
        False,
    ]
    assert PROXIED.is_open(resolver, "udp", 53, 0)
    assert verify_ruleset(_proxied(4), PROXIED) == []  # after lo, known flows and both resolvers
    assert verify_ruleset(LISTED, PROXIED)[0].endswith("is open")
    assert verify_ruleset(_proxied(6), PROXIED)  # what the user listed would be open to all
    assert verify_ruleset(
        _proxied(2), PROXIED
    )  # and here nobody but the proxy's own user would ask for names
