"""The model broker as a hostile agent sees it from inside a session, and what of the host's is to be found there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_stub.server import ModelStub, serving
from support.inside import Inside, core_limits, supervisor_of
from support.product import Product, git, wait_for

pytestmark = pytest.mark.engine

KEY = "sk-real-key-of-the-user-0123456789"

# Speaks to the broker byte by byte; prints the status of each answer.
ATTACK = r"""
import json, socket

def ask(head, body=b"", length=True):
    with socket.create_connection(("127.0.0.1", 8099), timeout=20) as link:
        lines = [head, "host: 127.0.0.1", "connection: close", "x-api-key: sk-of-somebody-else"]
        lines += [f"content-length: {len(body)}"] * length
        try:
            link.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        except OSError:
            pass
        data = b""
        try:
            while piece := link.recv(65536):
                data += piece
        except OSError:
            pass
    return data.split(b" ")[1].decode() if data else "closed"

hello = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}
def post(more, path="/v1/messages"):
    return ask(f"POST {path} HTTP/1.1", json.dumps({**hello, **more}).encode())

url = {"type": "url", "url": "http://127.0.0.1:9/?q=workspace"}
image = {"role": "user", "content": [{"type": "image", "source": url}]}
print(json.dumps({
    "absolute": ask("POST http://127.0.0.1:9/v1/messages HTTP/1.1", b"{}"),
    "connect": ask("CONNECT 127.0.0.1:9 HTTP/1.1"),
    "upgrade": ask("GET /v1/responses HTTP/1.1\r\nupgrade: websocket", length=False),
    "two lengths": ask("POST /v1/messages HTTP/1.1\r\ncontent-length: 1", b"{}"),
    "both lengths": ask("POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked", b"0\r\n\r\n"),
    "dots": post({}, "/v1/../v1/messages"),
    "escaped": post({}, "/v1/%2e%2e/messages"),
    "files": post({}, "/v1/files"),
    "batches": post({}, "/v1/messages/batches"),
    "key in query": post({}, "/v1/messages?key=sk-of-somebody-else"),
    "web search": post({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
    "web fetch": post({"tools": [{"type": "web_fetch_20250910", "name": "f"}]}),
    "mcp": post({"mcp_servers": [url]}),
    "image by url": post({"messages": [image]}),
    "unknown": post({"webhook": "http://127.0.0.1:9/"}),
    "huge": ask("POST /v1/messages HTTP/1.1", b"x" * (49 << 20)),
}))
"""
EXPECTED = {
    "absolute": "400", "connect": "405", "upgrade": "426", "two lengths": "400", "both lengths": "400",
    "dots": "400", "escaped": "400", "files": "404", "batches": "404", "key in query": "404",
    "web search": "400", "web fetch": "400", "mcp": "400", "image by url": "400", "unknown": "400",
}  # fmt: skip


def by_way_of(product: Product, model: ModelStub) -> None:
    product.extra |= {"CODING_AGENTS_MODEL_UPSTREAM": model.url, "ANTHROPIC_API_KEY": KEY}


def launch(product: Product, repo: Path, *args: str, status: int | None = 0) -> str:
    command = ("launch", str(repo), "--agent", "claude", "--network-proxy", "restricted", *args)
    return product.run(*command, status=status).out


@pytest.mark.alike
def test_no_trick_reaches_the_models_service(product: Product, repo: Path) -> None:
    with serving("hello") as model:
        by_way_of(product, model)
        said = json.loads(launch(product, repo, "--name", "attack", "--", "python3", "-c", ATTACK))
        assert said.pop("huge") in (
            "413",
            "closed",
        )  # the answer may be lost to a client that goes on sending
        assert said == EXPECTED
        assert model.asked == []
    refused = [one for one in product.audit("claude-attack") if one["type"] == "model-refused"]
    rules = {one["rule"] for one in refused if one["outcome"] == "denied"}
    assert rules == {
        "model-malformed", "model-endpoint", "model-server-tool", "model-reference", "model-unknown",
    }  # fmt: skip


def test_the_credential_is_nowhere_inside(product: Product, repo: Path) -> None:
    """Not for root of the container either: in no environment, argument, file, screen, memory or core dump."""
    with serving("commit") as model:
        by_way_of(product, model)
        name = launch(product, repo, "-d", "--name", "hold").strip()
        wait_for(lambda: "bypass" in product.screen(name), "the agent's screen")
        product.run("tell", name, "go on")
        wait_for(lambda: len(model.conversation) >= 3, "the agent at work")
        assert {one.credentials["x-api-key"] for one in model.asked} == {KEY}
        inside = Inside.of(product, name)
        assert inside.find(KEY.encode()) == []
        dummy = inside.find(b"replaced-by-coding-agents-on-the-host")
        assert {place.split()[0] for place in dummy} >= {
            "environ",
            "memory",
        }  # the search does see what is there
        assert (
            product.exec(name, f"tmux capture-pane -p -S - -t agent | grep -c '{KEY}'", status=1).out == "0\n"
        )

        # Neither the broker nor who speaks with it leaves a core dump, however it dies.
        assert core_limits(supervisor_of(product.session_dir(name)))[0] == "0"
        assert inside.cores() == []
        product.exec(name, "ulimit -c 1000000; cd /tmp && sh -c 'kill -ABRT $$'", status=134)
        assert inside.cores() == []
        product.exec(name, "pkill -ABRT -x claude")
        wait_for(lambda: product.state(name) == "stopped", "the end of the aborted agent")
        branch = product.session(name)["branch"]
        assert git(repo, "diff", "--name-only", f"main..{branch}") == "src/app.py"
        product.run("remove", "--force", name)


@pytest.mark.alike
def test_a_budget_of_tokens_saves_the_work_and_stops_the_session(product: Product, repo: Path) -> None:
    with serving("commit") as model:
        by_way_of(product, model)
        launch(
            product, repo, "--name", "thrifty", "--max-tokens", "150", "-p", "make the app speak", status=None
        )
        assert 2 <= len(model.conversation) <= 3
    record = product.session("claude-thrifty")
    assert record["phase"] == "stopped"
    assert record["spent"]["read"] + record["spent"]["written"] >= 150
    types = [one["type"] for one in product.audit("claude-thrifty")]
    assert types.count("budget-used") == 1
    assert types.index("budget-used") < types.index("session-ended")
    assert record["saved"]["where"] in ("branch", "none")
    # What it had written by then is on its branch, committed by itself or for it.
    if record["saved"]["where"] == "branch":
        assert "made by the agent" in git(repo, "show", f"{record['branch']}:src/app.py")


@pytest.mark.alike
def test_what_login_has_chosen_is_what_the_model_is_asked_with(product: Product, repo: Path) -> None:
    """The choice goes before the host's variables, is read anew for each request, and never goes inside."""
    file = product.home / ".claude/.credentials.json"
    file.parent.mkdir(mode=0o700)
    file.write_text(json.dumps({"claudeAiOauth": {"accessToken": KEY, "expiresAt": 4_102_444_800_000}}))
    file.chmod(0o600)
    assert "valid until 2100-01-01" in product.run("login", "claude").out
    with serving("commit") as model:
        product.extra |= {
            "CODING_AGENTS_MODEL_UPSTREAM": model.url,
            "ANTHROPIC_API_KEY": "sk-not-this-one-0123456789",
        }
        launch(product, repo, "-d", "--name", "chosen")
        name = "claude-chosen"
        wait_for(lambda: "bypass" in product.screen(name), "the agent's screen")
        product.run("tell", name, "go on")
        wait_for(lambda: len(model.conversation) >= 1, "the agent at work")
        assert {one.credentials.get("authorization") for one in model.asked} == {f"Bearer {KEY}"}
        assert not [one for one in model.asked if one.credentials.get("x-api-key")]
        assert Inside.of(product, name).find(KEY.encode()) == []
        product.run("remove", "--force", name)
