"""`coding-agents allowlist`, through click as a user runs it: files and sessions are changed whole or not at all."""

from __future__ import annotations

import io
import json
import shlex
import threading
from pathlib import Path
from typing import Any

import pytest

from coding_agents.app import allowlist as use_case
from coding_agents.audit.log import open_log
from coding_agents.cli.allowlist import command
from coding_agents.cli.context import AppContext
from coding_agents.cli.output import Output
from coding_agents.config.load import load_settings
from coding_agents.errors import ConfigError, SessionStateError, UsageError
from coding_agents.model.audit import AuditEvent, RecordType
from coding_agents.network.allowlist import FILE, Egress
from coding_agents.supervisor.egress_kept import read_egress, write_egress
from coding_agents_guest.egress.explain import request_of
from support.host import host_environment
from support.sessions import session_record

_ID = "0123456789ab"


class Cli:
    def __init__(self, home: Path) -> None:
        self.env = host_environment(home, cwd=home)
        self.file = self.env.config_dir / FILE
        self.err = ""

    def __call__(self, *words: str) -> str:
        out, err = io.StringIO(), io.StringIO()
        try:
            command.main(list(words), standalone_mode=False, obj=AppContext(self.env, Output(out, err)))
        finally:
            self.err = err.getvalue()
        return out.getvalue()

    @property
    def text(self) -> str:
        return self.file.read_text() if self.file.exists() else ""

    def session(self, network: str = "squid", **kept: Any) -> Path:
        store = AppContext(self.env).store
        directory: Path = store.create(_ID)
        store.save(session_record(_ID, name="demo-x", network=network, phase="stopped"))
        if network == "squid":
            write_egress(directory, Egress(**{"opened": {"builtin": ("a.example",)}, **kept}))
        return directory


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def test_rules_are_added_in_their_one_spelling_and_what_a_person_wrote_stays(cli: Cli) -> None:
    cli("add", "API.example:8443", "*.b.example", "api.example:8443")
    assert cli.text.endswith("api.example:8443\n*.b.example\n")
    assert cli.text.startswith("#")
    cli.file.write_text("# mine\nc.example # why\r\n\nlast.example")
    cli("add", "c.example", "d.example")
    assert cli.text == "# mine\nc.example # why\n\nlast.example\nd.example\n"
    cli("add", "d.example")
    assert "already" in cli.err
    cli("remove", "C.example")
    assert cli.text == "# mine\n\nlast.example\nd.example\n"


@pytest.mark.parametrize(
    "wrong",
    ["10.0.0.1", "https://a.example/x", "*", "a.example\n*.evil.example", "", "a.example # x", "--help x"],
)
def test_with_one_mistake_nothing_is_changed(cli: Cli, wrong: str) -> None:
    cli("add", "a.example")
    before = cli.text
    for verb in ("add", "remove"):
        with pytest.raises(UsageError):
            cli(verb, "--", "a.example", "b.example", wrong)
        assert cli.text == before


def test_what_is_not_there_is_not_removed_and_nothing_else_is(cli: Cli) -> None:
    with pytest.raises(UsageError, match=r"github"):
        cli("remove", "github.com")  # of the built-in list
    cli("add", "a.example")
    with pytest.raises(UsageError, match=r"b\.example"):
        cli("remove", "a.example", "b.example")
    assert "a.example\n" in cli.text


def test_a_file_with_a_mistake_is_not_touched(cli: Cli) -> None:
    cli.file.parent.mkdir(parents=True)
    cli.file.write_text("a.example\n10.0.0.1\n")
    for words in (("add", "b.example"), ("remove", "a.example"), ("show",), ("explain", "a.example")):
        with pytest.raises(ConfigError, match=r":2: not a rule"):
            cli(*words)
    assert cli.text == "a.example\n10.0.0.1\n"


def test_those_who_add_at_once_lose_nothing(cli: Cli) -> None:
    threads = [
        threading.Thread(target=use_case.add, args=(cli.env, None, [f"h{number}.example"]))
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {f"h{number}.example" for number in range(12)} <= set(cli.text.split())


def test_one_session_can_be_allowed_more(cli: Cli) -> None:
    directory = cli.session(closed={"settings": ("*.shut.example",)})
    cli("add", "--session", "demo-x", "b.example", "B.example", "x.shut.example")
    assert read_egress(directory).added == ("b.example", "x.shut.example")
    assert not cli.file.exists()
    assert cli("explain", "--session", "demo-x", "https://b.example") == "allowed by session:b.example\n"
    assert cli("explain", "--session", "demo-x", "https://x.shut.example").startswith(
        "refused: a rule closes this host"
    )
    shown = json.loads(cli("show", "--session", "demo-x", "--json"))
    assert {"rule": "*.shut.example", "effect": "close", "source": "settings"} in shown
    assert {"rule": "b.example", "effect": "allow", "source": "session"} in shown
    cli("remove", "--session", "demo-x", "b.example", "x.shut.example")
    assert read_egress(directory).added == ()


def test_a_session_of_another_mode_has_no_list(cli: Cli) -> None:
    cli.session("restricted")
    for words in (("add", "a.example"), ("remove", "a.example"), ("show",), ("explain", "a.example")):
        with pytest.raises(SessionStateError, match="keeps no such list"):
            cli(*words[:1], "--session", "demo-x", *words[1:])


def test_explain_needs_no_session_and_sends_nothing(cli: Cli) -> None:
    cli("add", "*.a.example")
    told = json.loads(cli("explain", "http://x.a.example/y", "--json"))
    assert (told["allowed"], told["rule"]) == (True, "user:*.a.example")
    told = json.loads(cli("explain", "https://a.example", "--json"))
    assert (told["allowed"], told["reason"]) == (False, "not-listed")
    assert any("names below it" in note for note in told["notes"])
    assert cli("explain", "https://10.0.0.1/").startswith("refused: addresses are refused")
    with pytest.raises(UsageError):
        cli("explain", "ftp://a.example")


def test_suggestions_are_safe_to_copy_and_never_applied(cli: Cli) -> None:
    directory = cli.session()
    with open_log(AppContext(cli.env).store.audit_log(_ID), session=_ID, time_ms=0) as log:
        for subject, method in (
            ("https://b.example:443", "CONNECT"), ("https://b.example:443", "CONNECT"), ("https://a.example:443",
            "CONNECT"),
            ("http://c.example:80/x/y", "GET"), ("http://d.example:80/a';reboot;'/x", "GET"),
            ("https://\x1b[2J.example:443", "CONNECT"),
        ):  # fmt: skip
            detail: dict[str, str | int] = {"reason": "not-listed", "method": method}
            log.note(
                AuditEvent(RecordType.EGRESS, "proxy", "denied", subject=subject, detail=detail), time_ms=1
            )
    lines = cli("suggest", "demo-x").splitlines()
    assert [shlex.split(line, comments=True) for line in lines] == [
        ["https://b.example"],
        ["GET http://c.example/x/"],
    ]
    assert json.loads(cli("suggest", "demo-x", "--json")) == [
        {"rule": "https://b.example", "times": 2}, {"rule": "GET http://c.example/x/", "times": 1},
    ]  # fmt: skip
    assert read_egress(directory).added == ()
    assert not cli.file.exists()
    cli("add", "--session", "demo-x", "https://b.example", "GET http://c.example/x/")
    assert cli("suggest", "demo-x") == ""


def test_where_an_organisation_manages_the_list_nobody_adds_to_it(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = cli.session(managed=True, added=("b.example",))
    cli("add", "mine.example")
    org = tmp_path / "org.toml"
    org.write_text('managed = ["network.allow"]\n[network]\nallow = ["theirs.example"]\n')
    monkeypatch.setitem(load_settings.__kwdefaults__, "organisation_file", org)
    for words in (("c.example",), ("--session", "demo-x", "c.example")):
        with pytest.raises(UsageError, match="your organisation manages"):
            cli("add", *words)
    assert read_egress(directory).added == ("b.example",)
    rules = use_case.rules_of(cli.env, None)
    allowed = [host for host in ("mine.example", "theirs.example") if rules.decide(request_of(host)).allowed]
    assert allowed == ["theirs.example"]
    assert cli("explain", "--session", "demo-x", "b.example").startswith("refused")
