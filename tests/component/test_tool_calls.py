"""What an agent's hooks say of its tools: written down as the guest's word, within a budget, and never in the way."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.audit import log as log_module
from coding_agents.audit.budget import TOOL_CALLS_AT_ONCE, TOOL_CALLS_PER_S, GuestBudget
from coding_agents.audit.log import open_log
from coding_agents.audit.verify import verify
from coding_agents.channel.exec_channel import open_channel
from coding_agents.model.audit import AuditEvent, AuditRecord, RecordType, decode_record
from coding_agents.proc.runner import Command, run
from coding_agents.supervisor import tool_calls
from coding_agents.supervisor.journal import Journal
from coding_agents.supervisor.tool_calls import ToolCalls, parse_tool_call
from coding_agents_guest import toolhook
from coding_agents_guest.mux import Stream
from coding_agents_guest.wire import WireError
from support.guest import ENV, bridge_command, guest_program, short_directory
from support.product import ROOT

SESSION = "0123456789ab"
TIMEOUT_S = 40
_HOOK = "import sys; sys.path.insert(0, {!r}); from coding_agents_guest.toolhook import main; sys.exit(main({!r}))"
BASH = (
    b'{"hook_event_name":"PreToolUse","tool_name":"Bash","tool_input":{"description":"d","command":"make"}}'
)


def hook(program: Path, path: Path) -> Command:
    """The hook's program as the image has it, with the socket at `path`."""
    argv = ("/usr/bin/python3", "-IS", "-c", _HOOK.format(str(program), str(path)))
    return Command(argv, env=ENV, stdin=BASH, timeout_s=20)


@pytest.fixture
def sockets() -> Iterator[Path]:
    with short_directory() as directory:
        directory.chmod(0o1777)
        yield directory


def records(path: Path) -> list[AuditRecord]:
    return [decode_record(line) for line in path.read_bytes().splitlines(keepends=True)]


@pytest.mark.parametrize(
    ("said", "tool", "about"),
    [
        (BASH, "Bash", "make"),
        (b'{"tool_name":"Edit","tool_input":{"old":1,"file_path":"/workspace/a"}}', "Edit", "/workspace/a"),
        (b'{"tool_name":"shell","tool_input":{"command":["bash","-c","ls"]}}', "shell", "bash -c ls"),
        (b'{"toolName":"bash","toolArgs":"{\\"command\\":\\"ls\\"}"}', "bash", "ls"),
        (b'{"toolName":"other","toolArgs":{"x":"first text"}}', "other", "first text"),
        (b'{"tool_name":"mcp__s__t"}', "mcp__s__t", ""),
        (b'{"tool_name":"T","tool_input":{"a":{"b":1}}}', "T", ""),
        (b'{"tool_name":"T","tool_input":"\\ud800 \\u202e\\u001b\xff"}', "T", "? \u202e\x1b\ufffd"),
    ],
)
def test_a_hook_says_which_tool_and_what_about(said: bytes, tool: str, about: str) -> None:
    call = parse_tool_call(toolhook.line_of(said))
    assert (call.tool, call.about) == (tool, about)
    assert abs(call.ms - time.time() * 1000) < 60_000


@given(st.text(min_size=1), st.text() | st.dictionaries(st.text(), st.text() | st.integers()))
def test_whatever_a_tool_is_given_is_one_bounded_line(tool: str, given: object) -> None:
    line = toolhook.line_of(json.dumps({"tool_name": tool, "tool_input": {"command": given}}).encode())
    assert line.count(b"\n") == 1
    assert len(line) <= tool_calls.MAX_LINE
    parse_tool_call(line)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"[]", b"null", b"{}", b'{"tool":"a","about":"b"}', b'{"tool":"","about":"b","ms":1}',
        b'{"tool":"a","about":"b","ms":-1}', b'{"tool":"a","about":"b","ms":true}', b'{"tool":1,"about":"b","ms":1}',
        b'{"tool":"a","about":"b","ms":1,"source":"host"}', b'{"tool":"a","about":"\\ud800","ms":1}',
        b'{"tool":"%b","about":"b","ms":1}' % (b"a" * 101), b'{"tool":"a","about":"%b","ms":1}' % (b"a" * 301),
        b'{"tool":"a","about":"b","ms":1}' + b" " * 5000, b'{"tool":"a","about":"b","ms":1e999}',
    ],
)  # fmt: skip
def test_what_no_hook_of_ours_says_is_refused(line: bytes) -> None:
    with pytest.raises(WireError):
        parse_tool_call(line)


def test_a_call_arrives_in_the_log_as_the_guests_word(
    tmp_path: Path, sockets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_calls, "GUEST_UID", os.geteuid())
    path = tmp_path / "audit.jsonl"

    async def main() -> None:
        with open_log(path, session=SESSION, time_ms=1) as log:
            calls = ToolCalls(Journal(log).tool_call)
            program = guest_program(tmp_path)
            channel = await open_channel(bridge_command(program, sockets), on_stream=calls.serve)
            done = await asyncio.to_thread(run, hook(program, sockets / "tools.sock"))
            assert (done.status, done.stdout, done.stderr) == (0, b"", b"")
            for _ in range(500):
                if path.read_bytes():
                    break
                await asyncio.sleep(0.01)
            await channel.close()

    asyncio.run(asyncio.wait_for(main(), TIMEOUT_S))
    (record,) = records(path)
    assert (record.type, record.source, record.subject) == (RecordType.TOOL_CALL, "guest", "Bash")
    assert record.detail["about"] == "make"


def test_a_flood_leaves_the_hosts_records_whole_and_is_counted(
    tmp_path: Path, sockets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_calls, "GUEST_UID", os.geteuid())
    path = tmp_path / "audit.jsonl"
    lines = 10_000
    hostile = b'{"tool":"Read\\u001b[2J","about":"\\u202e\\n{\\"source\\":\\"host\\"}","ms":1}\n'
    ended = 0

    async def main() -> None:
        nonlocal ended
        with open_log(path, session=SESSION, time_ms=1) as log:
            journal = Journal(log)
            calls = ToolCalls(journal.tool_call)

            async def serve(stream: Stream) -> None:
                nonlocal ended
                await calls.serve(stream)
                ended += 1

            channel = await open_channel(bridge_command(guest_program(tmp_path), sockets), on_stream=serve)
            floods = [asyncio.create_task(flood(lines // 4)) for _ in range(4)]
            noted = 0
            while ended < 4:
                journal.note(RecordType.EXEC, subject=str(noted))
                journal.require(RecordType.PUSH, subject=str(noted))
                noted += 1
                await asyncio.sleep(0.05)
            await asyncio.gather(*floods)
            await channel.close()
            assert [one.subject for one in records(path) if one.type is RecordType.EXEC] == [
                str(number) for number in range(noted)
            ]
            assert noted > 10, "the host's records had their turn beside the flood"

    async def flood(count: int) -> None:
        _, writer = await asyncio.open_unix_connection(sockets / "tools.sock")
        for _ in range(count):
            writer.write(hostile)
            await writer.drain()
        writer.close()

    began = time.monotonic()
    asyncio.run(asyncio.wait_for(main(), TIMEOUT_S))
    took_s = time.monotonic() - began
    found = records(path)
    told = [one for one in found if one.type is RecordType.TOOL_CALL]
    assert {one.source for one in told} == {"guest"}
    assert {(one.subject, one.detail["about"]) for one in told} == {
        ("Read\\x1b[2J", '\\u202e\\x0a{"source":"host"}')
    }
    assert TOOL_CALLS_AT_ONCE <= len(told) <= TOOL_CALLS_AT_ONCE + TOOL_CALLS_PER_S * (took_s + 1)
    dropped = [int(one.detail["tool_calls_dropped"]) for one in found if one.type is RecordType.GAP]
    assert len(told) + sum(dropped) == lines
    assert took_s > (lines - len(told)) / 2500, "what is dropped is read slowly"
    assert verify(path.read_bytes().splitlines(keepends=True)).ok


def test_tool_calls_use_up_nobody_elses_budget_over_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "GuestBudget", partial(GuestBudget, total_bytes=900))
    path = tmp_path / "audit.jsonl"
    call = AuditEvent(RecordType.TOOL_CALL, source="guest")
    step = AuditEvent(RecordType.GUEST_STEP, source="guest")
    calls = steps = 0
    for time_ms in (1000, 2000, 3000):
        with open_log(path, session=SESSION, time_ms=time_ms) as log:
            calls += log.tool_call(call, time_ms=time_ms) is not None
    with open_log(path, session=SESSION, time_ms=4000) as log:
        steps += log.guest(step, time_ms=4000) is not None
    assert (calls, steps) == (2, 1)
    with open_log(path, session=SESSION, time_ms=5000) as log, pytest.raises(ValueError, match="guest"):
        log.tool_call(AuditEvent(RecordType.TOOL_CALL), time_ms=5000)


def test_another_user_tells_of_no_calls(
    tmp_path: Path, sockets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_calls, "GUEST_UID", os.geteuid() + 1)
    seen: list[object] = []

    async def main() -> None:
        calls = ToolCalls(lambda call: bool(seen.append(call)))
        channel = await open_channel(bridge_command(guest_program(tmp_path), sockets), on_stream=calls.serve)
        reader, writer = await asyncio.open_unix_connection(sockets / "tools.sock")
        writer.write(toolhook.line_of(BASH))
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        await channel.close()

    asyncio.run(asyncio.wait_for(main(), TIMEOUT_S))
    assert seen == []


def test_a_hook_that_reaches_nobody_holds_up_nothing(tmp_path: Path, sockets: Path) -> None:
    program = guest_program(tmp_path)
    full = sockets / "full.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(full))
        listener.listen(0)
        waiting.connect(str(full))
        for path in (sockets / "nobody.sock", full):
            for said in (BASH, b"", b"{", b"[]", b"\xff" * 100_000):
                command = hook(program, path)
                began = time.monotonic()
                done = run(Command(command.argv, env=ENV, stdin=said, timeout_s=20))
                assert (done.status, done.stdout, done.stderr) == (0, b"", b"")
                assert time.monotonic() - began < 5


def test_no_agent_is_stopped_by_a_hook_that_is_not_there() -> None:
    """Copilot CLI takes a status other than 0 for a no, the others 2, which is also Python's for a missing file."""
    commands = [
        (
            found["command"] if "command" in found else found["bash"],
            found.get("timeout", found.get("timeoutSec")),
        )
        for path in sorted((ROOT / "images/agents").rglob("managed/**/*.json"))
        for found in _handlers(json.loads(path.read_text()))
    ]
    patch = (ROOT / "images/agents/gemini/bundle.sed").read_text()
    commands += [
        (said, int(ms) / 1000) for said, ms in re.findall(r'command: "(.*?)", timeout: ([0-9]+)', patch)
    ]
    assert len(commands) == 4  # OpenCode's is code, which swallows whatever goes wrong
    for command, timeout_s in commands:
        done = run(Command(("sh", "-c", command), env=ENV, stdin=BASH, timeout_s=20))
        assert (done.status, done.stdout) == (0, b"")
        assert timeout_s <= 2.5


def _handlers(value: object) -> Iterator[dict[str, Any]]:
    """Every handler of a hook in a settings file of any agent."""
    if isinstance(value, dict):
        if value.get("type") == "command":
            yield value
        value = list(value.values())
    for one in value if isinstance(value, list) else ():
        yield from _handlers(one)


def test_the_hook_loads_nothing_that_takes_time(tmp_path: Path) -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import coding_agents_guest.toolhook; print(*sys.modules)"
    told = run(Command(("/usr/bin/python3", "-IS", "-c", code, str(guest_program(tmp_path))), env=ENV))
    assert not {"socket", "json", "re", "pathlib", "contextlib"}.intersection(told.text().split())
