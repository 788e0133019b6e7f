"""Every mistake on the command line or in settings is told with its value and one thing to do, never a traceback."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from coding_agents import errors
from coding_agents.cli import main

_SOURCE = Path(errors.__file__).parent


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "CODING_AGENTS_ENGINE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "shop/.git").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _told(words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str, dict[str, object]]:
    """Run `words` as a person and as a script; their common status, message and hint, and the whole JSON object."""
    arguments = words.split()
    status = main._run(arguments)
    shown = capsys.readouterr().err
    lines = shown.splitlines()
    message = lines[0].removeprefix("error: ")
    hint = lines[-1].removeprefix("hint: ")
    assert (lines[0], lines[-1]) == (f"error: {message}", f"hint: {hint}"), shown
    at = arguments.index("--") if "--" in arguments else len(arguments)
    assert main._run([*arguments[:1], "--json", *arguments[1:at], *arguments[at:]]) == status
    error = json.loads(capsys.readouterr().err)["error"]
    assert set(error) == {"code", "message", "details", "hint", "exit_status"}
    return status, message, hint, error


@pytest.mark.parametrize(
    ("words", "says", "hint"),
    [
        ("lanch", "no such command 'lanch'", "launch"),
        ("xyzzy", "no such command 'xyzzy'", "--help"),
        ("audit xyzzy", "no such command 'xyzzy'", "`coding-agents audit --help`"),
        ("launch --jsn", "no such option '--jsn'", "--json"),
        ("launch -x", "no such option '-x'", "`coding-agents launch --help`"),
        ("launch --memory", "'--memory' requires an argument", "`coding-agents launch --help`"),
        ("launch --rm=3", "'--rm' does not take a value", "`coding-agents launch --help`"),
        ("launch a b", "unexpected extra argument (b)", "coding-agents launch [OPTIONS] [SOURCE]"),
        ("connect", "missing argument 'NAME'", "coding-agents connect [OPTIONS] NAME"),
        ("connect x", "connect needs a terminal", "logs"),
        ("exec x --", "a command must follow --", "NAME [-- COMMAND...]"),
        ("exec x", "no command to run", "exec x -- CMD"),
        ("logs x --tail abc", "'abc' is not a valid integer", "`coding-agents logs --help`"),
        ("completions tcsh", "'tcsh' is not one of", "bash|zsh|fish"),
        ("prune --older-than soon", "'soon'", "90m"),
        ("audit query --session x --type pushh", "'pushh'", "push"),
        ("audit query --session x --since soon", "'soon'", "2026-01-31T12:00:00"),
        ("audit query", "missing option '--session'", "--help"),
        ("config set limit.cpu 1", "'limit.cpu'", "config show"),
        ("config set limits.cpu many", "'many'", "config set limits.cpu 4"),
        ("uninstall", "nobody to ask", "-y"),
        ("launch shop --memory 12zz", "--memory: not a size: '12zz'", "--memory 8g"),
        ("launch shop --memory 1", "not 1", "--memory 8g"),
        ("launch shop --cpu many", "'many'", "--cpu 4"),
        ("launch shop --cpu 4097", "4097", "--cpu 4"),
        ("launch shop --pids 1", "not 1", "--pids 4096"),
        ("launch shop --network-proxy open", "'open'", "--network-proxy restricted"),
        ("launch shop --engine dockerr", "'dockerr'", "--engine auto"),
        ("launch shop --agent Demo", "'Demo'", "--agent claude"),
        ("launch shop --include ../x", "'../x'", "--include build/*.json"),
        ("launch shop --rm --no-push", "--rm", "Leave one"),
        ("launch shop -p x -- true", "exclude each other", "-p"),
        ("launch shop --empty", "--empty takes no SOURCE", "Leave one out"),
        ("launch --empty --clean", "--empty", "--clean"),
        ("launch shop --dotnet-preview x", "'x'", "11.0"),
    ],
)
def test_a_wrong_command_line(words: str, says: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, message, shown, error = _told(words, capsys)
    assert status == 2
    assert says in message
    assert hint in shown
    assert (error["code"], error["exit_status"]) == ("usage", 2)


@pytest.mark.parametrize(
    ("content", "says", "hint"),
    [
        (b'netwrok.mode = "restricted"', "unknown key 'netwrok'", "config show"),
        (b"limits.cpu = true", "limits.cpu: True is not a number", "limits.cpu = 4"),
        (b'limits.memory = "12zz"', "'12zz'", 'limits.memory = "8g"'),
        (b'network.mode = "open"', "'open'", 'network.mode = "restricted"'),
        (b'network.private = ["x"]', "'x'", 'network.private = ["mirror.example.org=10.1.2.3:443"]'),
        (b'git.message = ""', "''", 'git.message = "Save work of the coding agent"'),
        (b"agent = claude", "not valid TOML", "in quotes"),
        (b"\xff", "not UTF-8", "UTF-8"),
        (b"x" * 100_000, "larger than", "64 KiB"),
        (None, "is a directory", "regular file"),
    ],
)
def test_a_wrong_settings_file(
    content: bytes | None, says: str, hint: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / ".config/coding-agents/config.toml"
    path.parent.mkdir(parents=True)
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    status, message, shown, error = _told("launch shop -d", capsys)
    assert (status, error["code"]) == (20, "config")
    assert str(path) in message
    assert says in message
    assert hint in shown


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("CODING_AGENTS_NETWROK_MODE", "restricted", "Unset CODING_AGENTS_NETWROK_MODE"),
        ("CODING_AGENTS_NETWORK_MODE", "open", "CODING_AGENTS_NETWORK_MODE=restricted"),
        ("CODING_AGENTS_LIMITS_MEMORY", "12zz", "CODING_AGENTS_LIMITS_MEMORY=8g"),
    ],
)
def test_a_wrong_variable(
    name: str, value: str, hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    status, message, shown, _ = _told("launch shop -d", capsys)
    assert status == 20
    assert name in message
    assert hint in shown


def test_a_setting_of_the_repository_that_widens(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "shop/.coding-agents.toml").write_text('engine = "podman"\n')
    status, message, hint, error = _told("launch shop -d", capsys)
    assert (status, error["code"]) == (25, "untrusted-setting")
    assert "a repository cannot set engine" in message
    assert "your own settings" in hint


def test_every_error_has_one_thing_to_do() -> None:
    """A hint where it is raised, or the advice of its class."""
    kinds = {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.CodingAgentsError)
    }
    without = [
        f"{path.relative_to(_SOURCE)}:{call.lineno}"
        for path in sorted(_SOURCE.rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id in kinds
        and not kinds[call.func.id].advice
        and not any(keyword.arg == "hint" for keyword in call.keywords)
    ]
    assert without == []
    assert errors.EngineError("x").hint == errors.EngineError.advice
    assert errors.EngineError("x", hint="y").hint == "y"
