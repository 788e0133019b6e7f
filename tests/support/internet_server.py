"""A small internet on addresses of a test's own: a server of names, HTTP on 80 and 8080, TLS on 443 and 8443.

Run with `python3 -IS` in a network namespace: lifetime in seconds, address of the server of names, its zone (JSON: name
to a list of addresses, of which each answer gives all, or with "next" first the one that is next), certificate and key,
a file in which each request that arrives is a line of JSON, and a directory that is served below /static/.
"""

import json
import socket
import ssl
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

lifetime, resolver, zone_text, certificate, key, log_path, static = sys.argv[1:]
zone = json.loads(zone_text)
asked = {}
lock = threading.Lock()


def note(**fields):
    with lock, Path(log_path).open("a") as log:
        log.write(json.dumps(fields) + "\n")


class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        sni = getattr(self.connection, "sni", "")
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length) if length else b""
        note(
            kind="http",
            host=self.headers.get("host", ""),
            path=self.path,
            method=self.command,
            sni=sni,
            body=len(body),
            at=self.connection.getsockname()[0],
            headers=dict(self.headers.items()),
        )
        if self.path.startswith("/static/"):
            wanted = Path(
                static,
                *[part for part in self.path.partition("?")[0].split("/")[2:] if part not in ("", "..")],
            )
            found = wanted / "index.html" if wanted.is_dir() else wanted
            content = found.read_bytes() if found.is_file() else b""
            self.send_response(200 if found.is_file() else 404)
            self.send_header(
                "content-type", "text/html" if found.suffix == ".html" else "application/octet-stream"
            )
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else content)
            return
        if self.path.startswith("/bytes/"):
            left = int(self.path.rpartition("/")[2])
            self.send_response(200)
            self.send_header("content-length", str(left))
            self.end_headers()
            while left:
                left -= self.wfile.write(bytes(min(left, 1 << 16)))
            return
        if self.path.startswith("/slow"):
            self.send_response(200)
            self.send_header("content-length", "40")
            self.end_headers()
            for _ in range(40):
                self.wfile.write(b".")
                time.sleep(0.1)
            return
        answer = json.dumps(
            {"you": self.headers.get("host", ""), "path": self.path, "sent": len(body)}
        ).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_PUT = do_HEAD = do_DELETE = do_OPTIONS = do_GET

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_):
        pass


class Secure(Server):
    def finish_request(self, request, client_address):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        seen = []
        context.sni_callback = lambda _socket, name, _context: seen.append(name)
        note(kind="tls", at=request.getsockname()[0])
        with context.wrap_socket(request, server_side=True) as secure:
            secure.sni = seen[0] if seen else ""
            super().finish_request(secure, client_address)


class ThroughUs(BaseHTTPRequestHandler):
    """A company's proxy: it resolves by the zone, and wants to be told who asks."""

    def do_CONNECT(self):
        if not self._known():
            return
        host, _, port = self.path.partition(":")
        with socket.create_connection((zone[host][-1], int(port))) as there:
            self.send_response(200)
            self.end_headers()
            ways = [(self.connection, there), (there, self.connection)]
            threads = [threading.Thread(target=carry, args=way) for way in ways]
            for one in threads:
                one.start()
            for one in threads:
                one.join()

    def do_GET(self):
        if self._known():
            body = self.path.encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def _known(self):
        told = self.headers.get("proxy-authorization", "")
        note(kind="proxy", method=self.command, path=self.path, told=told)
        if not told:
            self.send_error(407)
        return bool(told)

    def log_message(self, *_):
        pass


def carry(source, target):
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


def answer(query):
    end = query.index(b"\0", 12) + 5
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("latin-1"))
        at += 1 + query[at]
    name, kind = ".".join(labels).lower(), query[end - 4 : end - 2]
    note(kind="dns", name=name)
    addresses = list(zone.get(name, ()))
    if addresses[:1] == ["next"]:
        asked[name] = asked.get(name, -1) + (kind == b"\0\1")
        addresses = [addresses[1:][max(0, asked[name]) % (len(addresses) - 1)]]
    wanted = [one for one in map(ip_address, addresses) if (kind == b"\0\1") == (one.version == 4)]
    if kind not in (b"\0\1", b"\0\x1c"):
        wanted = []
    head = (
        query[:2]
        + (b"\x81\x80" if name in zone else b"\x81\x83")
        + b"\0\1"
        + len(wanted).to_bytes(2, "big")
        + bytes(4)
    )
    records = b"".join(
        b"\xc0\x0c" + kind + b"\0\1\0\0\0\0" + len(o.packed).to_bytes(2, "big") + o.packed for o in wanted
    )
    return head + query[12:end] + records


def names():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind((resolver, 53))
        print("up", flush=True)
        while True:
            query, peer = one.recvfrom(512)
            with suppress(IndexError, ValueError, OSError):
                one.sendto(answer(query), peer)


pages = (
    (80, Server, Page),
    (8080, Server, Page),
    (443, Secure, Page),
    (8443, Secure, Page),
    (3128, Server, ThroughUs),
)
for port, kind, handler in pages:
    server = kind(("0.0.0.0", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
threading.Thread(target=names, daemon=True).start()
time.sleep(float(lifetime))
