"""What a launch and a start have made is unmade until the gate opens, and from then on by no failure or interrupt."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coding_agents.app import bring_up as bring_up_module
from coding_agents.app import gate as gate_module
from coding_agents.app import launch as launch_module
from coding_agents.app import start as start_module
from coding_agents.app.bring_up import Guarding, bring_up
from coding_agents.app.credentials import SessionCredentials
from coding_agents.app.demands import Demands
from coding_agents.app.launch import Launch
from coding_agents.app.launch_images import LaunchImages
from coding_agents.app.signing import Signing
from coding_agents.app.steps import Trace, Undo
from coding_agents.app.stop import Ended
from coding_agents.errors import AnswerLostError, ChannelError, GuestError, StoreError, SupervisorError
from coding_agents.model.limits import Limits
from coding_agents.model.session import Saved
from coding_agents.sandbox.spec import Network


class Supervisor:
    """One that opens the gate, or fails to with an error."""

    def __init__(self, refusal: BaseException | None) -> None:
        self.refusal = refusal

    def ask(self, *_: object, **__: object) -> dict[str, Any]:
        return {"facts": {}}

    def call(self, *_: object, **__: object) -> None:
        if self.refusal is not None:
            raise self.refusal


def _session(*, after: BaseException, refusal: BaseException | None = None) -> Any:
    """A session whose record cannot be read once its gate is open: `after` is raised."""

    def reload() -> None:
        raise after

    record = SimpleNamespace(name="demo-x", base=BASE, saved=Saved())
    return SimpleNamespace(supervisor=lambda: Supervisor(refusal), reload=reload, record=record)


BASE = "b" * 40
AFTER = [StoreError("the disk is full"), SupervisorError("it was killed"), KeyboardInterrupt()]


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bring_up_module, "require_room", lambda session: None)
    monkeypatch.setattr(bring_up_module, "require_state", lambda session: SimpleNamespace(started_at="now"))
    enforced = SimpleNamespace(layers={})
    monkeypatch.setattr(bring_up_module, "_measure", lambda *args, **options: enforced)
    monkeypatch.setattr(bring_up_module, "to_plain", lambda guest: {})


def _bring_up(session: Any, undone: list[str]) -> None:
    plan: Any = SimpleNamespace(holder=None, network=None)
    guest: Any = None
    with Undo() as undo:
        undo.add("volumes", lambda: undone.append("volumes"))
        bring_up(session, plan, guest, Trace(), guarding=Guarding((), ()), demands=Demands(), undo=undo)


@pytest.mark.parametrize("after", AFTER, ids=lambda error: type(error).__name__)
def test_nothing_is_undone_once_the_gate_is_open(after: BaseException) -> None:
    undone: list[str] = []
    with pytest.raises(type(after)):
        _bring_up(_session(after=after), undone)
    assert undone == []


def test_all_is_undone_when_the_gate_does_not_open() -> None:
    undone: list[str] = []
    refusal = GuestError("a step failed")
    with pytest.raises(GuestError):
        _bring_up(_session(after=StoreError("not reached"), refusal=refusal), undone)
    assert undone == ["volumes"]


LOST = [AnswerLostError("it was killed"), KeyboardInterrupt(), ChannelError("the guest went away")]


def _unanswered(
    monkeypatch: pytest.MonkeyPatch, refusal: BaseException, saved: Saved | BaseException
) -> list[str]:
    """What is undone of a launch whose gate was asked for, when a stop then answers `saved`."""
    undone: list[str] = []

    def stop(session: object, *, timeout_s: int) -> Ended:
        if isinstance(saved, BaseException):
            raise saved
        return Ended(None, saved, removed=False)

    monkeypatch.setattr(gate_module, "stop", stop)
    with pytest.raises(type(refusal)):
        _bring_up(_session(after=StoreError("the disk is full"), refusal=refusal), undone)
    return undone


@pytest.mark.parametrize("refusal", LOST, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "saved",
    [
        Saved(where="branch", relay_tip="1" * 40, integrated="refs/heads/demo/x"),
        Saved(where="volume"),
        Saved(left_out=("inner/",)),
        Saved(nested=("refs/coding-agents/nested/x",)),
        Saved(note="other branches: x"),
        SupervisorError("it does not start"),
        KeyboardInterrupt(),
    ],
    ids=["branch", "volume", "unread", "nested", "others", "no stop", "interrupted again"],
)
def test_an_agent_that_may_have_worked_is_kept(
    monkeypatch: pytest.MonkeyPatch, refusal: BaseException, saved: Saved | BaseException
) -> None:
    assert _unanswered(monkeypatch, refusal, saved) == []
    (note,) = refusal.__notes__
    refusal.__notes__.clear()
    assert "session demo-x is" in note


@pytest.mark.parametrize("refusal", LOST, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("saved", [Saved(), Saved(where="branch", relay_tip=BASE), Saved(left_out=(".env",))])
def test_a_start_that_has_done_nothing_is_undone(
    monkeypatch: pytest.MonkeyPatch, refusal: BaseException, saved: Saved
) -> None:
    assert _unanswered(monkeypatch, refusal, saved) == ["volumes"]


def test_a_second_interrupt_while_the_record_is_read_undoes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    undone: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        _bring_up(_session(after=KeyboardInterrupt(), refusal=ChannelError("the guest went away")), undone)
    assert undone == []


def test_a_start_that_was_settled_meanwhile_may_have_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    undone: list[str] = []
    monkeypatch.setattr(gate_module, "stop", lambda *_, **__: Ended(1, Saved(where="volume"), removed=False))
    session = _session(after=StoreError("not reached"), refusal=ChannelError("the guest went away"))
    session.reload = lambda: SimpleNamespace(phase="stopped", started_at="")
    with pytest.raises(ChannelError):
        _bring_up(session, undone)
    assert undone == []


def test_a_gate_that_was_not_opened_needs_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "stop", None)
    undone: list[str] = []
    session = _session(after=StoreError("not reached"), refusal=StoreError("the disk is full"))
    session.reload = lambda: SimpleNamespace(phase="starting")
    with pytest.raises(StoreError):
        _bring_up(session, undone)
    assert undone == ["volumes"]


def _launch(monkeypatch: pytest.MonkeyPatch, undone: list[str], timings: BaseException) -> None:
    """A launch whose timings cannot be recorded; what is undone of it goes to `undone`."""
    store: Any = SimpleNamespace(lock=lambda session_id: nullcontext())
    anything: Any = SimpleNamespace(
        id="0" * 12,
        manifest=SimpleNamespace(mcp=None),
        repo=None,
        engine=SimpleNamespace(info=None),
        signing=Signing(),
    )

    def prepare(self: Launch, *args: Any, **options: Any) -> None:
        undo = args[-1]
        undo.add("volumes", lambda: undone.append("volumes"))

    def record_timings(self: Launch, session: object) -> None:
        raise timings

    for name, stub in {
        "launch_record": lambda *args: anything,
        "guest_config": lambda *args: None,
        "kept_log_named": lambda *args: nullcontext(),
        "enforcement_failures_recorded": lambda *args: nullcontext(),
        "bring_up": lambda *args, undo, **options: undo.hold(),
        "choose_name": lambda *args: SimpleNamespace(existing=None, branch=None),
        "require_free_branch": lambda *args: SimpleNamespace(unmerged=0),
        "launch_guarding": lambda *args: None,
        "session_credentials": lambda *args: SessionCredentials(),
        "launch_runtime": lambda *args: "",
        "require_enforceable": lambda *args: None,
        "launch_plan": lambda *args, **options: SimpleNamespace(containers=()),
    }.items():
        monkeypatch.setattr(launch_module, name, stub)
    monkeypatch.setattr(Launch, "_record", lambda self, record, undo: anything)
    monkeypatch.setattr(launch_module, "ensure_images", lambda *args: LaunchImages(anything, anything))
    monkeypatch.setattr(Launch, "_prepare", prepare)
    monkeypatch.setattr(Launch, "_record_timings", record_timings)
    request: Any = SimpleNamespace(
        options=SimpleNamespace(dry_run=False), demands=Demands(), limits=Limits(), network=Network.RESTRICTED,
        settings=None,
    )  # fmt: skip
    env: Any = SimpleNamespace(data_dir=Path("/nonexistent"), state_dir=Path("/nonexistent"), environ={})
    monkeypatch.setattr(launch_module.GuestProgram, "of_this_version", lambda *args: None)
    narrator: Any = None
    Launch(request, env, store, narrator, anything, Trace()).run()


def test_a_launch_does_not_fail_for_lack_of_its_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    undone: list[str] = []
    _launch(monkeypatch, undone, SupervisorError("it was killed"))
    assert undone == []


def test_a_launch_that_is_interrupted_then_leaves_the_agent_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    undone: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        _launch(monkeypatch, undone, KeyboardInterrupt())
    assert undone == []


@pytest.mark.parametrize("after", AFTER, ids=lambda error: type(error).__name__)
def test_a_start_stops_no_agent_that_works(monkeypatch: pytest.MonkeyPatch, after: BaseException) -> None:
    stopped: list[object] = []
    record = SimpleNamespace(
        id="0" * 12, name="demo-x", container_id="c", holder_id="", private=(), agent="demo", mode="command",
        command=("true",), started_at="", phase="stopped", runtime="", quota=False, network="restricted",
    )  # fmt: skip
    engine = SimpleNamespace(
        inspect=lambda container: SimpleNamespace(running=False), start=lambda container: None, info=None
    )
    session: Any = SimpleNamespace(
        record=record, engine=engine, reload=lambda: record, update=lambda **changes: None,
        container_state=lambda: SimpleNamespace(running=False, config=None),
        store=SimpleNamespace(lock=lambda session_id: nullcontext()),
        env=SimpleNamespace(config_dir=Path("/nonexistent")),
    )  # fmt: skip

    def opened(*_: object, undo: Undo, **__: object) -> None:
        undo.hold()
        raise after

    for name, stub in {
        "_await_settled": lambda session: None,
        "_give_registries": lambda session: None,
        "_renew_credentials": lambda session: {},
        "_give_origins": lambda session: None,
        "_plan": lambda session, guarding: SimpleNamespace(holder=None, config=None, sandbox=None),
        "has_profiles": lambda spec, made: True,
        "demands_at_start": lambda session: None,
        "require_enforceable": lambda *_: None,
        "load_manifest": lambda *args: None,
        "restart_config": lambda *args: None,
        "stop_at_gate": stopped.append,
        "bring_up": opened,
    }.items():
        monkeypatch.setattr(start_module, name, stub)
    with pytest.raises(type(after)):
        start_module.start(session, Trace())
    assert stopped == []
