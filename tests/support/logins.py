"""Agents' logins for tests: a manifest, the files that the real programs write, a token endpoint on the loopback."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from coding_agents.images.manifests import load_manifest
from coding_agents.model.manifest import AgentManifest
from coding_agents.model.provider import Login, ModelService, Renewal

NOW = 1_800_000_000_000
HOUR = 3_600_000
SECRET = "sk-ant-" + "S3CR3Tvalue" * 4


def claude(renewal_url: str = "") -> AgentManifest:
    """The manifest that we ship, its tokens renewed at `renewal_url` if one is given."""
    manifest = load_manifest("claude")
    if not renewal_url:
        return manifest
    renewal = Renewal(url=renewal_url, client_id="client-of-the-test")
    logins = tuple(
        replace(login, renewal=renewal) if login.kind == "oauth" else login for login in manifest.login
    )
    return replace(manifest, login=logins)


def codex() -> AgentManifest:
    """Codex, as far as logins go."""
    common: dict[str, Any] = {
        "header": "authorization", "scheme": "Bearer", "file": ".codex/auth.json", "format": "codex",
    }  # fmt: skip
    return replace(
        load_manifest("claude"),
        name="codex",
        title="Codex",
        model=ModelService(api="openai", upstream="https://api.example.com/v1"),
        login=(
            Login(
                kind="oauth",
                upstream="https://chat.example.com/backend",
                account_header="chatgpt-account-id",
                **common,
            ),
            Login(kind="api-key", env=("CODEX_API_KEY",), **common),
        ),
    )


def claude_file(access: str = SECRET, *, expires_ms: int = NOW + HOUR, refresh: str = "refresh-0") -> bytes:
    """`~/.claude/.credentials.json`, as Claude Code 2.1 writes it."""
    tokens = {
        "accessToken": access,
        "refreshToken": refresh,
        "expiresAt": expires_ms,
        "scopes": ["user:inference"],
        "subscriptionType": "max",
    }
    return json.dumps({"claudeAiOauth": tokens}).encode()


def jwt(**claims: object) -> str:
    """A token with these claims and no valid signature."""
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"eyJhbGciOiJub25lIn0.{payload}.c2ln"


def put(home: Path, name: str, data: bytes, mode: int = 0o600) -> Path:
    """A file of the user's."""
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_bytes(data)
    path.chmod(mode)
    return path


def program(directory: Path, name: str, script: str) -> Path:
    """A program of the user's, in sh."""
    path = put(directory, name, f"#!/bin/sh\n{script}\n".encode(), 0o755)
    return path


class TokenServer:
    """A token endpoint that rotates: each refresh token is good once."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.current = "refresh-0"
        self.before_answer: Callable[[], None] = lambda: None
        self.answer: tuple[int, bytes] | None = None
        self.url = ""
        self._lock = threading.Lock()

    def renew(self, body: dict[str, Any]) -> tuple[int, bytes]:
        with self._lock:
            self.asked.append(body)
            if self.answer is not None:
                return self.answer
            if body.get("refresh_token") != self.current:
                return 400, json.dumps({"error": "invalid_grant", "error_description": SECRET}).encode()
            self.current = f"refresh-{len(self.asked)}"
            new = {
                "access_token": f"access-{len(self.asked)}",
                "refresh_token": self.current,
                "expires_in": 8 * 3600,
            }
            return 200, json.dumps(new).encode()


@contextmanager
def token_server(certificate: Path | None = None) -> Iterator[TokenServer]:
    """A token endpoint of its own on the loopback; `certificate`, with its key, makes it speak TLS."""
    server = TokenServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, data = server.renew(body)
            server.before_answer()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}/oauth/token"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        http.socket = context.wrap_socket(http.socket, server_side=True)
        server.url = f"https://localhost:{http.server_port}/oauth/token"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join(5)
