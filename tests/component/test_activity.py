"""When a session waits for its user, who is told of it, and what is told to an agent."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from coding_agents.brokers.model.turn import TurnReader
from coding_agents.cli.watch import age_text
from coding_agents.model.audit import RecordType
from coding_agents.model.notice import Notice
from coding_agents.supervisor import activity as watched
from coding_agents.supervisor.activity import ActivityWatch
from coding_agents.supervisor.notify import Notifier
from support.stored import Records, stored_session


@pytest.mark.parametrize(
    ("answer", "calls"),
    [
        (b'data: {"delta":{"stop_reason":"tool_use"}}', True),
        (b'{"content":[{"type": "tool_use", "name": "n"}]}', True),
        (b'{"choices":[{"delta":{"tool_calls":[{"id":1}]}}]}', True),
        (b'{"item":{"type":"function_call"}}', True),
        (b'{"item":{"type":"custom_tool_call"}}', True),
        (b'{"parts":[{"functionCall":{}}]}', True),
        (b'data: {"delta":{"stop_reason":"end_turn"}}', False),
        (b'{"text":"he said \\"tool_use\\""}', False),
        (b"", False),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_tool_call_is_seen_however_it_is_cut(answer: bytes, calls: bool, size: int) -> None:
    reader = TurnReader()
    for start in range(0, len(answer), size):
        reader.feed(answer[start : start + size])
    assert reader.calls is calls


def test_an_agent_waits_when_its_last_answer_asked_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "_QUIET_S", 0.2)
    session = stored_session(tmp_path, mode="tmux", phase="running")
    told: list[str] = []

    async def main() -> None:
        watch = ActivityWatch(session, lambda: told.append("waiting"))

        async def settled(activity: str) -> None:
            await asyncio.sleep(0.4)
            assert session.reload().activity == activity

        watch.began()
        await settled("working")
        watch.ended(calls=True)
        await settled("working")  # the tool runs
        watch.began()
        watch.began()
        watch.ended(calls=False)
        await settled("working")  # the other one is still under way
        watch.ended(calls=False)
        await settled("waiting")
        assert told == ["waiting"]
        watch.began()
        watch.ended(calls=False)
        watch.stop()
        await settled("working")
        assert told == ["waiting"]

    asyncio.run(main())


def test_a_session_that_runs_a_command_never_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "_QUIET_S", 0.0)
    session = stored_session(tmp_path, mode="command", phase="running")

    async def main() -> None:
        watch = ActivityWatch(session, lambda: pytest.fail("told"))
        watch.began()
        watch.ended(calls=False)
        await asyncio.sleep(0.2)

    asyncio.run(main())
    assert session.reload().activity == ""


def _notified(tmp_path: Path, script: str) -> tuple[Records, str]:
    """Tell of two notices through a script of the user's; what was recorded, and what the script wrote."""
    program = tmp_path / "notify"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    config = tmp_path / ".config/coding-agents/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f"[notify]\ncommand = {json.dumps([str(program), 'first word'])}\n")
    session = stored_session(
        tmp_path, environ={"OUT": "no", "SECRET_KEY": "s", "PATH": "/usr/bin:/bin"}, mode="tmux"
    )
    records = Records()

    async def main() -> None:
        notifier = Notifier(session, records)
        notifier.tell(Notice("waiting", "it is; $(touch /tmp/never) your turn"))
        notifier.tell(Notice("failed", "status 3"))
        await notifier.finish()

    asyncio.run(main())
    out = tmp_path / "out"
    return records, out.read_text() if out.exists() else ""


def test_the_users_command_is_run_with_the_notice(tmp_path: Path) -> None:
    records, out = _notified(tmp_path, f'printf "%s|" "$@" "$SECRET_KEY" >> {tmp_path}/out')
    name = "demo-shop-0123"
    assert out == (
        f"first word|waiting|{name}|it is; $(touch /tmp/never) your turn||first word|failed|{name}|status 3||"
    )
    assert records.noted == [
        (RecordType.NOTIFIED, "waiting", "allowed"),
        (RecordType.NOTIFIED, "failed", "allowed"),
    ]


@pytest.mark.parametrize("script", ["exit 3", "kill -9 $$"])
def test_a_command_that_fails_is_recorded_and_no_more(tmp_path: Path, script: str) -> None:
    records, _ = _notified(tmp_path, script)
    assert [outcome for _, _, outcome in records.noted] == ["failed", "failed"]


def test_ages() -> None:
    assert [age_text(seconds) for seconds in (-5, 0, 59.9, 60, 3599, 3600, 86399, 86400 * 3)] == [
        "0s", "0s", "59s", "1m", "59m", "1h", "23h", "3d",
    ]  # fmt: skip
