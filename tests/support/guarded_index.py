"""The index of `index_server` on this host's loopback, by TLS of its own, for who has a token alone."""

from __future__ import annotations

import base64
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from unittest import mock

from support import index_server


@dataclass
class GuardedIndex:
    """`asked` are the requests that came with the token, `refused` those without."""

    token: str
    url: str = ""
    ca: Path = Path()
    asked: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def admits(self, authorization: str) -> bool:
        pair = base64.b64encode(f"__token__:{self.token}".encode()).decode()
        return authorization in (f"Bearer {self.token}", f"Basic {pair}")


@contextmanager
def guarded_index(directory: Path, files: Mapping[str, bytes], token: str) -> Iterator[GuardedIndex]:
    """An index with these files, gone afterwards."""
    index = GuardedIndex(token)

    class Handler(index_server.Handler):
        def do_GET(self) -> None:
            line = f"{self.command} {self.path}"
            if not index.admits(self.headers.get("authorization", "")):
                index.refused.append(line)
                self.say(b"{}", "application/json", 401)
                return
            index.asked.append(line)
            super().do_GET()

        do_POST = do_PUT = do_GET

    for name, content in files.items():
        path = directory / "index" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    key, index.ca = directory / "key.pem", directory / "ca.pem"
    words = ("-nodes", "-days", "2", "-subj", "/CN=index", "-addext", "subjectAltName=DNS:localhost")
    subprocess.run(
        ("openssl", "req", "-x509", "-newkey", "rsa:2048", *words, "-keyout", str(key), "-out", str(index.ca)),
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(index.ca, key)
    with (
        mock.patch.object(index_server, "INDEX", directory / "index"),
        _Server(("127.0.0.1", 0), Handler) as server,
    ):
        server.socket = context.wrap_socket(server.socket, server_side=True)
        index.url = f"https://localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield index
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None: ...
