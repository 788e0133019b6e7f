"""The MCP servers of real repositories: what is found, what trusting covers, and what a session is given then."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from coding_agents.app.mcp import workbench
from coding_agents.app.mcp_session import SessionServers, session_servers
from coding_agents.cli import main
from coding_agents.credentials.secrets import Secrets
from coding_agents.gitsync.discover import discover
from coding_agents.mcp.formats import requirements
from coding_agents.model.mcp import McpFormat, McpPlace
from coding_agents.workspace.tree import Tree
from support.host import host_environment
from support.logins import put
from support.repos import git_env, make_repo

TOML = '[mcp_servers.probe]\ncommand = "python3"\nargs = ["tools/mcp/server.py", "--fast"]\n'
COPY = "/opt/coding-agents-config/servers/probe/tools/mcp/server.py"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one server, and this process standing in it as a user of the product."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    repo = make_repo(tmp_path / "shop", env=git_env(tmp_path))
    write(repo, "tools/mcp/server.py", "import helper\n")
    write(repo, "tools/mcp/helper.py", "x = 1\n")
    write(repo, ".coding-agents/mcp.toml", TOML)
    monkeypatch.chdir(repo)
    return repo


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> tuple[int, str, str]:
        status = main._run(["mcp", *words])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run


def write(repo: Path, path: str, content: str) -> Path:
    target = repo / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content)
    return target


def session(repo: Path, format: McpFormat = "claude", *, always: bool = False) -> SessionServers:
    env = host_environment(repo.parent)
    facts = discover(repo, env=env.for_git())
    return session_servers(env, facts, McpPlace(file=f"{format}.json", format=format, always=always))


def reasons(repo: Path, format: McpFormat = "claude") -> dict[str, str]:
    got = session(repo, format)
    return {left.name: left.reason for _, left in got.left}


def states(run: Run) -> dict[str, str]:
    status, out, _ = run("list", "--json")
    assert status == 0
    return {f"{one['file']}:{one['name']}": one["state"] for one in json.loads(out)}


def test_a_session_gets_the_trusted_server_from_its_copy(repo: Path, run: Run) -> None:
    assert tuple(session(repo).started) == ()
    assert session(repo).volume(McpPlace(file="claude.json", format="claude")) == {}
    assert reasons(repo)["probe"].startswith("is not trusted")
    status, _, err = run("trust", "probe", "-y")
    assert status == 0
    assert "arg      'tools/mcp/server.py'" in err
    assert "tools/mcp/helper.py" in err
    got = session(repo)
    assert (tuple(got.started), got.left) == (("probe",), ())
    files = got.volume(McpPlace(file="claude.json", format="claude"))
    assert set(files) == {
        "claude.json", "servers/probe/tools/mcp/server.py", "servers/probe/tools/mcp/helper.py",
    }  # fmt: skip
    said = json.loads(files["claude.json"][0])["mcpServers"]["probe"]
    assert said["args"] == [COPY, "--fast"]
    assert set(got.seeds()) == {f".config/{name}/mcp/config.json" for name in ("claude", "codex", "copilot")}
    assert states(run) == {".coding-agents/mcp.toml:probe": "trusted"}


def test_trust_needs_a_person(repo: Path, run: Run) -> None:
    status, _, err = run("trust", "probe")  # nobody at a terminal
    assert status == 27
    assert "nobody said yes" in err
    assert tuple(session(repo).started) == ()


def test_trust_is_taken_back(repo: Path, run: Run) -> None:
    run("trust", "probe", "-y")
    assert run("trust", "--remove", "probe")[0] == 0
    assert tuple(session(repo).started) == ()
    assert list((repo.parent / ".local/share/coding-agents/mcp").glob("*/*")) == []
    assert run("trust", "--remove", "probe")[0] == 27
    assert run("trust", "--remove", "../../x")[0] == 27


def test_trust_is_of_one_repository(repo: Path, run: Run, tmp_path: Path) -> None:
    run("trust", "probe", "-y")
    other = make_repo(tmp_path / "other", env=git_env(tmp_path))
    for name in (".coding-agents", "tools"):
        shutil.copytree(repo / name, other / name)
    assert tuple(session(other).started) == ()
    assert tuple(session(repo).started) == ("probe",)


@pytest.mark.parametrize(
    ("path", "content", "what"),
    [
        ("tools/mcp/server.py", "import os\n", "tools/mcp/server.py has changed"),
        ("tools/mcp/helper.py", "x = 2\n", "tools/mcp/helper.py has changed"),
        ("tools/mcp/new.py", "x = 2\n", "tools/mcp/new.py is new"),
        ("tools/mcp/helper.py", None, "tools/mcp/helper.py is gone"),
        (".coding-agents/mcp.toml", TOML.replace("--fast", "--evil"), "args: ("),
        (".coding-agents/mcp.toml", TOML.replace("python3", "sh"), "command: 'python3' is now 'sh'"),
        (".coding-agents/mcp.toml", TOML + 'env = { A = "b" }\n', "env: {} is now"),
    ],
)
def test_what_changes_after_trust_is_not_started(
    repo: Path, run: Run, path: str, content: str | None, what: str
) -> None:
    run("trust", "probe", "-y")
    if content is None:
        (repo / path).unlink()
    else:
        write(repo, path, content)
    assert tuple(session(repo).started) == ()
    assert reasons(repo)["probe"].startswith("has changed since it was trusted")
    assert states(run)[".coding-agents/mcp.toml:probe"] == "changed"
    assert what in run("list")[2]
    status, _, err = run("trust", "probe", "-y")
    assert (status, what in err) == (0, True)
    assert tuple(session(repo).started) == ("probe",)


def test_a_changed_mode_is_a_change(repo: Path, run: Run) -> None:
    write(repo, ".coding-agents/mcp.toml", '[mcp_servers.probe]\ncommand = "./tools/mcp/server.py"\n')
    status, _, err = run("trust", "probe", "-y")
    assert (status, "is not executable" in err) == (27, True)
    (repo / "tools/mcp/server.py").chmod(0o755)
    assert run("trust", "probe", "-y")[0] == 0
    assert session(repo).copies["servers/probe/tools/mcp/server.py"][1] is True
    (repo / "tools/mcp/server.py").chmod(0o644)
    assert tuple(session(repo).started) == ()


def test_a_copy_that_somebody_changed_is_not_run(repo: Path, run: Run) -> None:
    run("trust", "probe", "-y")
    (archive,) = (repo.parent / ".local/share/coding-agents/mcp").glob("*/probe.tar")
    archive.write_bytes(archive.read_bytes().replace(b"import helper", b"import hacked"))
    assert tuple(session(repo).started) == ()
    assert "is not what was trusted" in reasons(repo)["probe"]


def test_a_record_that_somebody_changed_is_none(repo: Path, run: Run) -> None:
    run("trust", "probe", "-y")
    (record,) = (repo.parent / ".local/share/coding-agents/mcp").glob("*/probe.json")
    trusted = record.read_text()
    record.write_text(trusted.replace('"path": "tools/mcp/helper.py"', '"path": "../../../tmp/x"'))
    assert tuple(session(repo).started) == ()
    record.write_text(trusted.replace("--fast", "--evil"))
    write(repo, ".coding-agents/mcp.toml", TOML.replace("--fast", "--evil"))
    assert tuple(session(repo).started) == ()
    record.write_text("{")
    assert states(run) == {".coding-agents/mcp.toml:probe": "untrusted"}


def test_links_are_never_followed(repo: Path, run: Run, tmp_path: Path) -> None:
    secret = write(tmp_path, "secret.txt", "a secret of the host\n")
    (repo / "tools/mcp/link.py").symlink_to(secret)
    (repo / "tools/mcp/dir").symlink_to(tmp_path)
    status, _, err = run("trust", "probe", "-y")
    assert status == 0
    assert "not copied (a link, or likely a secret): tools/mcp/link.py" in err
    assert sorted(session(repo).copies) == [
        f"servers/probe/tools/mcp/{name}.py" for name in ("helper", "server")
    ]

    (repo / "tools/mcp/server.py").unlink()
    (repo / "tools/mcp/server.py").symlink_to(secret)  # the very file that runs
    assert tuple(session(repo).started) == ()
    status, _, err = run("trust", "probe", "-y")
    assert (status, "is a symbolic link" in err) == (27, True)

    shutil.move(repo / "tools", repo / "other")
    (repo / "tools").symlink_to("other")  # a directory on the way to it: then the word names no file of ours
    assert tuple(session(repo).started) == ()
    status, _, err = run("trust", "probe", "-y")
    assert (status, "'tools', which is a symbolic link" in err) == (27, True)
    (repo / ".coding-agents").rename(repo / "moved")
    (repo / ".coding-agents").symlink_to("moved")
    assert states(run) == {}


def test_secrets_beside_a_server_are_not_copied(repo: Path, run: Run) -> None:
    write(repo, "tools/mcp/.env", "TOKEN=s3cr3t\n")
    write(repo, "tools/mcp/id_rsa", "s3cr3t\n")
    write(repo, "tools/mcp/build.log", "s3cr3t\n")
    write(repo, ".gitignore", "*.log\n")
    assert run("trust", "probe", "-y")[0] == 0
    assert all(b"s3cr3t" not in content for content, _ in session(repo).copies.values())
    write(repo, ".coding-agents/mcp.toml", TOML.replace("--fast", "tools/mcp/.env"))
    status, _, err = run("trust", "probe", "-y")
    assert (status, "most likely holds a secret" in err) == (27, True)


def test_a_server_that_is_too_large_is_refused(repo: Path, run: Run) -> None:
    with (repo / "tools/mcp/large.bin").open("wb") as file:
        os.truncate(file.fileno(), 1 << 40)  # sparse
    status, _, err = run("trust", "probe", "-y")
    assert (status, "more than 2000 files or 32 MB" in err) == (27, True)
    (repo / "tools/mcp/large.bin").unlink()
    for number in range(2001):
        (repo / f"tools/mcp/{number}").touch()
    status, _, err = run("trust", "probe", "-y")
    assert (status, "more than 2000 files or 32 MB" in err) == (27, True)


def test_a_huge_definition_is_not_read(repo: Path, run: Run) -> None:
    for path in (".coding-agents/mcp.toml", "config.toml", ".mcp.json"):
        with (repo / path).open("wb") as file:
            os.truncate(file.fileno(), 1 << 40)
    assert states(run) == {".coding-agents/mcp.toml:": "invalid", ".mcp.json:": "invalid"}
    write(repo, ".coding-agents/mcp.toml", TOML + "#" * (256 << 10))
    assert states(run)[".coding-agents/mcp.toml:"] == "invalid"
    os.mkfifo(repo / "opencode.json")
    assert states(run)["opencode.json:"] == "invalid"  # and it did not wait for a writer


def test_a_server_that_needs_a_secret_is_run_by_the_host(repo: Path, run: Run) -> None:
    write(
        repo, ".coding-agents/mcp.toml", TOML + 'env = { T = "${TRACKER_TOKEN:-none}", U = "${HOST:-h}" }\n'
    )
    put(repo.parent, ".config/coding-agents/mcp-secrets.env", b"# mine\nTRACKER_TOKEN='s3cr3t'\n")
    assert "secrets  TRACKER_TOKEN: they go to it alone" in run("trust", "probe", "-y")[2]
    got = session(repo)
    assert (reasons(repo), tuple(got.started)) == ({}, ("probe",))
    said = json.loads(got.listing)["mcpServers"]["probe"]
    assert (said["args"][-2:], said["env"]) == (["mcp", "probe"], {})
    given = got.apart["probe"]
    assert given.digest == got.started["probe"]
    assert given.server.args == (COPY, "--fast")
    assert given.server.env == {"T": "${TRACKER_TOKEN:-none}", "U": "h"}
    assert (given.needs, given.directory) == (("TRACKER_TOKEN",), COPY.removesuffix("/tools/mcp/server.py"))
    assert "s3cr3t" not in repr(got)
    assert states(run)[".coding-agents/mcp.toml:probe"] == "trusted"
    assert run("convert", "--check", "--agent", "claude")[0] == 0
    assert "s3cr3t" not in "".join(run("convert")[1:])
    env = host_environment(repo.parent)
    place = McpPlace(file="x.json", format="claude", always=True)
    in_gvisor = session_servers(env, discover(repo, env=env.for_git()), place, runtime="runsc")
    assert (in_gvisor.started, in_gvisor.apart) == ({}, {})
    assert "could read its secret" in in_gvisor.left[0][1].reason


def test_a_server_with_a_secret_that_cannot_be_pinned_says_why(repo: Path, run: Run) -> None:
    definition = '[mcp_servers.probe]\ncommand = "docker"\nargs = ["run"]\nenv = { T = "${TRACKER_TOKEN}" }\n'
    write(repo, ".coding-agents/mcp.toml", definition)
    put(repo.parent, ".config/coding-agents/mcp-secrets.env", b"TRACKER_TOKEN=s3cr3t\n")
    assert "docker fetches what it runs when it starts" in run("trust", "probe", "-y")[2]
    assert "docker fetches what it runs when it starts" in reasons(repo)["probe"]
    assert (session(repo).apart, states(run)) == ({}, {".coding-agents/mcp.toml:probe": "not started"})


def test_a_secret_that_is_set_by_name_is_known_and_no_program_is_asked(repo: Path, run: Run) -> None:
    write(repo, ".coding-agents/mcp.toml", TOML + 'env = { T = "${TRACKER_TOKEN}" }\n')
    run("trust", "probe", "-y")
    assert "TRACKER_TOKEN is not set" in run("list", "--json")[1]
    assert states(run)[".coding-agents/mcp.toml:probe"] == "needs secret"
    asked = repo.parent / "asked"
    Secrets(host_environment(repo.parent)).set_program("TRACKER_TOKEN", ("touch", str(asked)), now_ms=1)
    assert states(run)[".coding-agents/mcp.toml:probe"] == "trusted"
    assert not asked.exists()


def test_a_file_of_secrets_that_is_wrong_is_told_by_its_line_where_one_is_asked_for(
    repo: Path, run: Run
) -> None:
    file = put(repo.parent, ".config/coding-agents/mcp-secrets.env", b"A=1\ns3cr3t\n")
    write(repo, ".coding-agents/mcp.toml", TOML)
    assert run("list")[0] == 0  # nothing there asks for one
    write(repo, ".coding-agents/mcp.toml", TOML + 'env = { T = "${TRACKER_TOKEN}" }\n')
    for problem in (f"{file}:2 is not of the form NAME=value", "can be read or written by others"):
        status, out, err = run("list")
        assert (status, problem in err) == (26, True)
        assert "s3cr3t" not in out + err
        file.write_bytes(b"A=s3cr3t\n")
        file.chmod(0o644)


def test_what_a_repository_supplies_is_shown_and_not_started(repo: Path, run: Run) -> None:
    evil = {"command": "touch", "args": ["/tmp/pwned"]}
    for path in (".mcp.json", ".gemini/settings.json", ".github/mcp.json", ".cursor/mcp.json"):
        write(repo, path, json.dumps({"mcpServers": {"evil": evil}}))
    write(repo, ".vscode/mcp.json", json.dumps({"servers": {"evil": evil}}))
    write(
        repo,
        "opencode.jsonc",
        '{ /* x */ "mcp": {"evil": {"type": "local", "command": ["touch", "/tmp//x"],},}, }',
    )
    write(repo, ".codex/config.toml", '[mcp_servers.evil]\ncommand = "touch"\n[hooks]\nx = 1\n')
    write(repo, ".claude/settings.json", json.dumps({"hooks": {"PreToolUse": []}}))
    write(repo, ".opencode/plugin/evil.ts", "x")
    write(repo, ".github/hooks/h.json", "{}")
    write(repo, ".cursor/hooks.json", "{nonsense")
    write(repo, ".claude/settings.local.json", "[" * 100_000)
    shown = states(run)
    untrusted = (".mcp.json", ".gemini/settings.json", ".vscode/mcp.json", ".github/mcp.json", ".cursor/mcp.json",
                 "opencode.jsonc", ".codex/config.toml")  # fmt: skip
    assert {path: shown[f"{path}:evil"] for path in untrusted} == dict.fromkeys(untrusted, "untrusted")
    seen = {name for name, state in shown.items() if state == "seen"}
    assert seen == {
        ".codex/config.toml:hooks", ".claude/settings.json:hooks", ".opencode/plugin/evil.ts:evil.ts",
        ".github/hooks/h.json:h.json",
    }  # fmt: skip
    assert shown[".cursor/hooks.json:"] == shown[".claude/settings.local.json:"] == "invalid"
    assert tuple(session(repo).started) == ()
    status, _, err = run("trust", "evil", "-y")
    assert (status, "several files name a server 'evil'" in err) == (27, True)
    assert run("trust", "evil", "-y", "--file", ".mcp.json")[0] == 0
    assert tuple(session(repo).started) == ("evil",)
    assert states(run)[".gemini/settings.json:evil"] == "untrusted"


def test_codex_would_put_the_repositorys_words_in_place_of_ours(repo: Path, run: Run) -> None:
    """Measured: a project's `.codex/config.toml` overrides single keys of the system's list, past requirements."""
    run("trust", "probe", "-y")
    assert tuple(session(repo, "codex").started) == ("probe",)
    assert b'[mcp_servers.probe.identity]\ncommand = "python3"' in session(repo, "codex").limits
    write(repo, ".codex/config.toml", '[mcp_servers.probe]\nargs = ["/workspace/evil.py"]\n')
    assert tuple(session(repo, "codex").started) == ()
    assert "would put that in its place" in reasons(repo, "codex")["probe"]
    assert session(repo, "codex", always=True).limits == requirements((), "codex")
    assert tuple(session(repo, "claude").started) == ("probe",)


def test_hostile_names_reach_no_terminal(repo: Path, run: Run) -> None:
    evil = "\x1b]52;c;evil\x07\nprobe  server  trusted"
    write(
        repo,
        ".mcp.json",
        json.dumps({"mcpServers": {evil: {"command": evil}, "b": {evil: evil, "env": {evil: "x"}}}}),
    )
    (repo / ".opencode/plugin").mkdir(parents=True)
    (repo / f".opencode/plugin/{evil.replace('/', '')}").touch()
    (repo / "tools/mcp" / os.fsdecode(b"\xff\x1b[2J.py")).touch()
    for words in (
        ("list",),
        ("list", "--json"),
        ("trust", "probe", "-y"),
        ("trust", "b", "-y"),
        ("convert", "--check"),
    ):
        _, out, err = run(*words)
        assert not [char for char in out + err if char != "\n" and not char.isprintable()]
        assert not [line for line in (out + err).splitlines() if line.startswith("probe  server  trusted")]


def test_convert_prints_all_formats_and_checks(repo: Path, run: Run) -> None:
    status, out, _ = run("convert")
    assert status == 0
    assert [line for line in out.splitlines() if line.startswith("# ")] == [
        "# claude", "# codex", "# copilot", "# gemini", "# opencode", "# generic",
    ]  # fmt: skip
    assert out.count(COPY) == 6
    assert run("convert", "--check")[0] == 0
    write(
        repo,
        "config.toml",
        '[mcp_servers.other]\ncommand = "x"\nargs = ["$HOME"]\n[mcp_servers.bad]\ncomand = "x"\n',
    )
    status, out, err = run("convert", "--check")
    assert status == 27
    assert "config.toml:5: mcp_servers.bad.comand: unknown key (did you mean 'command'?)" in out
    assert "gemini: other: gemini replaces $NAME in values by variables of its own" in out
    assert "claude: other" not in out
    assert "finding(s)" in err
    assert run("convert", "--agent", "demo")[0] == 27
    assert run("convert", "--agent", "nobody")[0] == 21


def test_a_repository_without_a_work_tree_has_no_servers(repo: Path, tmp_path: Path) -> None:
    env = host_environment(tmp_path)
    facts = discover(repo, env=env.for_git())
    gone = type(facts)(
        **{**{name: getattr(facts, name) for name in facts.__struct_fields__}, "work_tree": None}
    )
    got = session_servers(env, gone, McpPlace(file="x.json", format="claude", always=True))
    assert got.volume(McpPlace(file="x.json", format="claude", always=True)) == {
        "x.json": (b'{\n  "mcpServers": {}\n}\n', False)
    }
    with workbench(env, facts) as bench:
        assert bench.found.servers


def test_a_directory_that_may_not_be_read_is_told(
    repo: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("trust", "probe", "-y")
    stat = Tree.stat

    def refusing(tree: Tree, path: str) -> os.stat_result | None:  # root may read everything
        if path.endswith("helper.py"):
            raise PermissionError(13, "Permission denied")
        return stat(tree, path)

    monkeypatch.setattr(Tree, "stat", refusing)
    assert tuple(session(repo).started) == ()
    assert "permission denied" in reasons(repo)["probe"]
    status, _, err = run("trust", "probe", "-y")
    assert (status, "'tools/mcp/helper.py' cannot be read: permission denied" in err) == (27, True)
