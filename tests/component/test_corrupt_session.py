"""`remove --force` of a session whose record cannot be read: everything of it is kept, stopped and named."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from coding_agents.app import corrupt
from coding_agents.app.doctor import examine
from coding_agents.app.uninstall import inventory
from coding_agents.cli import recover, remove
from coding_agents.cli.context import AppContext
from coding_agents.cli.output import Output
from coding_agents.errors import (
    CodingAgentsError,
    EngineError,
    EngineNotFoundError,
    EngineStoppedError,
    StoreError,
    UnsavedWorkError,
)
from coding_agents.model.session import encode_session
from support.host import host_environment
from support.sessions import session_record

_ID = "0123456789ab"
_MINE = {"coding-agents.session": _ID}


@dataclass
class _Engine:
    """What a session has in an engine; removing anything would be an AttributeError."""

    fails: bool = False
    stopped: list[str] = field(default_factory=list)

    def find(self, labels: dict[str, str]) -> list[SimpleNamespace]:
        assert labels == _MINE
        return [
            SimpleNamespace(
                id=name, name=name, running=name != "idle", config=SimpleNamespace(network=network)
            )
            for name, network in (
                ("demo-x-holder", "net"),
                ("demo-x", "container:demo-x-holder"),
                ("idle", "none"),
            )
        ]

    def stop(self, container: str, *, timeout_s: int) -> None:
        if self.fails:
            raise EngineError("cannot stop it")
        self.stopped.append(container)

    def list_networks(self, labels: dict[str, str]) -> tuple[str, ...]:
        return ("demo-x-net",) if labels == _MINE else ()

    def list_volumes(self, labels: dict[str, str]) -> tuple[str, ...]:
        return ("demo-x-workspace", "demo-x-home") if labels == _MINE else ()


@pytest.fixture
def app(tmp_path: Path) -> AppContext:
    app = AppContext(host_environment(tmp_path), Output(io.StringIO(), io.StringIO()))
    directory = app.store.create(_ID)
    whole = encode_session(session_record(_ID, name="demo-x"))
    (directory / "session.json").write_bytes(whole[: len(whole) // 2])
    (directory / "relay.git").mkdir()
    (directory / "audit.jsonl").write_text("log")
    return app


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> _Engine:
    engine = _Engine()

    def find(choice: str, _environ: object) -> _Engine:
        if choice == "podman":
            raise EngineNotFoundError("no podman", hint="x")
        return engine

    monkeypatch.setattr(corrupt, "find_engine", find)
    return engine


def _remove(app: AppContext, *words: str) -> str:
    err = io.StringIO()
    remove.command.main(
        list(words),
        standalone_mode=False,
        obj=msgspec.structs.replace(app, output=Output(io.StringIO(), err)),
    )
    return err.getvalue()


@pytest.mark.parametrize("name", [_ID, "0123", "demo-x"])
def test_it_moves_aside_whole_and_says_where_everything_is(app: AppContext, held: _Engine, name: str) -> None:
    said = _remove(app, "--force", name)
    aside = app.env.state_dir / "set-aside" / _ID
    assert sorted(path.name for path in aside.iterdir() if "lock" not in path.name) == [
        "audit.jsonl", "relay.git", "session.json",
    ]  # fmt: skip
    assert app.store.list() == ()
    assert held.stopped == ["demo-x", "demo-x-holder"]
    assert f"moved session {_ID} to {aside}" in said
    assert "kept docker container demo-x, demo-x-holder, idle\n" in said
    assert "kept docker volume demo-x-home, demo-x-workspace\n" in said
    assert "-v demo-x-workspace:/w:ro" in said
    assert f"docker volume rm $(docker volume ls -q --filter label=coding-agents.session={_ID})" in said
    assert "podman" not in said


def test_what_is_set_aside_is_never_overwritten_nor_uninstalled(app: AppContext, held: _Engine) -> None:
    _remove(app, "--force", _ID)
    app.store.create(_ID)
    _remove(app, "--force", _ID)
    assert sorted(path.name for path in app.store.set_aside_root.iterdir()) == [_ID, f"{_ID}-2"]
    with pytest.raises(UnsavedWorkError, match="set-aside"):
        inventory(app.env, app.store)


def test_a_container_that_does_not_stop_leaves_all_as_it_was(app: AppContext, held: _Engine) -> None:
    held.fails = True
    with pytest.raises(EngineError):
        _remove(app, "--force", _ID)
    assert [entry.id for entry in app.store.list()] == [_ID]


def test_an_engine_that_is_silent_is_named(app: AppContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(choice: str, _environ: object) -> None:
        raise EngineStoppedError(f"{choice} does not answer", hint="x")

    monkeypatch.setattr(corrupt, "find_engine", silent)
    said = _remove(app, "--force", _ID)
    assert "not looked at: docker does not answer" in said
    assert f"coding-agents.session={_ID}" in said


def test_every_hint_leads_out(app: AppContext, held: _Engine) -> None:
    """Without --force, by recover, or by doctor: what it names is the one thing that works."""
    way_out = f"coding-agents remove --force {_ID}"
    for command, words in ((remove.command, [_ID]), (recover.command, [_ID]), (recover.command, ["demo-x"])):
        with pytest.raises(StoreError) as caught:
            command.main(words, standalone_mode=False, obj=app)
        assert way_out in caught.value.hint
    (app.store.directory(_ID) / "session.json").unlink()
    with pytest.raises(CodingAgentsError) as without:
        recover.command.main([_ID], standalone_mode=False, obj=app)
    assert way_out in without.value.hint
    assert way_out in next(check.fix for check in examine(app.env, app.store) if check.id == "sessions")
    _remove(app, "--force", _ID)
    assert app.store.list() == ()


def test_a_readable_session_of_the_same_name_comes_first(app: AppContext) -> None:
    app.store.create("ffffffffffff")
    app.store.save(session_record("ffffffffffff", name="demo-x"))
    assert app.store.find_broken("demo-x") is None
    assert app.store.find_id("demo-x") == "ffffffffffff"
