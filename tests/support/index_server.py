"""A registry of npm's and a Python index, for the packages in /index: run in a container, standard library alone.

What it says of a package is made of the files that are there when it is asked, so a test can put others in their place.
Prints its address, with a certificate of its own in /index/ca.pem.
"""

import base64
import hashlib
import json
import socket
import ssl
import subprocess
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

INDEX = Path("/index")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).strip("/")
        here = f"https://{self.headers['host']}"
        if (INDEX / path).is_file():
            self.say((INDEX / path).read_bytes(), "application/octet-stream")
        elif path.startswith("simple/") and (INDEX / path).is_dir():
            self.say(page(INDEX / path, f"{here}/{path}").encode(), "text/html")
        elif (packument := npm(path, here)) is not None:
            self.say(json.dumps(packument).encode(), "application/json")
        else:
            self.say(b"{}", "application/json", 404)

    def say(self, body: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def page(directory: Path, here: str) -> str:
    """PEP 503's page of one package."""
    hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in directory.iterdir()}
    return "".join(f'<a href="{here}/{name}#sha256={digest}">{name}</a>\n' for name, digest in hashes.items())


def npm(name: str, here: str) -> dict | None:
    """What npm's registry says of a package: its versions, newest last."""
    versions = {}
    for place in sorted((INDEX / "npm" / name.replace("/", "+")).glob("*.json")):
        archive = place.with_suffix(".tgz")
        sri = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        dist = {"tarball": f"{here}/{archive.relative_to(INDEX)}", "integrity": f"sha512-{sri}"}
        manifest = json.loads(place.read_text().replace("THIS-INDEX", here))
        versions[place.stem] = {**manifest, "dist": dist}
    return {"name": name, "dist-tags": {"latest": max(versions)}, "versions": versions} if versions else None


def main() -> None:
    address = socket.gethostbyname(socket.gethostname())
    words = ("-nodes", "-days", "2", "-subj", "/CN=TESTINDEXROOT", "-addext", f"subjectAltName=IP:{address}")
    key, certificate = INDEX / "key.pem", INDEX / "ca.pem"
    subprocess.run(
        ("openssl", "req", "-x509", "-newkey", "rsa:2048", *words, "-keyout", key, "-out", certificate),
        check=True,
    )
    server = ThreadingHTTPServer(("", 8443), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    print(f"https://{address}:8443", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
