"""The verbs audit, config and completions, through click as a user runs them."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from msgspec.structs import replace

from coding_agents.audit.log import open_log
from coding_agents.cli import audit, completions, config_
from coding_agents.cli.context import AppContext
from coding_agents.cli.output import Output
from coding_agents.errors import AuditError, CodingAgentsError, SessionNotFoundError, UsageError
from coding_agents.model.audit import AuditEvent, RecordType
from support.host import host_environment
from support.sessions import session_record

_ID = "0123456789ab"


@dataclass
class Cli:
    """Runs a verb and gives its standard output; errors pass as the exceptions that main would render."""

    home: Path

    def __call__(self, command: click.Command, *arguments: str, cwd: Path | None = None) -> str:
        out, self.err = io.StringIO(), io.StringIO()
        app = AppContext(host_environment(self.home, cwd=cwd), Output(out, self.err))
        try:
            command.main(list(arguments), standalone_mode=False, obj=app)
        finally:
            self.out = out.getvalue()
        return self.out


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture
def log(cli: Cli) -> Path:
    store = AppContext(host_environment(cli.home)).store
    store.create(_ID)
    store.save(session_record(_ID, name="demo-shop-main"))
    path = store.audit_log(_ID)
    with open_log(path, session=_ID, time_ms=0) as log:
        log.record(
            AuditEvent(RecordType.PUSH, tier=1, rule="relay.branch", subject="refs/heads/x"), time_ms=1000
        )
        log.note(
            AuditEvent(RecordType.GUEST_STEP, source="guest", subject="step\x1b[2J\n", detail={"ms": 5}),
            time_ms=2000,
        )
        log.note(AuditEvent(RecordType.SESSION_ENDED), time_ms=3000)
    return path


def test_audit_verify_of_a_good_log(cli: Cli, log: Path) -> None:
    assert cli(audit.command, "verify", "--session", "demo-shop-main") == "consistent and sealed: 3 records\n"
    verdict = json.loads(cli(audit.command, "verify", "--session", "0123", "--json"))
    assert (verdict["ok"], verdict["state"], verdict["records"]) == (True, "sealed", 3)


def test_audit_verify_of_a_changed_log_fails(cli: Cli, log: Path) -> None:
    log.write_bytes(log.read_bytes().replace(b"relay.branch", b"relay.braxch"))
    with pytest.raises(AuditError, match="broken at seq 1: its content was changed") as caught:
        cli(audit.command, "verify", "--session", "0123", "--json")
    assert caught.value.exit_status == 42
    assert json.loads(cli.out)["ok"] is False


def test_audit_query_prints_one_safe_line_a_record(cli: Cli, log: Path) -> None:
    lines = cli(audit.command, "query", "--session", "demo-shop-main").splitlines()
    assert len(lines) == 3
    assert lines[0] == "1970-01-01T00:00:01.000Z  host  push  allowed  relay.branch  refs/heads/x"
    assert "step\\x1b[2J\\n" in lines[1]
    assert '{"ms": 5}' in lines[1]


@pytest.mark.parametrize(
    ("arguments", "types"),
    [
        (["--type", "push", "--type", "session-ended"], ["push", "session-ended"]),
        (["--source", "guest"], ["guest-step"]),
        (["--rule", "relay.branch"], ["push"]),
        (["--subject", "refs/*"], ["push"]),
        (["--since", "1970-01-01T00:00:02"], ["guest-step", "session-ended"]),
        (["--until", "1970-01-01T01:00:02+01:00"], ["push"]),
        (["--outcome", "denied"], []),
    ],
)
def test_audit_query_filters(cli: Cli, log: Path, arguments: list[str], types: list[str]) -> None:
    out = cli(audit.command, "query", "--session", "0123", "--json", *arguments)
    assert [json.loads(line)["type"] for line in out.splitlines()] == types


def test_audit_query_shows_what_is_left_of_a_damaged_log_and_says_so(cli: Cli, log: Path) -> None:
    first, _, third = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(first + b"\0" * 10 + b"\n" + third)
    with pytest.raises(AuditError, match="1 damaged lines"):
        cli(audit.command, "query", "--session", "0123", "--json")
    assert len(cli.out.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["query", "--session", "0123", "--type", "pushh"], UsageError),
        (["query", "--session", "0123", "--since", "yesterday"], UsageError),
        (["verify", "--session", "nothing"], SessionNotFoundError),
        (["query"], click.UsageError),
    ],
)
def test_audit_refuses(cli: Cli, log: Path, arguments: list[str], error: type[Exception]) -> None:
    with pytest.raises(error):
        cli(audit.command, *arguments)


def test_audit_of_a_session_without_a_log_says_so(cli: Cli, log: Path) -> None:
    log.unlink()
    with pytest.raises(AuditError, match="no audit log"):
        cli(audit.command, "verify", "--session", "0123")


def test_audit_works_with_a_corrupt_record_and_after_removal(cli: Cli, log: Path) -> None:
    (log.parent / "session.json").write_bytes(b"{")
    assert "sealed" in cli(audit.command, "verify", "--session", "0123")
    AppContext(host_environment(cli.home)).store.remove(_ID)
    assert "sealed" in cli(audit.command, "verify", "--session", "0123")


def test_config_set_and_show(cli: Cli, tmp_path: Path) -> None:
    cli(config_.command, "set", "limits.memory", "4g")
    assert cli.err.getvalue().startswith('limits.memory = "4g" in ')
    repo = tmp_path / "repo"
    (repo / ".git").mkdir(parents=True)
    (repo / ".coding-agents.toml").write_text("[limits]\npids = 100\n")
    shown = cli(config_.command, "show", "--json", cwd=repo)
    by_key = {item["key"]: item for item in json.loads(shown)}
    assert by_key["limits.memory"]["value"] == '"4g"'
    assert by_key["limits.memory"]["source"] == "user"
    assert by_key["limits.pids"] == {
        "key": "limits.pids", "value": "100", "source": "project", "managed": False,
        "where": str(repo / ".coding-agents.toml"),
    }  # fmt: skip
    table = cli(config_.command, "show", cwd=repo)
    assert table.splitlines()[0].split() == ["KEY", "VALUE", "SOURCE", "WHERE"]
    assert len(table.splitlines()) == len(by_key) + 1


def test_config_path_and_schema(cli: Cli) -> None:
    assert cli(config_.command, "path") == f"{cli.home}/.config/coding-agents/config.toml\n"
    assert json.loads(cli(config_.command, "schema"))["additionalProperties"] is False


def test_config_set_of_an_unknown_key_is_a_usage_error(cli: Cli) -> None:
    with pytest.raises(CodingAgentsError) as caught:
        cli(config_.command, "set", "limit.cpu", "1")
    assert caught.value.exit_status == 2


def test_the_bash_script_completes(cli: Cli, tmp_path: Path) -> None:
    script = cli(completions.command, "bash")
    program = tmp_path / "coding-agents"
    program.write_text(
        f"#!{sys.executable}\nimport sys; sys.path[:0] = {sys.path!r}\n"
        "import click\nfrom coding_agents.cli import audit, config_\n"
        "group = click.Group('coding-agents', commands={'audit': audit.command, 'config': config_.command})\n"
        "group(prog_name='coding-agents')\n"
    )
    program.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.defpath}"}
    script += "\nCOMP_WORDS=(coding-agents au); COMP_CWORD=1; _coding_agents_completion coding-agents"
    script += '; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == "audit\n"
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_script_asks_our_program(cli: Cli, shell: str) -> None:
    script = cli(completions.command, shell)
    assert f"_CODING_AGENTS_COMPLETE={shell}_complete" in script
    interpreter = shutil.which(shell)
    if interpreter is not None:
        subprocess.run([interpreter, "-n"], input=script, text=True, check=True)


def test_completions_say_how_to_use_them_on_a_terminal_only(tmp_path: Path) -> None:
    for tty, said in ((True, "~/.bashrc"), (False, "")):
        out, err = io.StringIO(), io.StringIO()
        env = replace(host_environment(tmp_path), stdout_tty=tty)
        completions.command.main(["bash"], standalone_mode=False, obj=AppContext(env, Output(out, err)))
        assert said in err.getvalue()
        assert bool(said) == bool(err.getvalue())


def test_a_session_on_the_start_path_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from coding_agents.cli.context import AppContext\n"
        "from coding_agents.config.environ import read_environment\n"
        "import coding_agents.cli.audit, coding_agents.cli.config_, coding_agents.cli.completions\n"
        "AppContext(read_environment())\n"
        "heavy = {'asyncio', 'dataclasses', 'tomlkit', 'tomllib', 'subprocess', 'tempfile', 'hypothesis'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "AppContext(read_environment()).store.list()\n"
        "print('asyncio' in sys.modules)\n"
    )
    env = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.defpath, "HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\nFalse\n"
