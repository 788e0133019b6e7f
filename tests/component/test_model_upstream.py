"""The broker's way out: TLS with a private authority, the host's proxy, and who is not trusted."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import SHUT_RDWR, create_server, socket

import pytest

from coding_agents.brokers.http.tls import tls_context
from coding_agents.brokers.http.upstream import Address, Upstream, UpstreamError

HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ca.pem, and server.pem that it has signed for model.example."""
    home = tmp_path_factory.mktemp("ca")

    def openssl(*args: str) -> None:
        subprocess.run(("openssl", *args), cwd=home, check=True, capture_output=True)

    new = ("req", "-newkey", "rsa:2048", "-nodes", "-batch", "-days", "2")
    openssl(*new, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test CA")
    named = ("-addext", "subjectAltName=DNS:model.example,DNS:localhost")
    openssl(*new, "-x509", "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "server.key", "-out", "server.crt",
            "-subj", "/CN=model.example", *named)  # fmt: skip
    (home / "server.pem").write_bytes((home / "server.key").read_bytes() + (home / "server.crt").read_bytes())
    return home


@contextmanager
def server(serve: Callable[[socket], None]) -> Iterator[int]:
    """A server in threads on the loopback; its port."""
    with create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    link, _ = listener.accept()
                    threading.Thread(target=one, args=(link,), daemon=True).start()

        def one(link: socket) -> None:
            with suppress(OSError, ssl.SSLError), link:
                serve(link)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            with suppress(OSError):
                listener.shutdown(SHUT_RDWR)
            listener.close()
            thread.join(5)


def tls_server(home: Path, answer: bytes = HELLO, *, rude: bool = False) -> Callable[[socket], None]:
    def serve(link: socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(home / "server.pem")
        with context.wrap_socket(link, server_side=True) as secure:
            while read_head(secure):
                secure.sendall(answer)
                if rude:
                    return

    return serve


def read_head(link: socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = link.recv(4096)
        if not piece:
            return b""
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    size = next(
        (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
    )
    while len(rest) < size:
        rest += link.recv(65536)
    return head


def ask(
    address: Address, authority: Path | None, *, proxy: str = "", times: int = 1, body: bytes = b""
) -> list[bytes]:
    pem = (authority / "ca.pem").read_bytes() if authority else b""

    async def run() -> list[bytes]:
        upstream = Upstream(address, proxy=proxy, context=lambda: tls_context(pem))
        answers = []
        try:
            for _ in range(times):
                async with upstream.exchange("POST", "/x", [], body, silence_s=5) as answer:
                    answers.append(b"".join([piece async for piece in answer.body]))
        finally:
            await upstream.close()
        return answers

    return asyncio.run(run())


def test_tls_with_an_authority_of_the_hosts_own(authority: Path) -> None:
    with server(tls_server(authority)) as port:
        address = Address("https", "localhost", port)
        assert ask(address, authority, times=3, body=b"x" * 300_000) == [b"hello"] * 3
        with pytest.raises(UpstreamError, match="certificate verify failed"):
            ask(address, None)
        with pytest.raises(UpstreamError, match="certificate verify failed"):
            ask(Address("https", "127.0.0.1", port), authority)  # another name than the certificate's


def test_a_long_answer_and_one_that_is_cut(authority: Path) -> None:
    size = 3 << 20
    whole = f"HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n".encode() + b"y" * size
    with server(tls_server(authority, whole)) as port:
        assert len(ask(Address("https", "localhost", port), authority)[0]) == size
    cut = tls_server(authority, whole[: 1 << 20], rude=True)
    with server(cut) as port, pytest.raises(UpstreamError, match="broke off"):
        ask(Address("https", "localhost", port), authority)


def test_the_hosts_proxy_is_asked_for_a_tunnel(authority: Path) -> None:
    asked: list[bytes] = []
    with server(tls_server(authority)) as port:

        def proxy(link: socket) -> None:
            asked.append(read_head(link))
            if b64encode(b"user:p@ss") not in asked[-1]:
                link.sendall(b"HTTP/1.1 407 Who?\r\ncontent-length: 0\r\n\r\n")
                return
            link.sendall(b"HTTP/1.1 200 Go\r\n\r\n")
            with socket() as onward:
                onward.connect(("127.0.0.1", port))
                back = threading.Thread(target=pour, args=(onward, link), daemon=True)
                back.start()
                pour(link, onward)
                back.join(5)

        def pour(source: socket, sink: socket) -> None:
            with suppress(OSError):
                while data := source.recv(65536):
                    sink.sendall(data)
                sink.shutdown(SHUT_RDWR)

        with server(proxy) as door:
            address = Address("https", "model.example", port)
            assert ask(address, authority, proxy=f"http://user:p%40ss@127.0.0.1:{door}") == [b"hello"]
            assert asked[0].startswith(f"CONNECT model.example:{port} HTTP/1.1\r\n".encode())
            with pytest.raises(UpstreamError, match="the proxy answers 407") as caught:
                ask(address, authority, proxy=f"http://user:wrong@127.0.0.1:{door}")
            assert "wrong" not in str(caught.value)
            with pytest.raises(UpstreamError, match="only proxies of the form"):
                ask(address, authority, proxy="socks5://127.0.0.1:1")


def test_an_upstream_that_is_not_there() -> None:
    with server(lambda link: None) as port:
        pass
    with pytest.raises(UpstreamError, match="is not reached"):
        ask(Address("http", "127.0.0.1", port), None)


def test_a_supervisor_without_ssl_still_speaks_tls(authority: Path) -> None:
    """As supervisor/__main__.py starts: asyncio is loaded without it."""
    script = """
import sys
sys.modules["ssl"] = None
import asyncio
from pathlib import Path
from coding_agents.brokers.http.tls import tls_context
from coding_agents.brokers.http.upstream import Address, Upstream

async def run(port, pem):
    upstream = Upstream(Address("https", "localhost", port), proxy="", context=lambda: tls_context(pem))
    async with upstream.exchange("POST", "/", [], b"", silence_s=5) as answer:
        print(b"".join([piece async for piece in answer.body]).decode())
    await upstream.close()

asyncio.run(run(int(sys.argv[1]), Path(sys.argv[2]).read_bytes()))
"""
    with server(tls_server(authority)) as port:
        done = subprocess.run(
            (sys.executable, "-c", script, str(port), str(authority / "ca.pem")),
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.stdout, done.stderr) == ("hello\n", "")
