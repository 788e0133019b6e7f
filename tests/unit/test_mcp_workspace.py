"""A repository's `[mcp_servers.*]` tables: what is taken, what is refused, and where the reason points."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.mcp.references import MalformedReferenceError, references, settle
from coding_agents.mcp.schema import MAX_ITEMS, MAX_SERVERS, MAX_TEXT, check_server
from coding_agents.mcp.workspace_file import PLACES, parse_workspace_file
from coding_agents.model.mcp import McpServer

OURS, SHARED = PLACES
GOOD = """\
title = "a site"        # of others

[mcp_servers.tracker]
command = "python3"
args = ["tools/tracker.py", "--fast"]
env = { TRACKER_URL = "${TRACKER_URL:-http://127.0.0.1:1}", TOKEN = "${TRACKER_TOKEN}" }

[mcp_servers."docs"]
url = "https://docs.example/mcp"
bearer_token_env_var = "DOCS_TOKEN"
enabled = false

[mcp_servers.docs.headers]
X-Team = "red"
"""


def problems(table: str, *, file: str = OURS) -> list[str]:
    parsed = parse_workspace_file(table.encode(), file=file)
    assert parsed.servers == ()
    return [finding.describe() for finding in parsed.findings]


def test_a_good_file_becomes_values() -> None:
    parsed = parse_workspace_file(GOOD.encode(), file=SHARED)
    assert parsed.findings == ()
    tracker, docs = parsed.servers
    env = {"TRACKER_URL": "${TRACKER_URL:-http://127.0.0.1:1}", "TOKEN": "${TRACKER_TOKEN}"}
    assert tracker == McpServer(
        name="tracker", command="python3", args=("tools/tracker.py", "--fast"), env=env
    )
    assert docs == McpServer(
        name="docs",
        url="https://docs.example/mcp",
        headers={"X-Team": "red"},
        bearer_token_env_var="DOCS_TOKEN",
        enabled=False,
    )


@pytest.mark.parametrize("content", ["", "[params]\nx = 1\n", "this is [not toml", "\xff", "x = '''"])
def test_the_files_of_others_are_ignored_in_silence(content: str) -> None:
    parsed = parse_workspace_file(content.encode("latin-1"), file=SHARED)
    assert (parsed.servers, parsed.findings) == ((), ())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("[mcp_servers.a]\ncomand = 'x'", "mcp.toml:2: mcp_servers.a.comand: unknown key (did you mean 'command'?)"),
        ("[mcp_servers.a]\ncommand = 'x'\ncwd = '/'", "mcp.toml:3: mcp_servers.a.cwd: unknown key (known keys: comm"),
        ("[mcp_servers.a]\n\ncommand = 3", "mcp.toml:3: mcp_servers.a.command: is not a text"),
        ("[mcp_servers.a]\ncommand = 'x'\nargs = 'y'", "mcp.toml:3: mcp_servers.a.args: is not a list"),
        ("[mcp_servers.a]\ncommand = 'x'\nargs = [1]", "mcp.toml:3: mcp_servers.a.args: is not a list"),
        ("[mcp_servers.a]\ncommand = 'x'\n[mcp_servers.a.env]\nA = 1", "mcp.toml:3: mcp_servers.a.env: is not a table"),
        ("[mcp_servers.a]\ncommand = 'x'\n[mcp_servers.a.env]\nB = '1'\n'A-B' = '1'",
         "mcp.toml:5: mcp_servers.a.env.A-B: is not the name of an environment variable"),
        ("[mcp_servers.a]", "mcp.toml:1: mcp_servers.a: needs either a command or a url"),
        ("[mcp_servers.a]\ncommand = 'x'\nurl = 'https://h'", "mcp_servers.a: needs either a command or a url"),
        ("[mcp_servers.a]\ncommand = 'x'\nheaders = { A = 'b' }", "mcp_servers.a.headers: is not for a server with a"),
        ("[mcp_servers.a]\nurl = 'https://h'\nargs = ['b']", "mcp_servers.a.args: is not for a server with a url"),
        ("[mcp_servers.a]\nurl = 'file:///etc/passwd'", "mcp.toml:2: mcp_servers.a.url: is not an http or https addr"),
        ("[mcp_servers.a]\nurl = 'https://u:p@h/'", "mcp.toml:2: mcp_servers.a.url: holds"),
        ("[mcp_servers.a]\nurl = 'https://[::1'", "mcp_servers.a.url: is not an http"),
        ("[mcp_servers.a]\nurl = 'https://h'\nheaders = { 'A:B' = 'c' }", "headers.A:B: is not the name of a header"),
        ("[mcp_servers.a]\nurl = 'https://h'\nheaders = { A = \"c\\r\\nB\" }", "headers.A: holds the character U+000"),
        ("[mcp_servers.a]\ncommand = \"x\\u001b[2J\"", "mcp_servers.a.command: holds the character U+001B"),
        ("[mcp_servers.a]\ncommand = 'x'\nargs = [\"a\\u202eb\"]", "mcp_servers.a.args: holds the character U+202E"),
        ("[mcp_servers.a]\ncommand = '${X}'", "mcp_servers.a.command: holds a reference"),
        ("[mcp_servers.a]\ncommand = 'x'\nargs = ['${X']", "mcp_servers.a.args: '${' without its '}'"),
        ("[mcp_servers.a]\ncommand = 'x'\nargs = ['${1X}']", "mcp_servers.a.args: ${1X} is neither"),
        (f"[mcp_servers.a]\ncommand = 'x'\nargs = ['ghp_{'a' * 36}']", "mcp_servers.a.args: holds a GitHub token"),
        ("[mcp_servers.a]\nurl = 'https://h'\nbearer_token_env_var = 'a b'", "is not the name of a variable"),
        ("[mcp_servers.\"a b\"]\ncommand = 'x'", "mcp.toml:1: mcp_servers.a b: the name 'a b' is not of letters"),
        ("[mcp_servers.\"../a\"]\ncommand = 'x'", "the name '../a' is not of"),
        ("[mcp_servers.a__b]\ncommand = 'x'", "the name 'a__b' is not of"),
        ("[mcp_servers.\"a\\n[x]\"]\ncommand = 'x'", "the name 'a\\n[x]' is not of"),
        ("[mcp_servers.\"\"]\ncommand = 'x'", "the name '' is not of"),
        (f"[mcp_servers.{'a' * 33}]\ncommand = 'x'", "is not of letters"),
        ("mcp_servers = 3", "mcp_servers: is not a table of servers"),
        ("[mcp_servers]\na = 3", "mcp_servers.a: is not a table"),
        ("[mcp_servers.a]\ncommand = 'x", "mcp.toml: is not valid TOML: Expected"),
        ("[mcp_servers.a]\ncommand = x", "mcp.toml:2: is not valid TOML"),
        ("x = " + "[" * 5000, "is not valid TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(table: str, message: str) -> None:
    found = problems(table)
    assert len(found) == 1
    assert message in found[0]
    assert found[0].isprintable()


def test_a_file_with_too_much_is_refused() -> None:
    table = "\n".join(f"[mcp_servers.s{n}]\ncommand = 'x'" for n in range(MAX_SERVERS + 1))
    assert "holds 33 servers" in problems(table)[0]
    assert problems(f"[mcp_servers.a]\ncommand = '{'x' * (MAX_TEXT + 1)}'")
    assert problems(f"[mcp_servers.a]\ncommand = 'x'\nargs = {['y'] * (MAX_ITEMS + 1)}")


def test_names_that_only_case_tells_apart_would_be_one_file() -> None:
    parsed = parse_workspace_file(b"[mcp_servers.a]\ncommand='x'\n[mcp_servers.A]\ncommand='y'", file=OURS)
    assert [server.command for server in parsed.servers] == ["x"]
    assert "in case alone" in parsed.findings[0].text


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.text(), st.dictionaries(st.sampled_from(["command", "args", "env", "url", "headers", "x"]), _ANY))
def test_property_any_table_gets_a_server_or_problems(name: str, table: dict[str, object]) -> None:
    server, found = check_server(name, table)
    assert (server is None) == bool(found)
    assert all(one.key.isprintable() for one in found)


@given(st.binary(max_size=300))
def test_property_any_file_gets_an_answer(data: bytes) -> None:
    parse_workspace_file(b"[mcp_servers.a]\n" + data, file=OURS)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("no reference, $HOME, $", ()),
        ("a${A}b${B_1:-x y}", (("A", None), ("B_1", "x y"))),
        ("${A:-}", (("A", ""),)),
        ("${A:-${B}", (("A", "${B"),)),
    ],
)
def test_references_are_found(text: str, found: tuple[tuple[str, str | None], ...]) -> None:
    assert references(text) == found


@pytest.mark.parametrize("text", ["${", "${A", "${}", "${A-b}", "${input:x}", "x${ A}"])
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(MalformedReferenceError):
        references(text)


def test_a_value_is_whole_or_its_server_needs_a_secret() -> None:
    server = McpServer(name="a", command="x", args=("${A:-one}", "${B}"), env={"E": "${C:-}", "F": "${D:-d}"})
    settled = settle(server, {"D": "a secret", "B": "another"}.get)
    assert settled.server.args == ("one", "${B}")
    assert settled.server.env == {"E": "", "F": "${D:-d}"}
    assert (settled.needs, settled.missing) == (("B", "D"), ())
    assert "a secret" not in repr(settled)
    assert settle(server, {}.get).missing == ("B",)
