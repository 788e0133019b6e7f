"""Clones of URLs by the host: whole or not at all, without prompts, hooks or leaked passwords."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from coding_agents.errors import CloneError
from coding_agents.gitsync.clone import clone_url, empty_repository
from coding_agents.gitsync.urls import GitUrl, parse_url
from coding_agents.model.repo import RepoKind
from support.repos import commit, git_env, head, make_repo, sh


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return git_env(tmp_path / "home")


@pytest.fixture
def upstream(tmp_path: Path, env: dict[str, str]) -> Path:
    return make_repo(tmp_path / "upstream", env=env)


def url_of(raw: str | Path) -> GitUrl:
    url = parse_url(f"file://{raw}" if isinstance(raw, Path) else raw)
    assert url is not None
    return url


def leftovers(data: Path) -> list[Path]:
    return [path for path in data.rglob("*.new")]


def test_a_clone_and_its_facts(tmp_path: Path, upstream: Path, env: dict[str, str]) -> None:
    sh(upstream, "branch", "other", env=env)
    sh(upstream, "tag", "v1", env=env)
    facts = clone_url(url_of(upstream), tmp_path / "data", env=env)
    assert (facts.kind, facts.name, facts.work_tree) == (RepoKind.URL, "upstream", None)
    assert facts.git_dir == tmp_path / "data/repos/localhost" / f"{str(upstream)[1:]}.git"
    assert (facts.head, facts.branch) == (head(upstream, env=env), "main")
    assert facts.origin_url == f"file://{upstream}"
    refs = set(sh(facts.git_dir, "for-each-ref", "--format=%(refname)", env=env).split())
    assert refs == {
        "refs/heads/main", "refs/remotes/origin/main", "refs/remotes/origin/other", "refs/tags/v1",
    }  # fmt: skip
    assert facts.git_dir.stat().st_mode & 0o077 == 0


def test_an_update_follows_the_remote_and_keeps_our_branches(
    tmp_path: Path, upstream: Path, env: dict[str, str]
) -> None:
    facts = clone_url(url_of(upstream), tmp_path / "data", env=env)
    ours = sh(facts.git_dir, "commit-tree", "-p", "main", "-m", "agent", "main^{tree}", env=env)
    sh(facts.git_dir, "update-ref", "refs/heads/demo/work", ours, env=env)
    sh(upstream, "branch", "demo/work", env=env)
    new = commit(upstream, "more", "x\n", env=env)
    again = clone_url(url_of(upstream), tmp_path / "data", env=env)
    assert again.head == new
    assert sh(facts.git_dir, "rev-parse", "demo/work", env=env) == ours


def test_a_default_branch_with_work_of_ours_is_not_overwritten(
    tmp_path: Path, upstream: Path, env: dict[str, str]
) -> None:
    facts = clone_url(url_of(upstream), tmp_path / "data", env=env)
    ours = sh(facts.git_dir, "commit-tree", "-p", "main", "-m", "merged", "main^{tree}", env=env)
    sh(facts.git_dir, "update-ref", "refs/heads/main", ours, env=env)
    commit(upstream, "more", "x\n", env=env)
    assert clone_url(url_of(upstream), tmp_path / "data", env=env).head == ours


def test_another_default_branch(tmp_path: Path, upstream: Path, env: dict[str, str]) -> None:
    clone_url(url_of(upstream), tmp_path / "data", env=env)
    sh(upstream, "checkout", "-qb", "trunk", env=env)
    new = commit(upstream, "more", "x\n", env=env)
    facts = clone_url(url_of(upstream), tmp_path / "data", env=env)
    assert (facts.branch, facts.head) == ("trunk", new)


def test_an_empty_remote(tmp_path: Path, env: dict[str, str]) -> None:
    sh(tmp_path, "init", "-q", "--bare", "void.git", env=env)
    assert clone_url(url_of(tmp_path / "void.git"), tmp_path / "data", env=env).head is None


def test_a_sha256_remote(tmp_path: Path, env: dict[str, str]) -> None:
    repo = tmp_path / "r"
    repo.mkdir()
    sh(repo, "init", "-q", "--object-format=sha256", env=env)
    tip = commit(repo, "a", "x\n", env=env)
    facts = clone_url(url_of(repo), tmp_path / "data", env=env)
    assert (facts.object_format, facts.head) == ("sha256", tip)


def test_what_does_not_exist(tmp_path: Path, env: dict[str, str]) -> None:
    with pytest.raises(CloneError) as caught:
        clone_url(url_of(tmp_path / "missing"), tmp_path / "data", env=env)
    assert "does not exist" in caught.value.message
    assert leftovers(tmp_path) == []


def test_a_clone_that_breaks_leaves_nothing(tmp_path: Path, upstream: Path, env: dict[str, str]) -> None:
    blob = sh(upstream, "rev-parse", "HEAD:README", env=env)
    (upstream / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(CloneError):
        clone_url(url_of(upstream), tmp_path / "data", env=env)
    assert leftovers(tmp_path / "data") == []
    assert not (tmp_path / "data/repos" / url_of(upstream).directory).exists()


def test_an_interrupted_clone_does_not_stand_in_the_way(
    tmp_path: Path, upstream: Path, env: dict[str, str]
) -> None:
    final = tmp_path / "data/repos" / url_of(upstream).directory
    final.with_name(f"{final.name}.new").mkdir(parents=True)
    assert clone_url(url_of(upstream), tmp_path / "data", env=env).head == head(upstream, env=env)


def test_no_hook_template_or_helper_of_the_users_runs(
    tmp_path: Path, upstream: Path, env: dict[str, str]
) -> None:
    marker = tmp_path / "ran"
    hook = tmp_path / "template/hooks/post-checkout"
    hook.parent.mkdir(parents=True)
    for name in ("post-checkout", "reference-transaction"):
        (hook.parent / name).write_text(f"#!/bin/sh\ntouch '{marker}'\n")
        (hook.parent / name).chmod(0o755)
    with (Path(env["HOME"]) / ".gitconfig").open("a") as config:
        config.write(f"[init]\n\ttemplateDir = {tmp_path}/template\n[core]\n\thooksPath = {hook.parent}\n")
    sh(upstream, "config", "core.hooksPath", "/dev/null", env=env)
    facts = clone_url(url_of(upstream), tmp_path / "data", env=env)
    assert not marker.exists()
    assert not (facts.git_dir / "hooks").exists()


def test_a_rewrite_to_a_remote_helper_is_refused(tmp_path: Path, env: dict[str, str]) -> None:
    marker = tmp_path / "ran"
    with (Path(env["HOME"]) / ".gitconfig").open("a") as config:
        config.write(f'[url "ext::touch {marker} #"]\n\tinsteadOf = https://h.test/\n')
    with pytest.raises(CloneError):
        clone_url(url_of("https://h.test/x"), tmp_path / "data", env=env)
    assert not marker.exists()


class Forge(BaseHTTPRequestHandler):
    """A server on which one path needs credentials and no other exists."""

    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.headers.get("Authorization", ""))
        self.send_response(401 if self.path.startswith("/private") else 404)
        self.send_header("WWW-Authenticate", 'Basic realm="x"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def forge() -> Iterator[tuple[str, list[str]]]:
    seen: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Forge,), {"seen": seen}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_missing_credentials_are_named_without_a_prompt(tmp_path: Path, env: dict[str, str]) -> None:
    with forge() as (address, _), pytest.raises(CloneError) as caught:
        clone_url(url_of(f"http://{address}/private"), tmp_path / "data", env=env)
    assert "needs credentials" in caught.value.message
    assert "ls-remote" in caught.value.hint


def test_a_repository_that_the_server_does_not_have(tmp_path: Path, env: dict[str, str]) -> None:
    with forge() as (address, _), pytest.raises(CloneError) as caught:
        clone_url(url_of(f"http://{address}/missing"), tmp_path / "data", env=env)
    assert "does not exist" in caught.value.message


def test_a_password_in_the_url_is_used_and_never_shown(tmp_path: Path, env: dict[str, str]) -> None:
    with forge() as (address, seen), pytest.raises(CloneError) as caught:
        clone_url(url_of(f"http://ada:hunter2@{address}/private"), tmp_path / "data", env=env)
    assert any(header.startswith("Basic ") for header in seen)
    error = caught.value
    assert "hunter2" not in f"{error.message}{error.details}{error.hint}"


def test_the_repository_for_empty_sessions(tmp_path: Path, env: dict[str, str]) -> None:
    facts = empty_repository(tmp_path, "demo-scratch", env=env)
    assert (facts.kind, facts.name, facts.head, facts.branch) == (
        RepoKind.EMPTY,
        "demo-scratch",
        None,
        "main",
    )
    assert facts.git_dir == tmp_path / "repos/empty/demo-scratch.git"
    assert empty_repository(tmp_path, "demo-scratch", env=env) == facts
