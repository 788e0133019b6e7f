"""A start waits for what the holder reports after this very start, not for what an earlier one left in its log."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coding_agents.app import start as module
from coding_agents.app.bring_up import Guarding
from coding_agents.app.demands import Demands
from coding_agents.app.renew import make_anew
from coding_agents.app.steps import Trace
from coding_agents.errors import EngineError


class Engine:
    """A container that has ended, and a holder whose log holds two earlier reports."""

    info = None

    def inspect(self, container: str) -> Any:
        return SimpleNamespace(running=False, config=SimpleNamespace(dns=("192.0.2.1",)))

    def logs(self, container: str) -> bytes:
        return b"ready\nready\n"

    def start(self, container: str) -> None:
        pass

    def stop(self, container: str, *, timeout_s: int) -> None:
        pass


def test_reports_of_earlier_starts_are_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    record = SimpleNamespace(
        id="0" * 12, name="demo-x", container_id="c", holder_id="h", private=(), agent="demo", guest_volume="v",
        mode="command", command=("true",), started_at="", phase="stopped", limits={},
        runtime="", quota=False, network="allow-all",
    )  # fmt: skip
    session: Any = SimpleNamespace(
        record=record, engine=Engine(), reload=lambda: record, update=lambda **changes: None,
        container_state=lambda: Engine().inspect("c"),
        store=SimpleNamespace(lock=lambda session_id: nullcontext()),
        env=SimpleNamespace(config_dir=Path("/nonexistent")),
    )  # fmt: skip
    seen: list[Guarding] = []
    for name, stub in {
        "_await_settled": lambda session: None,
        "_give_registries": lambda session: None,
        "_renew_credentials": lambda session: {},
        "_give_origins": lambda session: None,
        "_plan": lambda session, guarding: SimpleNamespace(
            holder=SimpleNamespace(name="h"), config=None, sandbox=None
        ),
        "has_profiles": lambda spec, made: True,
        "demands_at_start": lambda session: Demands(),
        "require_enforceable": lambda *_: None,
        "load_manifest": lambda *args: None,
        "restart_config": lambda *args: None,
        "bring_up": lambda *args, guarding, demands, undo: seen.append(guarding),
    }.items():
        monkeypatch.setattr(module, name, stub)
    module.start(session, Trace())
    assert seen == [Guarding(("192.0.2.1",), (), earlier=2)]


class Refusing:
    """An engine whose holder does not start, for a reason."""

    def __init__(self, why: str) -> None:
        self.why = why
        self.did: list[str] = []

    def inspect(self, container: str) -> Any:
        return SimpleNamespace(running=False)

    def logs(self, container: str) -> bytes:
        return b"ready\n"

    def stop(self, container: str, *, timeout_s: int) -> None:
        pass

    def start(self, container: str) -> None:
        if container == "h":
            raise EngineError("cannot start container h", details=self.why)
        self.did.append(f"start {container}")

    def remove(self, container: str) -> None:
        self.did.append(f"remove {container}")

    def create(self, spec: str) -> str:
        self.did.append(f"create {spec}")
        return spec


def _refused(monkeypatch: pytest.MonkeyPatch, why: str) -> tuple[Refusing, SimpleNamespace]:
    record = SimpleNamespace(name="demo-x", container_id="c", holder_id="h")
    engine = Refusing(why)
    session: Any = SimpleNamespace(
        record=record, engine=engine, update=lambda **changes: vars(record).update(changes)
    )
    plan: Any = SimpleNamespace(holder="h2", placed=lambda holder: f"c2 joined to {holder}")
    monkeypatch.setattr(module, "require_holder", lambda *args: None)
    module._restart_holder(session, plan)
    return engine, record


@pytest.mark.parametrize(
    "why",
    [
        "10.89.0.2 has been allocated to h, duplicate allocation is not allowed",
        "runc create failed: stat /run/x/overlay-containers/5101/userdata/hostname: no such file or directory: …",
    ],
)
def test_what_the_engine_remembers_of_an_earlier_start_costs_the_containers(
    monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    engine, record = _refused(monkeypatch, why)
    made = ["create h2", "create c2 joined to h2", "start h2"]
    assert engine.did == ["remove c", "remove h", *made]
    assert (record.container_id, record.holder_id) == ("c2 joined to h2", "h2")


def test_any_other_refusal_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(module, "make_anew", lambda *args: made.append(args))
    with pytest.raises(EngineError):
        _refused(monkeypatch, "no space left on device")
    assert made == []


@pytest.mark.parametrize("holder", ["h", ""])
def test_containers_of_another_version_are_made_anew(holder: str) -> None:
    record = SimpleNamespace(name="demo-x", container_id="c", holder_id=holder)
    engine = Refusing("")
    session: Any = SimpleNamespace(
        record=record, engine=engine, update=lambda **changes: vars(record).update(changes)
    )
    plan: Any = SimpleNamespace(
        holder="h2" if holder else None, placed=lambda of: f"c2 joined to {of}" if of else "c2"
    )
    make_anew(session, plan)
    assert record.container_id == ("c2 joined to h2" if holder else "c2")
    assert engine.did[:2] == (["remove c", "remove h"] if holder else ["remove c", "create c2"])
