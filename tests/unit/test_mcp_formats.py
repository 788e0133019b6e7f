"""Servers in each CLI's words: against golden files, against injection, and against what a CLI would make of them."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.images.data import data_dir
from coding_agents.mcp.formats import LIMITS, convert, hooks, inexpressible, requirements
from coding_agents.mcp.references import filled, settle
from coding_agents.mcp.seam import NotStarted, Packaged, Run, as_run
from coding_agents.model.mcp import FORMATS, McpFormat, McpPlace, McpServer, place_problems

DATA = Path(__file__).parent / "data/mcp"
SERVERS = (
    McpServer(
        name="tracker",
        command="python3",
        args=(
            "/opt/coding-agents-config/servers/tracker/tools/tracker.py",
            'say "hi"',
            "C:\\x",
            "two\nlines",
        ),
        env={"MODE": "fast", "EMPTY": ""},
    ),
    McpServer(name="plain-1", command="/usr/bin/env"),
    McpServer(name="docs", url="https://docs.example/mcp?x=1", headers={"X-Team": "red", "a.b": 'qu"ote'}),
    McpServer(name="bare", url="http://127.0.0.1:8000/mcp"),
)


@pytest.mark.parametrize("format", FORMATS)
def test_the_list_is_as_the_cli_was_measured_to_read_it(format: McpFormat) -> None:
    golden = DATA / f"{format}.{'toml' if format == 'codex' else 'json'}"
    assert convert(SERVERS, format).decode() == golden.read_text("utf-8")


@pytest.mark.parametrize("format", FORMATS)
def test_an_empty_list_is_one_that_the_cli_reads(format: McpFormat) -> None:
    text = convert((), format).decode()
    assert not tomllib.loads(text) if format == "codex" else json.loads(text)


@pytest.mark.parametrize("format", ["codex", "copilot", "gemini"])
def test_an_image_allows_by_itself_what_a_session_without_servers_is_allowed(format: McpFormat) -> None:
    managed = data_dir("images") / f"agents/{format}/managed"
    if format == "gemini":
        assert (managed / "settings.json").read_bytes() == convert((), format)
    else:
        assert (managed / LIMITS[format]).read_bytes() == requirements((), format)
    for path, content in hooks(format).items():
        assert (managed / path).read_bytes() == content


def test_copilot_starts_servers_by_name_and_never_a_repositorys_hooks() -> None:
    assert json.loads(requirements(SERVERS[:2], "copilot")) == {
        "allowManagedHooksOnly": True,
        "allowedMcpServers": [{"serverName": "tracker"}, {"serverName": "plain-1"}],
    }
    none = json.loads(requirements((), "copilot"))
    assert (none["allowedMcpServers"], none["allowManagedMcpServersOnly"]) == ([], True)


def test_codex_starts_servers_by_name_and_what_they_are() -> None:
    limits = tomllib.loads(requirements((SERVERS[0], SERVERS[3]), "codex").decode())
    assert limits["allow_managed_hooks_only"] is True
    assert limits["mcp_servers"] == {
        "tracker": {"identity": {"command": "python3"}},
        "bare": {"identity": {"url": "http://127.0.0.1:8000/mcp"}},
    }
    assert tomllib.loads(requirements((), "codex").decode())["mcp_servers"] == {}


def test_words_and_variables_of_a_session() -> None:
    place = McpPlace(
        file="x.json", format="gemini", args=("--l={file}", "--only={servers}"), env={"F": "{file}"}
    )
    given = place.as_given("/c/x.json", ("a", "b"), nobody="?")
    assert given == (("--l=/c/x.json", "--only=a,b"), {"F": "/c/x.json"})
    # What forbids others is there without a list, too.
    assert place.as_given("/c/x.json", (), nobody="?") == (("--l=/c/x.json", "--only=?"), {"F": "/c/x.json"})
    assert place.as_given("", (), nobody="?") == (("--only=?",), {})
    assert place_problems(place) == []
    both = McpPlace(file="x.json", format="gemini", args=("{file}{servers}",))
    assert len(place_problems(both)) == 1


_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_SERVERS = st.builds(
    McpServer,
    name=st.just("it"),
    command=_TEXT,
    args=st.lists(_TEXT, max_size=3).map(tuple),
    env=st.dictionaries(_TEXT, _TEXT, max_size=3),
)


@given(_SERVERS)
def test_property_no_text_leaves_its_place_in_codex_toml(server: McpServer) -> None:
    tables = tomllib.loads(convert((server,), "codex").decode())
    env = {"env": dict(server.env)} if server.env else {}
    said = {"command": server.command, "args": list(server.args), "required": True, **env}
    assert tables == {"mcp_servers": {"it": said}}


@given(_SERVERS)
def test_property_no_text_leaves_its_place_in_json(server: McpServer) -> None:
    said = json.loads(convert((server,), "claude"))["mcpServers"]["it"]
    assert said == {
        "type": "stdio",
        "command": server.command,
        "args": list(server.args),
        "env": dict(server.env),
    }


def test_toml_injection_stays_a_text() -> None:
    evil = 'x"\n[mcp_servers.evil]\ncommand = "touch"\nrequired = true\n#'
    text = convert((McpServer(name="a", command=evil, args=(evil,), env={evil: evil}),), "codex").decode()
    assert list(tomllib.loads(text)["mcp_servers"]) == ["a"]
    assert [line for line in text.splitlines() if line.startswith("[")] == ["[mcp_servers.a]"]


@pytest.mark.parametrize(
    ("format", "word", "refused"),
    [
        ("claude", "${HOME}", True),
        ("claude", "$HOME", False),
        ("codex", "${HOME} $HOME {env:HOME}", False),
        ("copilot", "$HOME", True),
        ("copilot", "${HOME}", True),
        ("gemini", "$HOME", True),
        ("gemini", "5 $", False),
        ("opencode", "{env:HOME}", True),
        ("opencode", "{file:/etc/passwd}", True),
        ("opencode", "$HOME ${HOME}", False),
    ],
)
def test_a_value_that_a_cli_would_replace_is_not_given_to_it(
    format: McpFormat, word: str, refused: bool
) -> None:
    for server in (
        McpServer(name="a", command="x", args=(word,)),
        McpServer(name="a", command="x", env={"A": word}),
        McpServer(name="a", url="https://h", headers={"A": word}),
    ):
        assert bool(inexpressible(server, format)) == refused


RELAY = ("-IS", "/opt/coding-agents/guest.pyz", "mcp", "a")


def run(server: McpServer, secrets: dict[str, str], files: dict[str, str]) -> Run | NotStarted:
    return as_run(settle(server, secrets.get), files, copied_to="/c", format="codex")


def test_the_seam_moves_files_to_their_copies() -> None:
    server = McpServer(name="a", command="./tools/a", args=("tools/b.py", "tools/b.pyc", "${X:-y}"))
    got = run(server, {}, {"./tools/a": "tools/a", "tools/b.py": "tools/b.py"})
    moved = McpServer(name="a", command="/c/a/tools/a", args=("/c/a/tools/b.py", "tools/b.pyc", "y"))
    assert got == Run(moved)


def test_the_seam_gives_the_agent_a_relay_in_the_place_of_a_server_with_a_secret() -> None:
    server = McpServer(
        name="a", command="python3", args=("b.py", "${X:-y}"), env={"T": "${T}", "N": "${N:-n}"}
    )
    got = run(server, {"T": "s3cr3t"}, {"b.py": "b.py"})
    assert isinstance(got, Run)
    assert got.listed == McpServer(name="a", command="/usr/bin/python3", args=RELAY)
    assert got.apart is not None
    assert got.apart.args == ("/c/a/b.py", "y")
    assert got.apart.env == {"T": "${T}", "N": "n"}
    assert "s3cr3t" not in repr(got)
    assert filled(got.apart, {"T": "s3cr3t"}).env == {"T": "s3cr3t", "N": "n"}


RUN = Packaged("/opt/mcp/0/run", 2)


def test_the_seam_runs_installed_packages_in_the_place_of_their_runner() -> None:
    server = McpServer(name="a", command="npx", args=("-y", "server", "tools/b.json", "-y"))
    got = as_run(
        settle(server, {}.get), {"tools/b.json": "tools/b.json"}, copied_to="/c", format="codex", packaged=RUN
    )
    assert got == Run(McpServer(name="a", command="/opt/mcp/0/run", args=("/c/a/tools/b.json", "-y")))


def test_installed_packages_are_given_a_secret_and_a_runner_is_not() -> None:
    server = program("npx", "-y", "server", "--x")
    got = as_run(settle(server, {"TOKEN": "s"}.get), {}, copied_to="/c", format="codex", packaged=RUN)
    assert isinstance(got, Run)
    assert got.apart is not None
    assert (got.apart.command, got.apart.args, got.listed.args) == ("/opt/mcp/0/run", ("--x",), RELAY)
    for args, reason in (
        (("/workspace",), "its args names /workspace"),
        (("${TOKEN}",), "a secret in its args"),
    ):
        asked = settle(program("npx", "-y", "server", *args), {"TOKEN": "s"}.get)
        refused = as_run(asked, {}, copied_to="/c", format="codex", packaged=RUN)
        assert isinstance(refused, NotStarted)
        assert reason in refused.reason


def program(command: str, *args: str, **env: str) -> McpServer:
    return McpServer(name="a", command=command, args=args, env={"T": "${TOKEN}", **env})


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (McpServer(name="a", command="x", enabled=False), "it is disabled"),
        (program("x", U="${OTHER}"), "needs a secret (TOKEN, OTHER), and OTHER is not set"),
        (program("x", "${TOKEN}"), "needs a secret (TOKEN), and it wants a secret in its args"),
        (program("npx", "-y", "server"), "needs a secret (TOKEN), and npx fetches what it runs"),
        (program("/usr/bin/uvx", "server"), "needs a secret (TOKEN), and uvx fetches what it runs"),
        (program("env", "npx", "server"), "needs a secret (TOKEN), and env starts another program"),
        (program("bash", "-ec", "npx server"), "needs a secret (TOKEN), and the words of bash -c"),
        (program("./x"), "needs a secret (TOKEN), and its command './x' is no file that was copied"),
        (program("/workspace/x"), "needs a secret (TOKEN), and its command names /workspace"),
        (program("python3", "/workspace/tools"), "needs a secret (TOKEN), and its args names /workspace"),
        (program("python3", "../../../workspace"), "needs a secret (TOKEN), and its args names /workspace"),
        (program("node", "--require=/tmp/x.js"), "needs a secret (TOKEN), and its args names /tmp"),
        (
            program("python3", "-m", "x", PYTHONPATH="/usr/x:/home/agentuser"),
            "needs a secret (TOKEN), and its env.PY",
        ),
        (program("node", "/proc/self/cwd/x"), "needs a secret (TOKEN), and its args names /proc"),
        (program("node", "/var/run/coding-agents/x"), "needs a secret (TOKEN), and its args names /var/run"),
    ],
)
def test_the_seam_gives_no_secret_to_what_the_agent_can_change_or_read(
    server: McpServer, reason: str
) -> None:
    got = run(server, {"TOKEN": "s3cr3t"}, {})
    assert isinstance(got, NotStarted)
    assert got.reason.startswith(reason)
    assert "s3cr3t" not in repr(got)


def address(url: str, **headers: str) -> McpServer:
    return McpServer(name="a", url=url, headers={"A": "${TOKEN}", **headers})


def test_the_seam_gives_the_agent_our_address_in_the_place_of_one_that_wants_a_secret() -> None:
    for url in (
        "https://h.example/mcp?x=${TOKEN}",
        "http://127.0.0.1:9/",
        "http://[::1]/",
        "http://localhost/",
    ):
        got = run(address(url), {"TOKEN": "s3cr3t"}, {})
        assert isinstance(got, Run)
        assert got.listed == McpServer(name="a", url="http://127.0.0.1:8098/a")
        assert got.apart == address(url)


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (address("http://h.example/mcp"), "http would show it"),
        (address("http://127.0.0.1.h.example/"), "http would show it"),
        (address("https://h.example/#x"), "its url has a fragment"),
        (address("https://h.example/", Host="x"), "its header Host is one that"),
        (
            address("https://h.example/", **{"transfer-encoding": "x"}),
            "its header transfer-encoding is one that",
        ),
    ],
)
def test_the_seam_sends_no_secret_where_others_could_read_it(server: McpServer, reason: str) -> None:
    got = run(server, {"TOKEN": "s3cr3t"}, {})
    assert isinstance(got, NotStarted)
    assert got.reason.startswith(f"needs a secret (TOKEN), and {reason}")


@pytest.mark.parametrize(
    "server",
    [
        program("node", "/usr/lib/server/index.js", "--url=https://h.example/home/tmp"),
        program("python3", "-m", "server", A="https://api.example:443/run"),
        program("bash", "--color", "run.sh"),
        program("/opt/server/bin"),
    ],
)
def test_the_seam_starts_what_is_in_the_image(server: McpServer) -> None:
    assert isinstance(run(server, {"TOKEN": "s3cr3t"}, {}), Run)
