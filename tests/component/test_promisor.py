"""Partial clones: what they lack is fetched by the host from the user's own remote, or named."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from coding_agents.errors import GitError
from coding_agents.gitsync import promisor
from support.kinds import partial, plain, treeless
from support.repos import commit, sh
from support.workspaces import Host

KINDS = pytest.mark.parametrize("build", [partial, treeless])


def missing(host: Host) -> int:
    return host.git("rev-list", "--objects", "--all", "--missing=print").count("?")


def refused(host: Host) -> GitError:
    with pytest.raises(GitError) as caught:
        host.fill()
    assert caught.value.hint
    return caught.value


@KINDS
def test_what_is_missing_is_fetched_and_marked_as_promised(tmp_path: Path, build: object) -> None:
    host = build(tmp_path)  # type: ignore[operator]
    refs = host.git("for-each-ref")
    before = host.git("rev-parse", "HEAD")
    filled = host.fill()
    assert missing(host) == 0
    for pack in (host.work / ".git/objects/pack").glob("*.pack"):
        assert pack.with_suffix(".promisor").exists()
    assert host.git("fsck", "--full", "--no-dangling") == ""
    assert (host.git("for-each-ref"), host.git("rev-parse", "HEAD")) == (refs, before)
    assert not (host.work / ".git/FETCH_HEAD").exists()
    assert host.inside(filled, "log", "--format=%s", "--stat")
    assert host.inside(filled, "fsck", "--full", "--strict", "--no-dangling") == ""


@KINDS
def test_a_remote_that_cannot_be_reached_is_named_with_what_to_do(tmp_path: Path, build: object) -> None:
    host = build(tmp_path)  # type: ignore[operator]
    (tmp_path / "work").rename(tmp_path / "away")
    error = refused(host)
    assert "of HEAD's history, such as " in error.message
    assert "origin (file://" in error.message
    assert "does not give them" in error.message
    command = shlex.split(error.hint.partition(": ")[2])
    (tmp_path / "away").rename(tmp_path / "work")
    assert command[:3] == ["git", "-C", str(host.work)]
    sh(host.work, *command[3:], env=host.env)
    assert missing(host) == 0
    (tmp_path / "work").rename(tmp_path / "away")
    host.fill()


def test_the_example_has_its_path_where_head_names_it(tmp_path: Path) -> None:
    origin = plain(tmp_path)
    origin.git("config", "uploadpack.allowFilter", "true")
    sh(tmp_path, "clone", "--quiet", "--no-checkout", "--filter=blob:none", f"file://{origin.work}", "bare",
       env=origin.env)  # fmt: skip
    host = Host(tmp_path, tmp_path / "bare", origin.env)
    host.git("sparse-checkout", "set", "--no-cone", "nothing")
    host.git("checkout", "--quiet", "main")
    (tmp_path / "work").rename(tmp_path / "away")
    message = refused(host).message
    assert "objects of HEAD's history" in message
    assert any(f"({path!r})" in message for path in ("README", "changed", "gone", "kept", "old"))


@pytest.mark.parametrize("url", ["ext::sh -c 'touch RAN; false'", "fd::17", "nowhere::x"])
def test_no_program_is_started_for_an_address(tmp_path: Path, url: str) -> None:
    host = partial(tmp_path)
    host.git("config", "protocol.allow", "always")
    host.git("config", "remote.origin.url", url.replace("RAN", str(tmp_path / "ran")))
    error = refused(host)
    assert "not allowed" in error.message
    assert not (tmp_path / "ran").exists()


def test_a_remote_that_starts_with_a_dash_is_no_option(tmp_path: Path) -> None:
    host = partial(tmp_path)
    host.git("config", "--unset", "remote.origin.promisor")
    host.git("config", "remote.--upload-pack=touch.promisor", "true")
    host.git("config", "extensions.partialClone", f"--upload-pack=touch {tmp_path / 'ran'};")
    assert "no promisor remote" in refused(host).message
    assert not (tmp_path / "ran").exists()


def test_no_hook_runs_and_no_password_is_shown(tmp_path: Path) -> None:
    host = partial(tmp_path)
    for hook in ("reference-transaction", "post-checkout", "post-index-change"):
        path = host.work / ".git/hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        path.chmod(0o755)
    host.git("config", "remote.origin.url", "http://user:s3cret@127.0.0.1:1/x")
    error = refused(host)
    assert "s3cret" not in f"{error.message} {error.hint} {error.details}"
    host.git("config", "remote.origin.url", f"file://{tmp_path / 'work'}")
    host.fill()
    assert not (tmp_path / "ran").exists()


def test_a_remote_that_gives_nothing_ends(tmp_path: Path) -> None:
    """An origin that has lost the objects itself."""
    host = partial(tmp_path)
    sh(tmp_path, "init", "--quiet", "other", env=host.env)
    commit(tmp_path / "other", "file", "other\n", env=host.env)
    host.git("config", "remote.origin.url", f"file://{tmp_path / 'other'}")
    assert "does not give them" in refused(host).message


def test_a_second_promisor_is_asked_for_what_the_first_does_not_have(tmp_path: Path) -> None:
    host = partial(tmp_path)
    host.git("config", "remote.backup.url", f"file://{tmp_path / 'work'}")
    host.git("config", "remote.backup.promisor", "true")
    host.git("config", "remote.origin.url", f"file://{tmp_path / 'gone'}")
    host.fill()
    assert missing(host) == 0


def test_a_whole_repository_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a process for a repository that is whole")

    monkeypatch.setattr(promisor, "git", never)
    monkeypatch.setattr(promisor, "user_store", never)
    plain(tmp_path).fill()


@KINDS
def test_over_http_with_the_users_own_credentials(tmp_path: Path, build: object) -> None:
    host = build(tmp_path)  # type: ignore[operator]
    with serving_git(tmp_path) as port:
        host.git("config", "remote.origin.url", f"http://127.0.0.1:{port}/work/.git")
        (tmp_path / "home/credentials").write_text(f"http://ada:right@127.0.0.1:{port}\n")
        assert "credentials" not in host.git("config", "--list")
        error = refused(host)
        assert "could not read Username" in error.message
        host.configure(f'[credential]\n\thelper = "store --file={tmp_path}/home/credentials"\n')
        host.fill()
    assert missing(host) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_fetches_as_the_owner_of_the_repository(tmp_path: Path) -> None:
    host = partial(tmp_path)
    for path in [host.work, *host.work.rglob("*")]:
        os.lchown(path, 4242, 4242)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_mode & 0o011 != 0o011 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    # What root alone may read is not fetched for them.
    (tmp_path / "work").chmod(0o700)
    assert "does not give them" in refused(host).message
    (tmp_path / "work").chmod(0o755)
    for path in [tmp_path / "work", *(tmp_path / "work").rglob("*")]:
        os.lchown(path, 4242, 4242)
    host.fill()
    assert {path.lstat().st_uid for path in (host.work / ".git/objects").rglob("*")} == {4242}


@contextmanager
def serving_git(root: Path) -> Iterator[int]:
    """git's own HTTP backend on loopback, for who knows the password."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != "Basic YWRhOnJpZ2h0":  # ada:right
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            variables = {
                "PATH": os.environ["PATH"], "HOME": "/", "GIT_CONFIG_NOSYSTEM": "1", "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_PROJECT_ROOT": str(root), "PATH_INFO": path, "QUERY_STRING": query,
                "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)), "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            }  # fmt: skip
            done = subprocess.run(
                ["git", "http-backend"], env=variables, input=body, capture_output=True, check=True
            )
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            self.send_response(200)
            for line in head.decode().splitlines():
                self.send_header(*line.split(": ", 1))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
