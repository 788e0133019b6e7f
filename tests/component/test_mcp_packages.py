"""Trusting servers that run packages, with an engine that answers as npm and pip would, and what sessions get then."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from coding_agents.app.images import build_settings
from coding_agents.app.mcp import Trusting, Workbench, trusted_packages, workbench
from coding_agents.app.mcp_packages import (
    build_packages,
    install_packages,
    make_ready,
    session_image,
    with_packages,
)
from coding_agents.app.mcp_session import SessionServers, session_servers
from coding_agents.cli import main
from coding_agents.config.load import load_settings
from coding_agents.errors import ImageBuildError, McpError
from coding_agents.gitsync.discover import discover
from coding_agents.images.build import ensure_image
from coding_agents.images.listing import list_layers, prune_images
from coding_agents.mcp.locked import Lock
from coding_agents.mcp.trust import TrustRecord
from coding_agents.model.mcp import McpPlace
from coding_agents.sandbox.spec import ContainerSpec
from support.host import host_environment
from support.image_engine import ImageEngineStub
from support.logins import put
from support.repos import git_env, make_repo

TOML = '[mcp_servers.probe]\ncommand = "npx"\nargs = ["-y", "server", "--fast", "tools/a.json"]\n'
PLACE = McpPlace(file="claude.json", format="claude")
OTHER_INDEX = "https://user:pass@index.example/simple"


def npm_answer(version: str = "1.0.0", **changes: Any) -> bytes:
    main = {"version": version, "integrity": f"sha512-{'A' * 86}==", "bin": {"server": "run.js"}, **changes}
    packages = {"": {}, "node_modules/server": main}
    return b"ok\n" + json.dumps({"lockfileVersion": 3, "packages": packages}).encode()


@dataclass
class AnsweringEngine(ImageEngineStub):
    """An engine whose throw-away builds end with `answer`."""

    answer: bytes = field(default_factory=npm_answer)

    def create(self, spec: ContainerSpec) -> str:
        return "container"

    def read_file(self, container: str, path: str, *, max_bytes: int) -> bytes:
        return self.answer

    def remove(self, container: str, *, force: bool = False) -> None: ...


@dataclass
class Site:
    """A repository with a server that runs a package, its user, and an engine."""

    home: Path
    repo: Path
    engine: AnsweringEngine

    def __post_init__(self) -> None:
        self.env = host_environment(self.home, PIP_INDEX_URL=OTHER_INDEX, npm_config_registry=OTHER_INDEX)
        self.builds = build_settings(self.env, load_settings(self.env), lambda line: None)
        self.facts = discover(self.repo, env=self.env.for_git())

    @contextmanager
    def bench(self) -> Iterator[Workbench]:
        with workbench(self.env, self.facts) as bench:
            yield bench

    def look(self) -> Trusting:
        with self.bench() as bench:
            return with_packages(bench, bench.look_at("probe", ""), self.engine, self.builds)

    def trust(self) -> TrustRecord:
        with self.bench() as bench:
            return bench.trust(self.look())

    def session(self, packages: tuple[str, ...] | None = None) -> SessionServers:
        return session_servers(self.env, self.facts, PLACE, packages)

    def why_not(self, packages: tuple[str, ...] | None = None) -> str:
        got = self.session(packages)
        assert (tuple(got.started), got.locks) == ((), ())
        return got.left[0][1].reason


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    repo = make_repo(tmp_path / "shop", env=git_env(tmp_path))
    write(repo, ".coding-agents/mcp.toml", TOML)
    write(repo, "tools/a.json", "{}")
    write(repo, "server", "#!/bin/sh\ntouch /tmp/pwned\n")  # a file of the package's name is not the package
    engine = AnsweringEngine(registry=frozenset({"debian:bookworm-slim"}))
    return Site(tmp_path, repo, engine)


def write(repo: Path, path: str, content: str) -> None:
    target = repo / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content)


def lock_of(record: TrustRecord) -> Lock:
    assert record.packages is not None
    return record.packages


def test_what_was_trusted_is_what_a_session_runs(site: Site) -> None:
    assert site.why_not().startswith("is not trusted")
    lock = lock_of(site.trust())
    got = site.session()
    assert got.locks == (lock,)
    said = json.loads(got.listing)["mcpServers"]["probe"]
    copy = "/opt/coding-agents-config/servers/probe/tools/a.json"
    assert (said["command"], said["args"]) == (lock.run, ["--fast", copy])
    assert set(got.copies) == {"servers/probe/tools/a.json"}
    assert trusted_packages(site.env) == {lock.digest}


def test_packages_that_nobody_pinned_are_not_trusted(site: Site) -> None:
    with site.bench() as bench, pytest.raises(McpError, match="are not pinned"):
        bench.trust(bench.look_at("probe", ""))


@pytest.mark.parametrize(
    "change",
    [
        lambda lock: replace(lock, program="node_modules/server/evil.js"),
        lambda lock: replace(lock, version="6.6.6"),
        lambda lock: replace(lock, packages=(replace(lock.packages[0], integrity=f"sha512-{'B' * 86}=="),)),
        lambda lock: None,
    ],
)  # fmt: skip
def test_a_record_whose_packages_were_changed_is_none(site: Site, change: Any) -> None:
    record = site.trust()
    path = next((site.env.data_dir / "mcp").glob("*/probe.json"))
    path.write_bytes(msgspec.json.encode(replace(record, packages=change(record.packages))))
    assert site.why_not().startswith("is not trusted")
    assert trusted_packages(site.env) == frozenset()


def test_a_record_of_before_packages_were_pinned_counts_no_more(site: Site) -> None:
    with site.bench() as bench:
        one = bench.look_at("probe", "")
        bench.store.save("", one.placed.file, one.placed.server, one.pinned, now_ms=1)
    assert site.why_not().startswith("has changed since it was trusted")


def test_another_definition_or_another_runner_is_not_what_was_trusted(site: Site) -> None:
    site.trust()
    for changed in (
        TOML.replace('"server"', '"server@2"'),
        TOML.replace("--fast", "--evil"),
        TOML.replace('"-y", ', ""),
    ):
        write(site.repo, ".coding-agents/mcp.toml", changed)
        assert site.why_not().startswith("has changed since it was trusted")
    write(site.repo, ".coding-agents/mcp.toml", TOML.replace('"-y"', '"--registry=x"'))
    assert "its option '--registry' is not known here" in site.why_not()
    assert "cannot be pinned" in "".join(line for seen in seen_in(site) for line in seen)


def seen_in(site: Site) -> list[tuple[str, ...]]:
    with site.bench() as bench:
        return [(one.state, *one.detail) for one in bench.survey()]


def test_looking_again_shows_what_would_change(site: Site) -> None:
    site.trust()
    assert seen_in(site)[0] == ("trusted", "runs server 1.0.0 of npm")
    site.engine.answer = npm_answer("1.1.0")
    assert site.look().changes == ("package server: 1.0.0 is now 1.1.0",)
    assert site.session().locks[0].version == "1.0.0"  # until somebody says yes


def test_a_server_with_a_secret_may_run_packages(site: Site) -> None:
    put(site.home, ".config/coding-agents/mcp-secrets.env", b"TOKEN=s3cr3t\n")
    write(site.repo, ".coding-agents/mcp.toml", TOML + 'env = { T = "${TOKEN}" }\n')
    assert site.look().unstarted == ""
    lock = lock_of(site.trust())
    given = site.session().apart["probe"]
    assert (given.server.command, given.directory) == (lock.run, "/opt/coding-agents-config/servers/probe")
    assert lock.run not in site.session().listing.decode()


def test_an_image_has_the_packages_and_nothing_of_the_index_that_they_came_from(site: Site) -> None:
    lock = lock_of(site.trust())
    image = session_image(site.engine, site.builds, "demo", (lock,))
    assert image.ref.startswith("coding-agents-demo-mcp:")
    context = {name: content for name, (content, _) in site.engine.contexts[image.ref].items()}
    assert list(context) == ["Dockerfile"]
    text = context["Dockerfile"].decode()
    assert f"FROM coding-agents-mcp:{lock.digest} AS" in text
    assert "FROM coding-agents-mcp-node:local AS" in text
    assert text.splitlines()[-1].startswith("COPY --from=")  # no RUN: nothing of a package is started
    assert "index.example" not in json.dumps(
        [text, dict(site.engine.arguments[image.ref]), lock.content.decode()]
    )
    fetched = f"coding-agents-mcp:{lock.digest}"
    given = site.engine.contexts[fetched]["builder/index.json"][0]  # for the builder's stage, which is gone
    assert json.loads(given) == {"npm": OTHER_INDEX, "pypi": OTHER_INDEX}
    assert "index.example" not in json.dumps(dict(site.engine.arguments[fetched]))
    assert site.engine.list_images("coding-agents.stage") == []
    built = len(site.engine.built)
    assert session_image(site.engine, site.builds, "demo", (lock,)) == image
    site.engine.remove_image("coding-agents-npm:local")  # what has served its purpose is not built again
    site.engine.remove_image(f"coding-agents-mcp:{lock.digest}")
    assert session_image(site.engine, site.builds, "demo", (lock,)) == image
    assert len(site.engine.built) == built


def test_what_is_missing_or_outdated_is_built_again_from_the_lock(site: Site) -> None:
    lock = lock_of(site.trust())
    first = session_image(site.engine, site.builds, "demo", (lock,))
    site.engine.built.clear()
    site.engine.remove_image(first.ref)
    session_image(site.engine, site.builds, "demo", (lock,))
    assert site.engine.built == [first.ref]  # without a network
    site.engine.built.clear()
    for ref in (first.ref, f"coding-agents-mcp:{lock.digest}"):
        site.engine.remove_image(ref)
    session_image(site.engine, site.builds, "demo", (lock,))
    assert site.engine.built == [f"coding-agents-mcp:{lock.digest}", first.ref]


def test_gemini_has_a_node_of_its_own(site: Site) -> None:
    lock = lock_of(site.trust())
    image = session_image(site.engine, site.builds, "gemini", (lock,))
    assert b"mcp-node" not in site.engine.contexts[image.ref]["Dockerfile"][0]


def test_what_a_session_needs_of_the_index_is_fetched_when_a_server_is_trusted(site: Site) -> None:
    lock = lock_of(site.trust())
    install_packages(site.engine, site.builds, lock, "gemini")
    assert site.engine.built[-1] == f"coding-agents-mcp:{lock.digest}"
    install_packages(site.engine, site.builds, lock, "demo")
    assert site.engine.built[-1] == "coding-agents-mcp-node:local"
    built = len(site.engine.built)
    ensure_image(site.engine, "demo", site.builds)
    session_image(site.engine, site.builds, "demo", (lock,))
    online = {"coding-agents-npm:local", "coding-agents-mcp-node:local", f"coding-agents-mcp:{lock.digest}"}
    assert online.isdisjoint(site.engine.built[built:])


def test_other_bytes_for_a_pinned_version_stop_the_build(site: Site) -> None:
    lock = lock_of(site.trust())
    site.engine.fail_build_of = f"coding-agents-mcp:{lock.digest}"
    site.engine.says = ["Step 9", "coding-agents-mcp: integrity: server 1.0.0"]
    with pytest.raises(McpError, match=r"other bytes than those that were pinned: server 1\.0\.0"):
        build_packages(site.engine, site.builds, lock)
    site.engine.says = ["something else"]
    with pytest.raises(ImageBuildError):
        build_packages(site.engine, site.builds, lock)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "npm cannot tell"),
        (b"failed\nERR EAI_AGAIN", "cannot be reached"),
        (npm_answer(resolved="git+https://h/x"), "not a package of npm's registry"),
        (npm_answer(bin={"server": "../../../etc/x"}), "no program may have"),
        (b"ok\n" + b"\x00\xff" * 1000, "not understood"),
    ],
)
def test_hostile_answers_pin_nothing(site: Site, answer: bytes, why: str) -> None:
    site.engine.answer = answer
    with pytest.raises(McpError, match=why):
        site.look()
    assert site.engine.list_images("coding-agents.stage") == []


def test_a_session_that_was_made_before_keeps_its_image_and_gets_no_other_packages(site: Site) -> None:
    lock = lock_of(site.trust())
    assert site.session((lock.digest,)).locks == (lock,)
    assert "not in the image of this session" in site.why_not(())
    site.engine.answer = npm_answer("2.0.0")
    site.trust()
    assert "not in the image of this session" in site.why_not((lock.digest,))


def test_images_whose_packages_nobody_trusts_are_pruned(site: Site) -> None:
    lock = lock_of(site.trust())
    session_image(site.engine, site.builds, "demo", (lock,))
    rows = {one.ref: one.state for one in list_layers(site.engine, trusted_packages(site.env))}
    assert sorted(rows.values()) == ["current"] * 3  # with node
    assert prune_images(site.engine, packages=trusted_packages(site.env)).removed == ()
    with site.bench() as bench:
        bench.remove("probe")
    rows = {one.ref: one.state for one in list_layers(site.engine, trusted_packages(site.env))}
    assert sorted(rows.values()) == ["current", "outdated", "outdated"]
    assert prune_images(site.engine).removed == ()
    gone = prune_images(site.engine, packages=trusted_packages(site.env)).removed
    assert {ref.partition(":")[0] for ref in gone} == {"coding-agents-mcp", "coding-agents-demo-mcp"}
    prune_images(site.engine, unused=True)
    assert site.engine.rows == {} or all(
        "debian" in tag for row in site.engine.rows.values() for tag in row.tags
    )


def test_the_image_of_the_next_session_is_made_at_once_where_its_agent_has_one(site: Site) -> None:
    lock_of(site.trust())
    make_ready(site.env, site.engine, site.builds, site.facts, "claude")
    assert not any("claude" in ref for ref in site.engine.built)
    ensure_image(site.engine, "claude", site.builds)
    make_ready(site.env, site.engine, site.builds, site.facts, "claude")
    assert any(ref.startswith("coding-agents-claude-mcp:") for ref in site.engine.built)


def test_a_launch_loads_nothing_of_packages() -> None:
    code = "import sys, coding_agents.app.launch, coding_agents.app.start; print(*sys.modules)"
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    loaded = {name.removeprefix("coding_agents.") for name in done.stdout.split()}
    assert "mcp.trust" in loaded
    assert loaded.isdisjoint(
        {
            "mcp.runners",
            "mcp.npm_lock",
            "mcp.pip_lock",
            "mcp.index_errors",
            "app.mcp_packages",
            "images.packages",
        }
    )


def test_no_engine_is_asked_by_a_list_or_for_a_server_without_packages(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(site.repo, ".coding-agents/mcp.toml", TOML + '[mcp_servers.plain]\ncommand = "python3"\n')
    monkeypatch.setenv("HOME", str(site.home))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("CODING_AGENTS_ENGINE", "docker")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{site.home}/nobody.sock")
    monkeypatch.chdir(site.repo)
    for words in (
        ["list"],
        ["convert"],
        ["convert", "--check", "--agent", "claude"],
        ["trust", "plain", "-y"],
    ):
        assert main._run(["mcp", *words]) == 0
    shown = capsys.readouterr().out
    assert "/opt/mcp/not-pinned-yet/run" in shown
    assert main._run(["mcp", "trust", "probe", "-y"]) != 0
    assert trusted_packages(site.env) == frozenset()
