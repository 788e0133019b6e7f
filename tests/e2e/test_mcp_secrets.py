"""Servers that hold a secret and the real Claude Code: it uses them, and a hostile agent gets nothing of the secret."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from pathlib import Path

import pytest

from model_stub.server import ModelStub, serving
from support.logins import put
from support.mcp_web import as_mcp, web_server
from support.product import ROOT, Product, wait_for

pytestmark = pytest.mark.engine

SERVER = ROOT / "tests/support/mcp_server.py"
ATTACK = ROOT / "tests/support/mcp_attack.py"
COPIES = "/opt/coding-agents-config/servers"
SECRET = f"s3cr3t-{secrets.token_hex(12)}"
KNOWN = hashlib.sha256(SECRET.encode()).hexdigest()


@pytest.fixture
def trusting(product: Product, repo: Path) -> Path:
    """A repository with two trusted servers that need a secret; `leaky` tells it to whoever asks."""
    (repo / "tools/mcp").mkdir(parents=True)
    shutil.copy(SERVER, repo / "tools/mcp/server.py")
    table = '[mcp_servers.{}]\ncommand = "python3"\nargs = {}\nenv = {{ TOKEN = "${{TRACKER_TOKEN}}" }}\n'
    words = json.dumps(["tools/mcp/server.py", "--discreet", "--kept"])
    (repo / ".coding-agents").mkdir()
    (repo / ".coding-agents/mcp.toml").write_text(
        table.format("probe", words) + table.format("leaky", '["tools/mcp/server.py"]')
    )
    put(product.home, ".config/coding-agents/mcp-secrets.env", f"TRACKER_TOKEN={SECRET}\n".encode())
    for name in ("probe", "leaky"):
        product.run("mcp", "trust", name, "-y", cwd=repo)
    return repo


def claude(product: Product, repo: Path, model: ModelStub, *args: str) -> str:
    product.extra["CODING_AGENTS_MODEL_UPSTREAM"] = model.url
    product.run("launch", str(repo), "--agent", "claude", "--network-proxy", "restricted", *args)
    return f"claude-{repo.name}-session-1"


@pytest.mark.alike
def test_claude_uses_a_server_that_holds_a_secret(product: Product, trusting: Path) -> None:
    listed = product.run("mcp", "list", "--json", cwd=trusting)
    assert [one["state"] for one in listed.json] == ["trusted", "trusted"]
    with serving("mcp") as model:
        name = claude(product, trusting, model, "-p", "ask the server")
    assert [one.problem for one in model.conversation] == ["", "", ""], model.conversation[-1].question
    assert model.conversation[1].question is not None
    told = json.loads(model.conversation[1].question.last_result.partition("scripted words ")[2])
    assert (told["file"], told["cwd"]) == (f"{COPIES}/probe/tools/mcp/server.py", f"{COPIES}/probe")
    assert (told["uid"], told["token"]) == (1001, KNOWN)
    assert not {"ANTHROPIC_API_KEY", "TRACKER_TOKEN", "CLAUDE_CONFIG_DIR"} & set(told["env"])
    records = [one for one in product.audit(name) if one["subject"] == "probe"]
    assert {one["type"] for one in records} == {"mcp-server-started", "mcp-server-ended"}
    assert records[0]["detail"]["secrets"] == "TRACKER_TOKEN"
    assert_nowhere_on_the_host(product, name)


@pytest.mark.alike
def test_claude_uses_an_address_that_wants_a_secret(product: Product, repo: Path) -> None:
    """In `restricted`: the container has no network, the host asks exactly this address."""
    with web_server() as web, serving("mcp") as model:
        web.reply = as_mcp
        (repo / ".coding-agents").mkdir()
        (repo / ".coding-agents/mcp.toml").write_text(
            f'[mcp_servers.probe]\nurl = "{web.url}/mcp"\nbearer_token_env_var = "TRACKER_TOKEN"\n'
        )
        put(product.home, ".config/coding-agents/mcp-secrets.env", f"TRACKER_TOKEN={SECRET}\n".encode())
        product.run("mcp", "trust", "probe", "-y", cwd=repo)
        name = claude(product, repo, model, "-p", "ask the server")
    assert [one.problem for one in model.conversation] == ["", "", ""], model.conversation[-1].question
    assert {(path, asked["authorization"]) for _, path, asked, _ in web.asked} == {
        ("/mcp", f"Bearer {SECRET}")
    }
    assert "mcp-request" in {one["type"] for one in product.audit(name)}
    assert_nowhere_on_the_host(product, name)


def test_a_hostile_agent_gets_nothing_of_the_secret(product: Product, trusting: Path) -> None:
    with serving("hello") as model:
        name = claude(product, trusting, model, "-d")
        product.run("cp", str(ATTACK), f"{name}:/tmp/attack.py")
        shown = product.exec(name, "python3 /tmp/attack.py").out
        told = json.loads(shown)
        assert told["uid"] == 1000
        assert all(KNOWN in answer for answer in told["answers"] + told["alive"]), told
        assert len(told["seen"]) >= 4  # two servers, each with our parent, and what they left behind
        assert told["opened"] == []
        assert told["done"] == []
        assert told["homes"]
        assert {tuple(found) for found in told["homes"].values()} == {("1001:700",)}
        assert told["other"][0] == 1
        assert "not a server with a secret that this session was given" in told["other"][2]
        assert told["leaky"][1] == ""
        assert SECRET not in shown
        assert_nowhere_on_the_host(product, name)
        denied = [one for one in product.audit(name) if one["outcome"] == "denied"]
        assert {(one["type"], one["rule"], one["subject"]) for one in denied} == {
            ("mcp-server-refused", "mcp-other-server", "other"),
            ("mcp-server-ended", "mcp-reflected", "leaky"),
        }
        script = "cat /proc/[0-9]*/status 2>/dev/null | grep -c '^Uid:.1001'"

        def left() -> str:
            return product.exec(name, script, status=None).out.strip()

        # Those of Claude itself stay: two servers with our parent of each, and what `probe` leaves behind.
        begun = len([one for one in product.audit(name) if one["type"] == "mcp-server-started"])
        wait_for(
            lambda: begun - len([o for o in product.audit(name) if o["type"] == "mcp-server-ended"]) <= 2,
            "what the attack started to end",
        )
        wait_for(lambda: int(left()) <= 5, "their processes to be gone")
        product.run("mcp", "trust", "--remove", "probe", cwd=trusting)
        gone = product.exec(name, "python3 -IS /opt/coding-agents/guest.pyz mcp probe < /dev/null", status=1)
        assert "start the session again" in gone.err
        product.run("remove", "--force", name)
    assert wait_for(lambda: product.leftovers() == [], "the volumes to go")


def assert_nowhere_on_the_host(product: Product, name: str) -> None:
    """Neither in what the engine shows, nor in a command line, nor in what the session keeps."""
    assert SECRET not in product.engine_run("inspect", name, check=False)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert SECRET.encode() not in path.read_bytes()
        except OSError:
            continue
    for path in product.session_dir(name).rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
