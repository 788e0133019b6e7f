"""Where rules come from, and what is proposed from refusals: read strictly, and never wider than what was asked for."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.errors import ConfigError, UsageError
from coding_agents.model.audit import AuditEvent, AuditRecord, RecordType, make_record
from coding_agents.network.allowlist import (
    MAX_BYTES,
    Egress,
    builtin_rules,
    effective,
    parse_line,
    parse_rules,
    read_rules,
)
from coding_agents.network.suggest import suggest
from coding_agents_guest.egress.rules import Request, Rules, parse_rule


def texts(text: str) -> list[str]:
    return [rule.text for rule in parse_rules(text, "user", file="f")]


def test_a_file_has_a_rule_a_line_each_once() -> None:
    assert texts("# head\n\n a.example # why\r\n*.B.example\na.EXAMPLE\nGET http://c.example/x/\n") == [
        "a.example", "*.b.example", "GET http://c.example/x/",
    ]  # fmt: skip
    assert texts("") == texts("#\n\n  \n") == []


@pytest.mark.parametrize(
    "line", ["10.0.0.1", "a.example b.example c", "a.example\0", "\ufeffa.example", "a.example\x1b[2J", "*"]
)
def test_one_mistake_and_the_file_is_none_with_its_line_named(line: str) -> None:
    with pytest.raises(ConfigError, match=r"f:3: not a rule") as caught:
        texts(f"a.example\n\n{line}\nb.example\n")
    assert caught.value.message.isprintable()
    assert caught.value.details.isprintable()


@given(st.text(max_size=200))
def test_any_text_is_a_list_or_a_mistake_in_a_line(text: str) -> None:
    try:
        found = parse_rules(text, "user", file="f")
    except ConfigError:
        return
    assert len({rule.text for rule in found}) == len(found)


def test_a_file_that_is_not_there_has_no_rules_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "list"
    assert read_rules(path, "user") == ()
    path.write_bytes(b"a.example\n\xff\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_rules(path, "user")
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="MiB"):
        read_rules(path, "user")
    with pytest.raises(ConfigError, match="cannot read"):
        read_rules(tmp_path, "user")


def test_a_hundred_thousand_entries_are_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("".join(f"host-{number}.example\n" for number in range(100_000)))
    began = time.process_time()
    assert len(read_rules(path, "user")) == 100_000
    assert time.process_time() - began < 2.5  # less than one on an idle machine


def test_a_rule_on_a_command_line_is_explained() -> None:
    assert parse_line("A.example:8443", "user").text == "a.example:8443"
    with pytest.raises(UsageError, match="not a rule") as caught:
        parse_line("https://a.example/x", "user")
    assert "http://" in caught.value.details


def test_our_own_list_is_sound_and_names_no_registry() -> None:
    built = builtin_rules()
    assert {rule.source for rule in built} == {"builtin"}
    assert all(not rule.port and not rule.path for rule in built)


def _allowed(rules: Rules, host: str) -> str:
    return rules.decide(Request("https", host, 443)).rule


def test_the_rules_in_force_are_those_of_all_sources_with_what_is_closed_on_top() -> None:
    opened = {"builtin": ("a.example",), "settings": ("b.example",)}
    egress = Egress(opened, {"settings": ("*.c.example", "a.example")}, ("x.c.example", "d.example"))
    rules = effective(egress, [parse_rule("e.example", "user"), parse_rule("y.c.example", "user")])
    assert _allowed(rules, "b.example") == "settings:b.example"
    assert _allowed(rules, "d.example") == "session:d.example"
    assert _allowed(rules, "e.example") == "user:e.example"
    for host in ("a.example", "x.c.example", "y.c.example"):
        assert not rules.decide(Request("https", host, 443)).allowed
    assert effective(Egress(), []).opened == ()


# --- proposals ---------------------------------------------------------------------------------------------------


def record(subject: str, reason: str = "not-listed", outcome: str = "denied", **detail: Any) -> AuditRecord:
    event = AuditEvent(
        RecordType.EGRESS, "proxy", outcome, subject=subject, detail={"reason": reason, **detail}
    )  # type: ignore[arg-type]
    return make_record(event, seq=1, prev="0" * 64, time_ms=1, session="0" * 12)


def proposed(*records: AuditRecord) -> dict[str, int]:
    return {one.rule: one.times for one in suggest(records)}


def test_a_rule_is_proposed_for_what_was_refused_for_want_of_one_the_most_wanted_first() -> None:
    others = [
        record(f"https://{reason}.example:443", reason) for reason in ("sni", "address", "closed", "budget")
    ]
    wanted = [record("https://a.example:443"), *[record("https://b.example:8443", "port")] * 3]
    found = suggest([*wanted, *others])
    assert [(one.rule, one.times) for one in found] == [
        ("https://b.example:8443", 3),
        ("https://a.example", 1),
    ]


def test_plain_requests_get_their_methods_and_common_directory() -> None:
    below = [
        record("http://a.example:80/debian/d/x", method="GET"),
        record("http://a.example:80/debian/p/y", method="HEAD"),
    ]
    assert proposed(*below) == {"GET,HEAD http://a.example/debian/": 2}
    assert proposed(
        record("http://a.example:80/x", method="GET"), record("http://a.example:80/y/z", method="GET")
    ) == {"GET http://a.example": 2}


@pytest.mark.parametrize(
    "subject",
    [
        "", "x", "https://", "https://:443", "ftp://a.example:21", "https://10.0.0.1:443", "https://a.example", "https://[::1]:443",
        "https://a.example:99999", "https://[", "https://a.example.:443", "https://\\xe4.example:443", "https://*.a.example:443",
        "http://a.example:80/x/%2e%2e/y", "http://a.example:80/a';reboot;'/x", "http://a.example:80/$(reboot)/x",
        "http://a.example:80/`x`/y", "http://a.example:80/x\n/y", "http://a.example:80/../x/y",
    ],
)  # fmt: skip
def test_what_is_no_plain_request_is_not_proposed(subject: str) -> None:
    assert proposed(record(subject, method="GET")) == {}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["http", "https"]), st.sampled_from(["a.example", "b.example"]) | st.text(max_size=12),
            st.sampled_from([80, 443, 8080]), st.text(alphabet="abc/._-;'$%2e ", max_size=14) | st.text(max_size=8),
            st.sampled_from(["GET", "POST"]) | st.text(max_size=4),
        ),
        max_size=8,
    )
)  # fmt: skip
def test_a_proposal_allows_what_was_asked_for_and_nothing_beside_its_host_port_and_methods(
    wanted: list[Any],
) -> None:
    found = suggest(
        record(f"{scheme}://{host}:{port}/{path}", method=method)
        for scheme, host, port, path, method in wanted
    )
    for one in found:
        rule = parse_rule(one.rule, "user")
        assert Rules([rule]).decide(one.request).allowed
        assert not rule.below
        assert shlex.split(shlex.quote(one.rule)) == [one.rule]
        assert rule.scheme
        assert not rule.path or rule.path.endswith("/")
