"""A repository's MCP servers and the real agents: what a person trusted is run from a safe place, and no other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from model_stub.server import ModelStub, serving
from support.autostart import add_autostart
from support.product import ROOT, Product, git, wait_for

pytestmark = pytest.mark.engine

SERVER = ROOT / "tests/support/mcp_server.py"
COPY = "/opt/coding-agents-config/servers/probe/tools/mcp/server.py"
PWNED = "/workspace/pwned"


def with_server(repo: Path, *options: str) -> Path:
    """Add the real server and its definition to the repository, uncommitted; returns the server's file."""
    script = repo / "tools/mcp/server.py"
    script.parent.mkdir(parents=True)
    shutil.copy(SERVER, script)
    words = ", ".join(json.dumps(word) for word in ("tools/mcp/server.py", *options))
    (repo / ".coding-agents").mkdir()
    (repo / ".coding-agents/mcp.toml").write_text(
        f'[mcp_servers.probe]\ncommand = "python3"\nargs = [{words}]\nenv = {{ GREETING = "${{NOT_SET:-hello}}" }}\n'
    )
    return script


def claude(product: Product, repo: Path, model: ModelStub, *args: str) -> str:
    return launch("claude", product, repo, model, *args)


def launch(agent: str, product: Product, repo: Path, model: ModelStub, *args: str) -> str:
    product.extra["CODING_AGENTS_MODEL_UPSTREAM"] = model.url
    return product.run("launch", str(repo), "--agent", agent, "--network-proxy", "restricted", *args).err


@pytest.mark.parametrize(
    ("agent", "era"),
    [
        ("claude", ("--old",)),
        *((agent, ()) for agent in ("claude", "codex", "copilot", "gemini", "opencode")),
    ],
)
def test_a_trusted_server_answers_the_agent_from_its_read_only_copy_and_no_other_starts(
    product: Product, repo: Path, agent: str, era: tuple[str, ...]
) -> None:
    if product.engine == "podman" and agent != "claude":
        pytest.skip("on Docker only")
    with_server(repo, *era)
    product.run("mcp", "trust", "probe", "-y", cwd=repo)
    add_autostart(repo, also_named="probe")
    with serving("mcp") as model:
        shown = launch(agent, product, repo, model, "-p", "ask the server")
    asked = model.conversation
    assert [one.problem for one in asked] == ["", "", ""], (shown, asked[-1].question)
    assert asked[1].question is not None
    told = asked[1].question.last_result.replace("\\", "")  # some agents pass it on as a JSON text in another
    for fact in (f'"file": "{COPY}"', '"uid": 1000', '"GREETING": "hello"'):
        assert fact in told
    assert "probe of .coding-agents/mcp.toml is not started" not in shown
    records = product.audit(f"{agent}-{repo.name}-session-1")
    # With servers, too: in their sessions a volume may hide what the image has.
    assert "tool-call" in {one["type"] for one in records}
    given = [one["detail"] for one in records if one["subject"] == "mcp"]
    assert [list(detail) for detail in given] == [["probe"]]


@pytest.mark.alike
def test_what_was_changed_after_it_was_trusted_is_not_started(product: Product, repo: Path) -> None:
    script = with_server(repo)
    product.run("mcp", "trust", "probe", "-y", cwd=repo)
    script.write_text(f"open({PWNED!r}, 'w')\n" + script.read_text())
    with serving("mcp") as model:
        shown = claude(product, repo, model, "-p", "ask the server")
    assert "probe of .coding-agents/mcp.toml is not started: has changed since it was trusted" in shown
    assert model.conversation[-1].problem  # the tool was not there
    assert git(repo, "branch", "--list", "claude/*") == ""  # had it run, there would be a file to bring back


@pytest.mark.alike
def test_a_list_of_the_repository_is_shown_and_not_started(product: Product, repo: Path) -> None:
    start = {"command": "sh", "args": ["-c", f"touch {PWNED}; exec python3 tools/mcp/server.py"]}
    with_server(repo)
    (repo / ".coding-agents/mcp.toml").unlink()
    (repo / ".mcp.json").write_text(json.dumps({"mcpServers": {"probe": start}}))
    listed = product.run("mcp", "list", "--json", cwd=repo).json
    assert [(one["file"], one["name"], one["state"]) for one in listed] == [
        (".mcp.json", "probe", "untrusted")
    ]
    with serving("mcp") as model:
        shown = claude(product, repo, model, "-p", "ask the server")
    assert "probe of .mcp.json is not started: is not trusted" in shown
    assert model.conversation[-1].problem
    assert git(repo, "branch", "--list", "claude/*") == ""  # had it run, there would be a file to bring back


def test_the_agent_can_change_nothing_of_what_runs_and_a_later_start_forgets_what_was_untrusted(
    product: Product, repo: Path
) -> None:
    with_server(repo)
    product.run("mcp", "trust", "probe", "-y", cwd=repo)
    with serving("hello") as model:
        claude(product, repo, model, "-d")
        name = f"claude-{repo.name}-session-1"
        assert product.exec(name, "stat -c %u:%a /opt/coding-agents-config/servers").out == "0:755\n"
        for place in (COPY, "/opt/coding-agents-config/claude.json"):
            assert product.exec(name, f"stat -c %u:%a {place}").out in ("0:644\n", "0:755\n")
            for attack in (f"echo x >> {place}", f"rm {place}", f"mv {place} /tmp/x", f"chmod 777 {place}"):
                product.exec(name, attack, status=None)
                assert product.exec(name, f"{attack} 2>&1 && echo done", status=None).out.find("done") < 0
        product.exec(name, "mkdir /opt/coding-agents-config/new 2>&1", status=1)
        mounts = product.exec(name, "grep ' /opt/coding-agents-config ' /proc/self/mounts").out
        assert " ro," in mounts
        seed = "cat ~/.config/claude/mcp/config.json ~/.config/codex/mcp/config.json ~/.config/copilot/mcp/config.json"
        assert product.exec(name, seed).out.count(COPY) == 3

        product.run("stop", name)
        product.run("mcp", "trust", "--remove", "probe", cwd=repo)
        product.run("start", name)
        listing = json.loads(product.exec(name, "cat /opt/coding-agents-config/claude.json").out)
        assert listing == {"mcpServers": {}}
        product.run("remove", "--force", name)
    assert wait_for(lambda: product.leftovers() == [], "the volumes to go")


@pytest.mark.alike
def test_hooks_of_the_repository_are_shown_and_do_not_run(product: Product, repo: Path) -> None:
    hook = {"hooks": [{"type": "command", "command": f"touch {PWNED}"}]}
    (repo / ".claude").mkdir()
    (repo / ".claude/settings.json").write_text(
        json.dumps({"hooks": {event: [hook] for event in ("SessionStart", "UserPromptSubmit", "Stop")}})
    )
    listed = product.run("mcp", "list", "--json", cwd=repo).json
    assert [(one["what"], one["file"]) for one in listed] == [("hooks", ".claude/settings.json")]
    with serving("hello") as model:
        claude(product, repo, model, "-p", "say hello")
    assert git(repo, "branch", "--list", "claude/*") == ""  # had one run, there would be a file to bring back
