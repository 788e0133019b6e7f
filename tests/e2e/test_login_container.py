"""A login that the agent's own program makes in a throw-away container, answered by a browser on the host."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from textwrap import dedent

import pytest

from support.product import Product, wait_for
from support.ptys import on_terminal

pytestmark = [pytest.mark.engine, pytest.mark.alike]

SECRET = "token-of-the-account-0123456789"

# Like an agent's own: shows where to go, waits on its loopback for the browser, keeps what it is given.
PROGRAM = r"""
import http.server, json, os, socket, sys
class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        code = self.path.partition("code=")[2]
        self.send_response(200); self.end_headers(); self.wfile.write(b"you may close this page")
        path = os.path.expanduser("~/.claude"); os.makedirs(path, exist_ok=True)
        tokens = {"accessToken": code, "refreshToken": "again", "expiresAt": 4102444800000}
        with open(path + "/.credentials.json", "w") as file:
            json.dump({"claudeAiOauth": tokens}, file)
        self.server.done = True
    def log_message(self, *words): pass
server = http.server.HTTPServer(("127.0.0.1", %d), Server); server.done = False
print("go to http://localhost:%d/\033]52;c;aGFja2Vk\007", flush=True)
while not server.done: server.handle_request()
"""


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def account(product: Product, port: int) -> str:
    """An agent of the user's own with accounts, and no login on this host."""
    program = PROGRAM.replace("%d", str(port))
    manifest = f"""
        name = "mine"
        title = "Mine"
        model_hosts = ["api.example.com"]
        [command]
        interactive = ["bash"]
        [model]
        api = "anthropic"
        upstream = "https://api.example.com"
        [[login]]
        kind = "oauth"
        header = "authorization"
        scheme = "Bearer"
        file = ".claude/.credentials.json"
        format = "claude"
        command = ["python3", "-c", {json.dumps(program)}]
        callback = {port}
        """
    path = product.home / ".config/coding-agents/agents/mine.toml"
    path.parent.mkdir(parents=True)
    path.write_text(dedent(manifest))
    return "mine"


def test_the_login_comes_home_and_the_container_is_gone(product: Product, account: str, port: int) -> None:
    with on_terminal(product, "login", account) as shown:
        shown.sees("login mine --api-key")
        shown.sees(f"go to http://localhost:{port}/", timeout_s=60)
        with closing(urllib.request.urlopen(f"http://127.0.0.1:{port}/?code={SECRET}", timeout=30)) as page:
            assert page.read() == b"you may close this page"
        assert shown.ends(timeout_s=60) == 0
    assert "mine: " in shown.seen
    assert "valid until 2100-01-01" in shown.seen
    assert SECRET not in shown.seen
    assert "\x1b]52" not in shown.seen
    assert_nothing_left(product)
    assert not (product.home / ".claude").exists()
    told = product.run("doctor", "--json", status=None).out
    assert SECRET not in told


def test_a_login_that_is_given_up_leaves_nothing_and_says_what_to_do(
    product: Product, account: str, port: int
) -> None:
    with on_terminal(product, "login", account, "--container") as shown:
        shown.sees(f"go to http://localhost:{port}/", timeout_s=60)
        shown.types("\x03")
        assert shown.ends(timeout_s=60) == 26
    assert "there is no login" in shown.seen
    assert_nothing_left(product)
    assert "needs a terminal" in product.run("login", account, "--container", status=2).err


def test_the_browser_reaches_the_real_codex(product: Product) -> None:
    """Up to where an account is needed: its server answers a callback that is not of this login."""
    if product.engine == "podman":
        pytest.skip("on Docker only")
    with on_terminal(product, "login", "codex") as shown:
        shown.sees("auth.openai.com/oauth/authorize", timeout_s=60)

        def answer() -> int:
            try:
                with closing(
                    urllib.request.urlopen("http://127.0.0.1:1455/auth/callback?code=x&state=y")
                ) as page:
                    return int(page.status)
            except urllib.error.HTTPError as error:
                return error.code
            except OSError:
                time.sleep(0.2)
                return 0

        assert wait_for(answer, "an answer of Codex") == 400
        assert "127.0.0.1%3A1455%2Fauth%2Fcallback" in shown.seen
        shown.types("\x03")
        assert shown.ends(timeout_s=60) == 26
    assert_nothing_left(product)


def assert_nothing_left(product: Product) -> None:
    assert product.leftovers() == []
    assert json.loads(product.run("list", "--json").out) == []
    data = product.home / ".local/share/coding-agents"
    assert [path for path in Path(data / "repos").rglob("*login-*")] == []
