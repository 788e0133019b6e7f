"""The entry point as a real process: the gate, the steps, the agent's life and its end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coding_agents_guest.events import (
    Autosave,
    Autosaved,
    Exit,
    Failed,
    Go,
    Ready,
    Running,
    Saved,
    Step,
)
from coding_agents_guest.nestedref import LATEST
from coding_agents_guest.records import replace
from support.agentrepo import BRANCH, REF, AgentRepo, make_agent_repo
from support.fakehost import FakeHost, entry_point, fake_host
from support.guest import short_directory

ENDS_AT_ONCE = ("true",)


@pytest.fixture
def root() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


def started(repo: AgentRepo, host: FakeHost, *command: str, **config: object) -> None:
    """Open the gate for `command` and wait until it runs."""
    host.accept()
    assert host.next() == Ready()
    host.send(Go(replace(repo.config, command=command, **config)))  # type: ignore[arg-type]
    assert [event.name for event in host.until(Running) if isinstance(event, Step)] == [
        "workspace",
        "remotes",
        "branch",
        "dotnet-preview",
        "session",
    ]


def ended(process: subprocess.Popen[bytes]) -> int:
    return process.wait(timeout=60)


def wait_for(condition: Path) -> None:
    give_up = time.monotonic() + 30
    while not condition.exists():
        assert time.monotonic() < give_up, f"{condition} does not appear"
        time.sleep(0.01)


def test_whole_life_of_a_command(root: Path) -> None:
    repo = make_agent_repo(root)
    script = 'echo "$HOME $GREETING"; pwd; cat; echo work > new.txt; exit 7'
    with fake_host(repo.place) as host, entry_point(repo.place) as process:
        started(repo, host, "sh", "-c", script, env={"GREETING": "hello"})
        events = host.until(Exit)
        assert ended(process) == 7
        assert host.next() is None
    assert (root / "stdout").read_text().splitlines() == [f"{repo.place.home} hello", str(repo.work)]

    assert events == [Saved(repo.tip(), pushed=True, committed=True), Exit(7)]
    assert repo.files(repo.tip()) == [".gitignore", "README", "new.txt"]


def test_the_gate_holds_until_go_and_sigterm_ends_the_wait(root: Path) -> None:
    repo = make_agent_repo(root)
    with entry_point(repo.place) as process, fake_host(repo.place) as host:
        host.accept()
        assert host.next() == Ready()
        process.send_signal(signal.SIGTERM)
        assert ended(process) == 128 + signal.SIGTERM
    assert repo.git("for-each-ref", "refs/remotes") == ""


def test_a_socket_of_another_user_is_not_the_host(root: Path) -> None:
    repo = make_agent_repo(root)
    foreign = replace(repo.place, bridge_uid=repo.place.bridge_uid + 1)
    with fake_host(foreign) as host, entry_point(foreign) as process:
        host.accept()
        assert host.next() is None  # hung up without a word
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert ended(process) == 128 + signal.SIGINT


def test_uncommitted_changes_survive_the_start_and_remotes_are_set(root: Path) -> None:
    repo = make_agent_repo(root)
    repo.git("checkout", "--quiet", "--detach")
    repo.git("branch", "--quiet", "--delete", "--force", BRANCH)
    repo.write("README", "changed\n")
    repo.write("staged.txt")
    repo.git("add", "staged.txt")
    before = repo.status()
    with fake_host(repo.place) as host, entry_point(repo.place) as process:
        started(
            repo, host, "sh", "-c", "git status --porcelain > ../status", origin="https://example.invalid/r"
        )
        ended(process)

    assert (root / "status").read_text().rstrip("\n") == before
    assert repo.git("symbolic-ref", "HEAD") == REF
    assert repo.git("config", "remote.local.url") == str(repo.relay)
    assert repo.git("config", "remote.origin.url") == "https://example.invalid/r"
    assert repo.git("config", "remote.pushDefault") == "local"
    assert repo.git("config", "push.default") == "current"
    assert repo.git("config", "--global", "user.name") == repo.config.identity.name
    assert repo.git("config", "--global", "user.email") == repo.config.identity.email


def test_unborn_branch_starts(root: Path) -> None:
    repo = make_agent_repo(root, unborn=True)
    repo.git("symbolic-ref", "HEAD", "refs/heads/main")
    with fake_host(repo.place) as host, entry_point(repo.place) as process:
        started(repo, host, "touch", "first")
        assert host.until(Exit)[0] == Saved(repo.tip(), pushed=True, committed=True)
        assert ended(process) == 0
    assert repo.git("symbolic-ref", "HEAD") == REF


def test_later_start_leaves_the_repository_as_it_is(root: Path) -> None:
    repo = make_agent_repo(root, first_start=False)
    repo.git("checkout", "--quiet", "-b", "mine")
    repo.git("config", "push.default", "nothing")
    with fake_host(repo.place) as host, entry_point(repo.place):
        started(repo, host, *ENDS_AT_ONCE)
        host.until(Exit)
    assert repo.git("symbolic-ref", "HEAD") == "refs/heads/mine"
    assert repo.git("config", "push.default") == "nothing"


@pytest.mark.parametrize(
    ("change", "step", "message"),
    [
        ({"base": "1" * 40}, "workspace", "instead of 1111"),
        ({"command": ("/no/such/program",)}, "session", "/no/such/program"),
        ({"dotnet_channel": "9.0", "dotnet_index": "http://127.0.0.1:1/"}, "dotnet-preview", "refused"),
    ],
)
def test_a_failing_step_is_named(root: Path, change: dict[str, object], step: str, message: str) -> None:
    repo = make_agent_repo(root)
    with fake_host(repo.place) as host, entry_point(repo.place) as process:
        host.accept()
        host.next()
        host.send(Go(replace(repo.config, **{"command": ENDS_AT_ONCE, **change})))  # type: ignore[arg-type]
        failed = host.until(Failed)[-1]
        assert ended(process) == 125
    assert step in (root / "stderr").read_text()
    assert isinstance(failed, Failed)
    assert failed.step == step
    assert message in failed.message


def test_sigterm_is_passed_on_and_work_is_saved(root: Path) -> None:
    repo = make_agent_repo(root)
    script = "trap 'echo bye > bye.txt; exit 3' TERM; touch ../up; while :; do sleep 0.05; done"
    with fake_host(repo.place) as host, entry_point(repo.place) as process:
        started(repo, host, "sh", "-c", script)
        wait_for(root / "up")
        process.send_signal(signal.SIGTERM)
        assert host.until(Exit)[-1] == Exit(3)
        assert ended(process) == 3
    assert "bye.txt" in repo.files(repo.tip())


def test_second_sigterm_kills(root: Path) -> None:
    repo = make_agent_repo(root)
    script = "trap '' TERM; touch ../up work; while :; do sleep 0.05; done"
    with fake_host(repo.place) as host, entry_point(repo.place) as process:
        started(repo, host, "sh", "-c", script)
        wait_for(root / "up")
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert host.until(Exit)[-1] == Exit(128 + signal.SIGKILL)
    assert "work" in repo.files(repo.tip())


def test_automatic_saves_while_the_agent_works(root: Path) -> None:
    """Two ordered at once follow each other; the agent's end does not wait for one, and saves as ever."""
    repo = make_agent_repo(root)
    with fake_host(repo.place) as host, entry_point(repo.place) as process:
        started(
            repo, host, "sh", "-c", "echo 1 > one; touch ../up; while [ ! -e ../end ]; do sleep 0.05; done"
        )
        wait_for(root / "up")
        host.send(Autosave())
        host.send(Autosave(branch=True))
        first = host.until(Autosaved)[-1]
        second = host.until(Autosaved)[-1]
        assert first == second == Autosaved(repo.in_relay("rev-parse", LATEST), pushed=True)
        assert repo.tip() == repo.config.base
        assert process.poll() is None
        host.send(Autosave())
        (root / "end").touch()
        assert isinstance(host.until(Saved)[-1], Saved)
        ended(process)
    assert "one" in repo.files(repo.tip())
    assert "one" in repo.files(LATEST)


def test_a_lost_host_is_found_again_and_the_agent_does_not_notice(root: Path) -> None:
    repo = make_agent_repo(root)
    with entry_point(repo.place) as process:
        with fake_host(repo.place) as host:
            started(repo, host, "sh", "-c", "while [ ! -e ../end ]; do sleep 0.05; done; exit 4")
        with fake_host(repo.place) as host:
            host.accept()
            assert host.next() == Running()
            (root / "end").touch()
            assert host.until(Exit)[-1] == Exit(4)
            assert ended(process) == 4


def test_without_a_host_the_end_is_the_same(root: Path) -> None:
    repo = make_agent_repo(root)
    with entry_point(repo.place) as process:
        with fake_host(repo.place) as host:
            started(repo, host, "sh", "-c", "while [ ! -e ../end ]; do sleep 0.05; done; touch work; exit 5")
        (root / "end").touch()
        assert ended(process) == 5
    assert "work" in repo.files(repo.tip())


def test_garbage_from_the_host_only_drops_the_connection(root: Path) -> None:
    repo = make_agent_repo(root)
    with fake_host(repo.place) as host, entry_point(repo.place):
        host.accept()
        host.next()
        host.send_raw(b'{"type":"go"}\n')
        host.accept()
        assert host.next() == Ready()


def test_orphans_are_reaped(root: Path) -> None:
    repo = make_agent_repo(root)
    orphan = "(sh -c 'echo $$ > ../pid' &) ; while [ ! -e ../end ]; do sleep 0.05; done"
    with fake_host(repo.place) as host, entry_point(repo.place):
        started(repo, host, "sh", "-c", orphan)
        wait_for(root / "pid")
        pid = (root / "pid").read_text().strip()
        give_up = time.monotonic() + 10
        while pid and Path(f"/proc/{pid}").exists():
            assert time.monotonic() < give_up, "a zombie stays"
            time.sleep(0.01)
        (root / "end").touch()
        host.until(Exit)


@pytest.mark.skipif(
    os.geteuid() == 0, reason="root owns its processes anyway; tests/engine has the real case"
)
def test_not_even_its_own_uid_can_read_its_memory(root: Path) -> None:
    repo = make_agent_repo(root)
    with fake_host(repo.place) as host, entry_point(repo.place) as process:
        host.accept()
        host.next()
        assert Path(f"/proc/{process.pid}/mem").stat().st_uid == 0
        status = Path(f"/proc/{process.pid}/environ").stat()
        assert status.st_uid == 0


def test_the_agent_dies_first_when_memory_runs_out(root: Path) -> None:
    repo = make_agent_repo(root)
    with fake_host(repo.place) as host, entry_point(repo.place):
        started(repo, host, "sh", "-c", "cat /proc/self/oom_score_adj > score")
        host.until(Exit)
    assert (repo.work / "score").read_text() == "500\n"


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
class TestTmux:
    """The interactive mode: the agent in a tmux session."""

    @pytest.fixture
    def repo(self, root: Path) -> AgentRepo:
        return make_agent_repo(root, mode="tmux", env={"TMUX_TMPDIR": str(root)})

    def test_status_of_the_program_is_the_status_of_the_session(self, repo: AgentRepo) -> None:
        script = 'test -t 0 && stty size > size; printf "%s\\n" "$@" > words; exit 6'
        words = ("a b", ";", "x;", "$HOME", "#{pid}", "")
        with fake_host(repo.place) as host, entry_point(repo.place) as process:
            started(repo, host, "sh", "-c", script, "sh", *words)
            assert host.until(Exit)[-1] == Exit(6)
            assert ended(process) == 6
        assert (repo.work / "size").read_text() == "50 200\n"
        assert (repo.work / "words").read_text() == "".join(f"{word}\n" for word in words)

    def test_single_word_is_not_given_to_a_shell(self, repo: AgentRepo) -> None:
        program = repo.root / "a program; touch oops"
        program.write_text("#!/bin/sh\ntouch fine\n")
        program.chmod(0o755)
        with fake_host(repo.place) as host, entry_point(repo.place):
            started(repo, host, str(program))
            assert host.until(Exit)[-1] == Exit(0)
        assert repo.files(repo.tip()) == [".gitignore", "README", "fine"]

    def test_sigterm_reaches_the_program(self, repo: AgentRepo) -> None:
        script = "trap 'echo bye > bye.txt; exit 3' TERM; touch ../up; while :; do sleep 0.05; done"
        with fake_host(repo.place) as host, entry_point(repo.place) as process:
            started(repo, host, "sh", "-c", script)
            wait_for(repo.root / "up")
            process.send_signal(signal.SIGTERM)
            assert host.until(Exit)[-1] == Exit(3)
        assert "bye.txt" in repo.files(repo.tip())

    def test_an_interactive_shell_ends_when_its_terminal_goes_away(self, repo: AgentRepo) -> None:
        with fake_host(repo.place) as host, entry_point(repo.place) as process:
            started(
                repo, host, "bash", "--norc", "-i", env={**repo.config.env, "PROMPT_COMMAND": "touch ../up"}
            )
            wait_for(repo.root / "up")  # until its first prompt it would end by SIGTERM
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert host.until(Exit)[-1] == Exit(128 + signal.SIGHUP)
        assert 2 <= time.monotonic() - began < 8

    def test_a_killed_program_reports_its_signal(self, repo: AgentRepo) -> None:
        with fake_host(repo.place) as host, entry_point(repo.place):
            started(repo, host, "sh", "-c", "kill -9 $$")
            assert host.until(Exit)[-1] == Exit(128 + signal.SIGKILL)

    def test_a_killed_server_ends_the_session(self, repo: AgentRepo) -> None:
        with fake_host(repo.place) as host, entry_point(repo.place):
            started(repo, host, "sh", "-c", "touch work; tmux kill-server; sleep 60")
            assert host.until(Exit)[-1] == Exit(128 + signal.SIGHUP)
        assert "work" in repo.files(repo.tip())


@pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root for a pid namespace; tests/engine does it in containers"
)
def test_as_the_first_process_it_ends_everything_that_the_agent_left_running(root: Path) -> None:
    repo = make_agent_repo(root)
    stray = "(setsid sh -c 'while :; do date +%N > ../alive; sleep 0.02; done' &) ; touch ../up"
    wrapper = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    with fake_host(repo.place) as host, entry_point(repo.place, wrapper=wrapper) as process:
        started(repo, host, "sh", "-c", f"{stray}; kill -9 1; kill -STOP 1; exit 9")
        assert host.until(Exit)[-1] == Exit(9)
        assert ended(process) == 9
    last = (root / "alive").read_text() if (root / "alive").exists() else ""
    time.sleep(0.1)
    assert ((root / "alive").read_text() if (root / "alive").exists() else "") == last
