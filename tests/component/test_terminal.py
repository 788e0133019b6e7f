"""A command between the user's terminal and ours, with real pseudo-terminals on both sides."""

from __future__ import annotations

import os
import signal
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.product import ROOT
from support.ptys import Terminal, terminal
from support.vt import ModelTerminal

_DRIVER = """
import os, signal, sys
from coding_agents.errors import Terminated
from coding_agents.proc.runner import Command
from coding_agents.proc.terminal import run_on_terminal
from coding_agents.terminal.filter import TerminalFilter

class Failing(TerminalFilter):
    def feed(self, data):
        if b"FAIL" in data:
            raise RuntimeError("a defect of ours")
        return super().feed(data)

def end(*_):
    raise Terminated

signal.signal(signal.SIGTERM, end)
if "detached" in sys.argv:  # from the terminal's session: no hang-up tells us that it has gone
    pid = os.fork()
    if pid:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os.setsid()
before = signal.getsignal(signal.SIGWINCH)
command = Command((sys.executable, "-u", "-c", sys.argv[1]), env={"PATH": os.environ["PATH"]})
try:
    status = run_on_terminal(command, Failing())
except Terminated:
    status = 143
except RuntimeError as error:
    print(error)
    status = 1
assert signal.getsignal(signal.SIGWINCH) == before
sys.exit(status)
"""
_RAW = "import os, sys, tty, time, signal, shutil; tty.setraw(0); print('ready', end='');"
_HOSTILE = (
    "\\x1b]52;c;aGk=\\x07\\x1b[c\\x1b[6n\\x1b[>q\\x1bPq#0\\x1b\\\\\\x1b_Gi=1;AA\\x1b\\\\"
    "\\x1b[21t\\x05\\x1b]0;ti\\u202etle\\x07"
)
_LEAVES = (
    "\\x1b[?1049h\\x1b[?1002h\\x1b[?1006h\\x1b[?2004h\\x1b[?1004h\\x1b[?25l\\x1b=\\x1b[2;5r\\x1b(0\\x1b[31m"
)


@contextmanager
def driven(program: str, *options: str) -> Iterator[Terminal]:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm-256color"}
    with terminal((sys.executable, "-c", _DRIVER, program, *options), env) as shown:
        yield shown


def _without_pending(modes: list[object]) -> list[object]:
    return [*modes[:3], *modes[4:]]


def test_what_a_program_must_not_say_does_not_arrive() -> None:
    with driven(f"{_RAW} print('{_HOSTILE}seen')") as shown:
        assert shown.ends() == 0
    model = ModelTerminal().reads(shown.raw)
    assert model.offences == []
    assert model.left == {}
    assert model.titles == ["title"]
    assert model.printed == "readyseen"


def test_the_status_is_the_programs() -> None:
    with driven("raise SystemExit(7)") as shown:
        assert shown.ends() == 7
    with driven("import os; os.kill(os.getpid(), 9)") as shown:
        assert shown.ends() == 137


def test_all_output_arrives_before_the_end() -> None:
    with driven("print('x' * 3_000_000 + 'last')") as shown:
        assert shown.ends() == 0
    assert shown.raw == b"x" * 3_000_000 + b"last\r\n"


def test_the_size_arrives_and_follows() -> None:
    program = (
        f"{_RAW} size = lambda *_: print(os.get_terminal_size(), end='');"
        "size(); signal.signal(signal.SIGWINCH, size); print('set', end=''); sys.stdin.read(1)"
    )
    with driven(program) as shown:
        shown.sees("columns=80, lines=24")
        shown.sees("set")
        shown.resize(31, 101)
        shown.sees("columns=101, lines=31")
        shown.types("x")
        assert shown.ends() == 0


def test_every_key_is_the_programs() -> None:
    with driven(f"{_RAW} print(sys.stdin.buffer.raw.read(4))") as shown:
        shown.sees("ready")
        shown.types("\x03\x1a\x1c\x04")
        shown.sees("\\x03\\x1a\\x1c\\x04")
        assert shown.ends() == 0


def test_ctrl_c_ends_a_client_that_has_not_made_its_terminal_raw() -> None:
    interrupted = (
        "except KeyboardInterrupt: print('caught'); time.sleep(0.5)"  # so that nothing hangs up what it says
    )
    with driven(f"import time\ntry: print('waits'); time.sleep(60)\n{interrupted}") as shown:
        shown.sees("waits")
        shown.types("\x03")
        shown.sees("caught")
        assert shown.ends() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_program_and_gives_the_terminal_back(number: int) -> None:
    with driven(
        f"{_RAW} print('{_LEAVES}'); print(f'pid={{os.getpid()}}.', end=''); time.sleep(60)"
    ) as shown:
        before = shown.modes
        shown.sees(".")
        assert _without_pending(shown.modes) != _without_pending(before)
        pid = int(shown.seen.partition("pid=")[2].partition(".")[0])
        shown.signals(number)
        assert shown.ends() in (143, -signal.SIGINT, 1)
        assert _without_pending(shown.modes) == _without_pending(before)
    assert "\x1b[?1049l" in shown.seen
    assert ModelTerminal().reads(shown.raw.partition(b"Traceback")[0]).left == {}
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "os.kill(os.getpid(), 9)", "print('FAIL')"])
def test_whatever_the_end_the_terminal_is_given_back(end: str) -> None:
    with driven(f"{_RAW} print('{_LEAVES}'); {end}") as shown:
        before = shown.modes
        shown.ends()
        assert _without_pending(shown.modes) == _without_pending(before)
    assert ModelTerminal().reads(shown.raw).left == {}


def test_a_program_that_writes_and_does_not_read_holds_up_nothing() -> None:
    """A paste of more than all buffers hold, into a program that first has a lot to say."""
    program = (
        f"{_RAW} sys.stdin.buffer.raw.read(1); sys.stdout.write('y' * 2_000_000); sys.stdout.flush();"
        "n = 0\nwhile n < 400_000: n += len(os.read(0, 65536))\nprint('took', n)"
    )
    with driven(program) as shown:
        shown.sees("ready")
        rest = b"p" * 400_001
        os.set_blocking(shown.fd, False)
        deadline = time.monotonic() + 60
        while rest and time.monotonic() < deadline:
            try:
                rest = rest[os.write(shown.fd, rest[:4096]) :]
            except BlockingIOError:
                shown.read(0.01)
        assert not rest
        shown.sees("took 400000")
        assert shown.ends() == 0


def test_a_program_that_outlives_the_command_does_not_hold_us() -> None:
    program = "import os, time\nif os.fork() == 0: os.setsid(); time.sleep(20)\nelse: print('gone')"
    began = time.monotonic()
    with driven(program) as shown:
        assert shown.ends() == 0
    assert "gone" in shown.seen
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("options", [(), ("detached",)])
def test_a_terminal_that_vanishes_ends_the_program(tmp_path: Path, options: tuple[str, ...]) -> None:
    note = tmp_path / "pid"
    program = f"{_RAW} open({str(note)!r}, 'w').write(str(os.getpid())); print('.', end=''); time.sleep(60)"
    with driven(program, *options) as shown:
        shown.sees(".")
        pid = int(note.read_text())
        os.close(shown.fd)
        shown.fd = -1
        _, status = os.waitpid(shown.pid, 0)
        shown.pid = 0
    assert os.waitstatus_to_exitcode(status) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_terminal_that_was_stopped_is_raw_again_when_it_goes_on() -> None:
    with driven(f"{_RAW} print(sys.stdin.buffer.raw.read(1))") as shown:
        cooked = shown.modes
        shown.sees("ready")
        shown.signals(signal.SIGSTOP)
        termios.tcsetattr(shown.fd, termios.TCSANOW, cooked)  # as a shell does
        shown.signals(signal.SIGCONT)
        deadline = time.monotonic() + 10
        while shown.modes[3] & termios.ICANON:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        shown.types("\x03")
        shown.sees("\\x03")
        assert shown.ends() == 0
