"""How the program ends: closed pipes, full devices, the status 125, and who gets errors as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coding_agents.cli import main

_NOWHERE = "/nowhere/at/all"
_UNREAD = "cannot write the result: no space left on device"
_FULL = Path("/dev/full")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith(("CODING_AGENTS_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def _program(*arguments: str, stdout: int, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "coding_agents", *arguments),
        env={"PATH": os.defpath, "HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "words",
    ["--help", "launch --help", "audit query -h", "--version", "completions bash", "config show", "list --json"],
)  # fmt: skip
def test_a_result_that_nobody_reads_or_no_disk_takes(words: str, home: Path) -> None:
    with _FULL.open("wb") as full:
        done = _program(*words.split(), stdout=full.fileno(), home=home)
    assert (done.returncode, _UNREAD in done.stderr) == (43, True), done.stderr
    reading, writing = os.pipe()
    os.close(reading)
    done = _program(*words.split(), stdout=writing, home=home)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_errors_that_nobody_reads_keep_their_status(home: Path) -> None:
    with _FULL.open("wb") as full:
        for words, status in ((("--bogus",), 2), ((), 2), (("stop", "x"), 18)):
            done = subprocess.run(
                (sys.executable, "-m", "coding_agents", *words),
                env={"PATH": os.defpath, "HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)},
                stderr=full,
                check=False,
            )
            assert done.returncode == status


_SHOW = (
    "import sys; from pathlib import Path; from coding_agents.app.inside import show_output\n"
    "from coding_agents.cli import main; from coding_agents.proc.runner import Command\n"
    "from coding_agents.terminal.streams import ResultStream\n"
    "sys.stdout = ResultStream.around(sys.stdout)\n"
    "show = lambda *_, **__: show_output(Command(('seq', '200000'), env={'PATH': sys.argv[1]}), raw=False)\n"
    "main.cli.main = show\n"
    "sys.exit(main._run([]))\n"
)


@pytest.mark.parametrize(("gone", "status"), [(False, 43), (True, 141)])
def test_output_of_a_command_inside_that_is_not_taken(gone: bool, status: int) -> None:
    """`exec` and `logs`: the command finds a closed pipe, and we tell a full disk."""
    reading, writing = os.pipe()
    os.close(reading)
    with _FULL.open("wb") as full:
        done = subprocess.run(
            (sys.executable, "-c", _SHOW, os.defpath),
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=writing if gone else full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    os.close(writing)
    assert done.returncode == status
    assert done.stderr == "" if gone else _UNREAD in done.stderr


@pytest.mark.parametrize(
    ("words", "passes"),
    [
        (f"launch {_NOWHERE}", False),
        (f"launch {_NOWHERE} -p TEXT", True),
        (f"launch -pTEXT {_NOWHERE}", True),
        (f"launch --prompt TEXT {_NOWHERE}", True),
        (f"launch --prompt=TEXT {_NOWHERE}", True),
        (f"launch -p {_NOWHERE} {_NOWHERE}", True),
        (f"launch -p -d {_NOWHERE}", True),
        (f"launch -p --dry-run {_NOWHERE}", True),
        (f"launch -pd {_NOWHERE}", True),
        (f"launch -ypTEXT {_NOWHERE}", True),
        (f"launch -yp TEXT {_NOWHERE}", True),
        (f"launch -dp TEXT {_NOWHERE}", False),
        (f"launch -dpTEXT {_NOWHERE}", False),
        (f"launch -yd -p TEXT {_NOWHERE}", False),
        (f"launch -p TEXT --detach {_NOWHERE}", False),
        (f"launch -p TEXT --dry-run {_NOWHERE}", False),
        (f"launch {_NOWHERE} -- sh -d", True),
        (f"launch {_NOWHERE} -d -- sh", False),
        (f"launch {_NOWHERE} -yd -- sh -p", False),
        (f"launch {_NOWHERE} -b -p", False),
        (f"launch {_NOWHERE} --name exec", False),
        (f"launch {_NOWHERE} --message --prompt", False),
        ("exec launch -- -d", True),
        ("exec exec --raw -- sh", True),
        ("stop exec", False),
        ("wait launch", False),
        ("logs exec --tail 1", False),
        ("remove --force exec", False),
    ],
)
def test_a_verb_that_passes_a_status_on_fails_with_125(
    words: str, passes: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = words.split()
    status = main._run(arguments)
    assert status == (125 if passes else 11 if _NOWHERE in arguments else 18), capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "as_json"),
    [
        (f"launch {_NOWHERE} -d --json", True),
        (f"launch {_NOWHERE} --dry-run --json -- sh", True),
        (f"launch {_NOWHERE} -p --json", False),
        (f"launch {_NOWHERE} -d -- sh --json", False),
        ("audit verify --session x --json", True),
        ("audit verify --session --json", False),
        ("stop x", False),
        ("list --json --bogus", True),
        ("list --bogus", False),
        ("exec x --json", True),  # there is no such option: what was meant is clear
    ],
)
def test_who_asks_for_json_gets_errors_as_json(
    words: str, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main._run(words.split())
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith('{"error"' if as_json else "error: ")
    if as_json:
        assert json.loads(shown.err)["error"]["exit_status"] == status


def test_a_signal_that_ends_us_has_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C 130, SIGTERM 143: never the status of an error."""
    for raised, status in ((KeyboardInterrupt(), 130), (main.Terminated(), 143)):

        def interrupted(*_: object, error: BaseException = raised, **__: object) -> None:
            raise error

        monkeypatch.setattr(main.cli, "main", interrupted)
        assert main._run([]) == status
