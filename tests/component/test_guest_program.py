"""guest.pyz: the same bytes every time, old Pythons, standard library only; git's relay client."""

from __future__ import annotations

import ast
import importlib.util
import os
import socket
import sys
import threading
from pathlib import Path

import pytest

import coding_agents_guest
from coding_agents.channel.pyz import build_guest_pyz, guest_digest, guest_sources
from coding_agents.proc.runner import Command, run
from coding_agents.supervisor import guest_program as module
from coding_agents.supervisor.guest_program import GuestProgram
from coding_agents_guest import relay_client
from support.guest import ENV, guest_argv, guest_program

SOURCES = sorted(Path(coding_agents_guest.__file__).parent.rglob("*.py"))


def test_the_program_is_the_same_every_time() -> None:
    program = build_guest_pyz()
    assert build_guest_pyz() == program
    assert guest_digest(program) == guest_digest(build_guest_pyz())
    assert guest_digest(program) != guest_digest(program + b"\0")
    assert len(guest_digest(program)) == 64


def test_it_is_built_once_for_each_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unkept = GuestProgram.of_this_version(tmp_path, keep=False)
    assert list(tmp_path.iterdir()) == []
    assert unkept.content == build_guest_pyz()
    assert unkept.digest == guest_digest(unkept.content)
    first = GuestProgram.of_this_version(tmp_path)
    (kept,) = (tmp_path / "guest").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(module, "build_guest_pyz", lambda sources: b"built again")
    assert first == unkept == GuestProgram.of_this_version(tmp_path)
    kept.write_bytes(kept.read_bytes()[:-1])
    assert GuestProgram.of_this_version(tmp_path).content == b"built again"
    monkeypatch.setattr(module, "sources_digest", lambda sources: "f" * 64)
    assert GuestProgram.of_this_version(tmp_path).content == b"built again"


def test_this_python_loads_what_it_has_compiled_and_any_other_the_source(tmp_path: Path) -> None:
    """A module whose source lies beside its compiled form, but says something else."""
    sources = {**guest_sources(), "coding_agents_guest/__init__.py": b"__version__ = 'compiled'\n"}
    program = tmp_path / "guest.pyz"
    program.write_bytes(
        build_guest_pyz(sources).replace(b"__version__ = 'compiled'", b"__version__ = 'aasource'")
    )
    told = run(Command(guest_argv(program, "version"), env=ENV))
    assert told.text() == "compiled\n"
    program.write_bytes(program.read_bytes().replace(importlib.util.MAGIC_NUMBER, b"\0\0\r\n"))
    told = run(Command(guest_argv(program, "version"), env=ENV))
    assert told.text() == "aasource\n"


def test_it_runs_isolated_and_tells_its_version(tmp_path: Path) -> None:
    outcome = run(Command(guest_argv(guest_program(tmp_path), "version"), env=ENV, cwd=tmp_path))
    assert outcome.text() == f"{coding_agents_guest.__version__}\n"


@pytest.mark.parametrize("arguments", [(), ("shell",), ("version", "x")])
def test_unknown_commands_are_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    outcome = run(Command(guest_argv(guest_program(tmp_path), *arguments), env=ENV))
    assert outcome.status == 2
    assert outcome.stderr.startswith(b"usage: guest.pyz {bridge,")


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_guest_needs_only_python_3_9_and_its_library(source: Path) -> None:
    tree = ast.parse(source.read_text(), feature_version=(3, 9))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= {*sys.stdlib_module_names, "coding_agents_guest"}


def test_a_stray_print_does_not_get_into_the_frames() -> None:
    code = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from coding_agents_guest.stdio import open_stdio

async def main():
    reader, writer = await open_stdio()
    print("stray", flush=True)
    assert sys.stdin.read() == ""
    writer.write(await reader.read())
    await writer.drain()
    writer.close()

asyncio.run(main())
"""
    source = Path(coding_agents_guest.__file__).parent.parent
    outcome = run(Command((sys.executable, "-IS", "-c", code, str(source)), env=ENV, stdin=b"frames"))
    assert (outcome.stdout, outcome.stderr) == (b"frames", b"stray\n")


def test_git_relay_says_when_there_is_no_relay(capsys: pytest.CaptureFixture[str]) -> None:
    assert relay_client.main("/nonexistent/relay.sock") == 1
    assert capsys.readouterr().err == "git-relay: the relay is not reachable: No such file or directory\n"


def test_git_relay_loads_nothing_that_takes_time(tmp_path: Path) -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import coding_agents_guest.relay_client; print(*sys.modules)"
    told = run(Command((sys.executable, "-IS", "-c", code, str(guest_program(tmp_path))), env=ENV))
    assert not {"socket", "threading", "pathlib", "contextlib", "runpy"}.intersection(told.text().split())


class Splice:
    """`splice` in a thread, with our ends of its input, output and connection."""

    def __init__(self) -> None:
        self.relay, connection = socket.socketpair()
        incoming, self.stdin = os.pipe()
        self.stdout, outgoing = os.pipe()
        self.relay.settimeout(10)

        def carry() -> None:
            with connection:
                relay_client.splice(connection, incoming, outgoing)
            os.close(outgoing)

        self._incoming = incoming
        self._thread = threading.Thread(target=carry)
        self._thread.start()

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()

    def close(self) -> None:
        self.relay.close()
        os.close(self.stdout)
        os.close(self._incoming)


def test_splice_passes_both_half_closes_on() -> None:
    ends = Splice()
    os.write(ends.stdin, b"request")
    assert ends.relay.recv(100) == b"request"
    os.close(ends.stdin)
    assert ends.relay.recv(100) == b""
    ends.relay.sendall(b"answer")
    assert os.read(ends.stdout, 100) == b"answer"
    ends.relay.shutdown(socket.SHUT_WR)
    assert os.read(ends.stdout, 100) == b""
    ends.join()
    ends.close()


def test_splice_ends_when_the_relay_ends_though_git_would_still_send() -> None:
    ends = Splice()
    ends.relay.sendall(b"ERR denied")
    ends.relay.close()
    assert os.read(ends.stdout, 100) == b"ERR denied"
    assert os.read(ends.stdout, 100) == b""
    ends.join()
    os.close(ends.stdin)
    ends.close()


def test_splice_ends_when_git_goes_away() -> None:
    ends = Splice()
    os.close(ends.stdout)
    ends.relay.sendall(b"answer")
    ends.join()
    os.close(ends.stdin)
    ends.relay.close()
    os.close(ends._incoming)
