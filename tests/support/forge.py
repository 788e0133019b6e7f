"""A real forge on this host's loopback: `git http-backend` behind TLS, with accounts, private repositories and tricks.

What it is asked is in `asked`, with the credential that came along: a test sees what left the machine, and to whom.
One certificate serves several names of the same server: `localhost`, `forge.localhost`, `evil.localhost` (libcurl
answers names below localhost itself, RFC 6761) and 127.0.0.1.
"""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedReader
from pathlib import Path
from typing import IO, Protocol, cast
from urllib.parse import urlsplit

from support.repos import sh

NAMES = ("localhost", "forge.localhost", "evil.localhost")
READ, WRITE = "read", "write"


@dataclass(frozen=True)
class Asked:
    """One request. `account` is who the server took it for, `secret` the password that came along, if any."""

    method: str
    host: str
    path: str
    account: str
    secret: str
    status: int


@dataclass(frozen=True)
class Account:
    """Who may do what: repositories by name, `read` or `write`."""

    name: str
    token: str = field(repr=False)
    may: dict[str, str]


class Trick(Protocol):
    """What a repository's address answers instead of git; False lets git answer."""

    def __call__(self, request: Request, /) -> bool: ...


@dataclass
class Forge:
    """A running server. `root` holds the bare repositories, `ca` is the file that its clients trust.

    `nothing` is an empty file for its git's settings: a program that replaces what it writes would replace a device.
    """

    root: Path
    ca: Path
    nothing: Path
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    accounts: dict[str, Account] = field(default_factory=dict)
    public: set[str] = field(default_factory=set)
    tricks: dict[str, Trick] = field(default_factory=dict)
    closing: threading.Event = field(default_factory=threading.Event)

    def url(self, name: str, *, host: str = "localhost", user: str = "") -> str:
        """The address of a repository, as `team/app`."""
        return f"https://{user}{'@' if user else ''}{host}:{self.port}/{name}.git"

    def path(self, name: str) -> Path:
        """Where it lies on disk."""
        return self.root / f"{name}.git"

    def host(self, name: str, *, source: Path | None = None, public: bool = False) -> Path:
        """A new bare repository, with all branches and tags of `source`."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        sh(self.root, "init", "--quiet", "--bare", str(path), env=self.env())
        sh(path, "config", "http.receivepack", "true", env=self.env())
        if source is not None:
            sh(path, "fetch", "--quiet", str(source), "+refs/*:refs/*", env=self.env())
        if public:
            self.public.add(name)
        return path

    def account(self, name: str, **may: str) -> Account:
        """A new account with a token; `may` says for each repository (`__` is a slash) `read` or `write`."""
        token = f"forge-token-{name}-{os.urandom(12).hex()}"
        found = Account(name, token, {one.replace("__", "/"): right for one, right in may.items()})
        self.accounts[name] = found
        return found

    def hook(self, name: str, hook: str, script: str) -> None:
        """The forge's own hook of a repository, as a shell script."""
        path = self.path(name) / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def refs(self, name: str) -> dict[str, str]:
        """The object of each ref."""
        said = sh(self.path(name), "for-each-ref", "--format=%(refname) %(objectname)", env=self.env())
        return dict(line.split(" ", 1) for line in said.splitlines())

    def many_refs(self, name: str, count: int, *, below: str = "refs/heads/many") -> None:
        """`count` more refs to the newest commit of some branch, at the cost of one file."""
        oid = next(iter(self.refs(name).values()))
        lines = "".join(f"{oid} {below}/r{number:06}\n" for number in range(count))
        (self.path(name) / "packed-refs").write_text(
            f"# pack-refs with: peeled fully-peeled sorted \n{lines}"
        )

    def trust(self, home: Path, *accounts: Account, host: str = "localhost") -> None:
        """Let git of who has this home trust the server, and know these accounts by git's own `store` helper."""
        home.mkdir(parents=True, exist_ok=True)
        known = "".join(f"https://{one.name}:{one.token}@{host}:{self.port}\n" for one in accounts)
        secrets = home / ".git-credentials"
        with secrets.open("a") as handle:
            handle.write(known)
        secrets.chmod(0o600)
        with (home / ".gitconfig").open("a") as handle:
            handle.write(f"[http]\n\tsslCAInfo = {self.ca}\n")
            if accounts:
                handle.write(f"[credential]\n\thelper = store --file={secrets}\n")

    def env(self) -> dict[str, str]:
        """The environment of the server's own git."""
        config = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": str(self.nothing), "LC_ALL": "C"}
        return {"PATH": os.environ["PATH"], "HOME": str(self.root), **config}

    def admitted(self, authorization: str) -> tuple[Account | None, str]:
        """Whose credential this is, and its password."""
        with suppress(ValueError):
            kind, _, value = authorization.partition(" ")
            if kind.lower() == "basic":
                name, _, password = base64.b64decode(value).decode().partition(":")
                account = self.accounts.get(name)
                return account if account and account.token == password else None, password
        return None, authorization

    def secrets_seen(self, host: str = "") -> set[str]:
        """All passwords that came, of one name of the server or of all."""
        return {one.secret for one in self.asked if one.secret and host in ("", one.host)}


class Request(BaseHTTPRequestHandler):
    """One request to the forge."""

    protocol_version = "HTTP/1.1"
    server: _Server

    @property
    def forge(self) -> Forge:
        return self.server.forge

    @property
    def repository(self) -> str:
        return urlsplit(self.path).path.lstrip("/").partition(".git")[0]

    def do_GET(self) -> None:
        self.status = 0
        self.account, secret = self.forge.admitted(self.headers.get("authorization", ""))
        try:
            trick = self.forge.tricks.get(self.repository)
            if trick is None or not trick(self):
                self._as_git()
        finally:
            name = self.account.name if self.account else ""
            host = self.headers.get("host", "").rpartition(":")[0]
            self.forge.asked.append(Asked(self.command, host, self.path, name, secret, self.status))

    do_POST = do_GET

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        """A plain answer, after which the connection ends."""
        self.close_connection = True
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), "connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def send_response(self, code: int, message: str | None = None) -> None:
        self.status = code
        super().send_response(code, message)

    def _as_git(self) -> None:
        wanted = WRITE if "receive-pack" in self.path else READ
        if self.account is None and not (self.repository in self.forge.public and wanted == READ):
            self.say(401, b"who are you?\n", www_authenticate='Basic realm="forge"')
        elif self.account and not self._may(wanted):
            self.say(404 if self.repository not in self.account.may else 403, b"not for you\n")
        else:
            self._serve()

    def _may(self, wanted: str) -> bool:
        assert self.account is not None
        right = self.account.may.get(self.repository, READ if self.repository in self.forge.public else "")
        return right in (WRITE, wanted)

    def _serve(self) -> None:
        url = urlsplit(self.path)
        env = {
            **self.forge.env(), "GIT_PROJECT_ROOT": str(self.forge.root), "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": url.path, "QUERY_STRING": url.query, "REQUEST_METHOD": self.command,
            "REMOTE_ADDR": "127.0.0.1", "REMOTE_USER": self.account.name if self.account else "",
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
        }  # fmt: skip
        with subprocess.Popen(
            ("git", "http-backend"),
            env=env,
            cwd=self.forge.root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as backend:
            assert backend.stdin is not None
            assert backend.stdout is not None
            feeding = threading.Thread(target=self._feed, args=(backend.stdin,))
            feeding.start()
            try:
                self._pass_on(cast("BufferedReader", backend.stdout))
            except (ConnectionError, ssl.SSLError):
                backend.kill()
            finally:
                feeding.join()

    def _feed(self, sink: IO[bytes]) -> None:
        with suppress(OSError, ValueError):
            for piece in self.body():
                sink.write(piece)
        with suppress(OSError):
            sink.close()

    def body(self) -> Iterator[bytes]:
        """What came with the request."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            left = int(self.headers.get("content-length", 0))
            while left and (piece := self.rfile.read(min(left, 1 << 16))):
                left -= len(piece)
                yield piece

    def _pass_on(self, answer: BufferedReader) -> None:
        headers = dict[str, str]()
        while line := answer.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        self.send_response(int(headers.pop("status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        while piece := answer.read1(1 << 16):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None: ...


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    forge: Forge
    context: ssl.SSLContext

    def finish_request(self, request: object, client_address: object) -> None:
        """By TLS, spoken in the thread of this request: a client that is silent holds up nobody."""
        with suppress(OSError), self.context.wrap_socket(request, server_side=True) as link:  # type: ignore[arg-type]
            super().finish_request(link, client_address)

    def handle_error(self, *_: object) -> None: ...


@contextmanager
def forge_server(directory: Path) -> Iterator[Forge]:
    """A forge without repositories and accounts, gone afterwards."""
    directory.mkdir(parents=True, exist_ok=True)
    forge = Forge(directory / "repos", directory / "ca.pem", directory / "gitconfig")
    forge.root.mkdir()
    forge.nothing.touch()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(directory, forge.ca))
    with _Server(("127.0.0.1", 0), Request) as server:
        server.forge, server.context, forge.port = forge, context, server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield forge
        finally:
            forge.closing.set()
            server.shutdown()
            thread.join()


def certificate(directory: Path, ca: Path) -> tuple[Path, Path]:
    """A certificate of its own authority in the file `ca`, and its key."""
    key = directory / "tls-key.pem"
    names = ",".join(("IP:127.0.0.1", *(f"DNS:{name}" for name in NAMES)))
    subprocess.run(
        ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=forge", "-addext", f"subjectAltName={names}",
         "-keyout", str(key), "-out", str(ca)),
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return ca, key


def user_env(home: Path, **more: str) -> Mapping[str, str]:
    """The environment of a person's git: their own home, no prompt."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", **more}
