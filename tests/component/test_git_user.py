"""Git as the user, for what a session asked for: nobody is asked, nothing is rewritten, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from coding_agents.errors import GitError
from coding_agents.proc.bounded import run_bounded, run_bounded_aside
from coding_agents.proc.git_user import literal, require_literal, user_command
from coding_agents.proc.runner import Command, Outcome, run
from support.repos import git_env

AUTHOR = {
    f"GIT_{who}_{what}": "ada@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}
FILL = b"protocol=https\nhost=forge.test\n\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def env_of(home: Path, **more: str) -> dict[str, str]:
    """The environment of a user whose only configuration is ~/.gitconfig."""
    env = {name: value for name, value in git_env(home).items() if not name.startswith("GIT_")}
    return {**env, "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", **more}


def script(home: Path, text: str, name: str = "helper") -> Path:
    path = home / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def until_gone(pid: int) -> None:
    """Wait for the end of a process that is not ours to wait for."""
    for _ in range(200):
        try:
            if "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} lives on")


def until_written(path: Path) -> None:
    for _ in range(500):
        if path.exists() and path.read_text().endswith("\n"):
            return
        time.sleep(0.02)
    raise AssertionError(f"nobody wrote {path}")


def fill(home: Path, *, timeout_s: float = 20.0, most: int = 1 << 16, **more: str) -> Outcome:
    command = user_command(("credential", "fill"), env=env_of(home, **more), stdin=FILL, timeout_s=timeout_s)
    return asyncio.run(run_bounded_aside(command, most=most))


def test_the_users_own_helper_answers(home: Path) -> None:
    helper = script(home, "cat > /dev/null; echo username=ada; echo password=s3cret")
    (home / ".gitconfig").write_text(f"[credential]\n\thelper = {helper}\n")
    assert fill(home).stdout.decode().splitlines()[-2:] == ["username=ada", "password=s3cret"]


def test_nobody_is_asked(home: Path) -> None:
    """Neither a program that asks, however it is set, nor a terminal."""
    asked = script(home, f"touch {home}/asked; echo x", "ask")
    (home / ".gitconfig").write_text(f"[core]\n\taskPass = {asked}\n")
    outcome = fill(
        home, GIT_ASKPASS=str(asked), SSH_ASKPASS=str(asked), DISPLAY=":0", SSH_ASKPASS_REQUIRE="force"
    )
    assert not outcome.ok
    assert b"terminal prompts disabled" in outcome.stderr
    assert not (home / "asked").exists()


def test_a_helper_that_hangs_is_ended_with_what_it_started(home: Path) -> None:
    helper = script(home, f"sleep 3000 & echo $! > {home}/child; wait")
    (home / ".gitconfig").write_text(f"[credential]\n\thelper = {helper}\n")
    began = time.monotonic()
    outcome = fill(home, timeout_s=1.0)
    assert outcome.timed_out
    assert not outcome.ok
    assert time.monotonic() - began < 10
    until_gone(int((home / "child").read_text()))


def test_one_that_was_left_behind_with_our_pipes_is_not_waited_for(home: Path) -> None:
    sleeper = Command(("sh", "-c", f"setsid sleep 30 & echo $! > {home}/child; echo done"), env_of(home))
    began = time.monotonic()
    assert run_bounded(sleeper, most=100).stdout == b"done\n"
    assert time.monotonic() - began < 10
    os.kill(int((home / "child").read_text()), 9)


@pytest.mark.parametrize("text", ["yes", "yes | cat", "cat /dev/zero"])
def test_what_never_ends_is_cut(home: Path, text: str) -> None:
    began = time.monotonic()
    outcome = run_bounded(Command(("sh", "-c", text), env_of(home)), most=10_000)
    assert len(outcome.stdout) == 10_000
    assert outcome.timed_out
    assert not outcome.ok
    assert time.monotonic() - began < 10


def test_errors_without_end_are_cut_and_do_not_stop_it(home: Path) -> None:
    outcome = run_bounded(Command(("sh", "-c", "yes | head -c 9000000 >&2; echo x"), env_of(home)), most=100)
    assert outcome.stdout == b"x\n"
    assert outcome.ok
    assert len(outcome.stderr) < 200_000


@pytest.mark.parametrize("text", ["cat", "true", "exec 0<&-; sleep 0.1", "head -c 5 > /dev/null; cat"])
def test_much_input_is_sent_as_far_as_it_is_wanted(home: Path, text: str) -> None:
    sent = bytes(1_000_000)
    outcome = run_bounded(Command(("sh", "-c", text), env_of(home), stdin=sent), most=2_000_000)
    assert outcome.ok
    assert len(outcome.stdout) == (
        0 if text not in ("cat", "head -c 5 > /dev/null; cat") else len(outcome.stdout)
    )
    assert text != "cat" or outcome.stdout == sent


def test_closed_pipes_are_no_end(home: Path) -> None:
    outcome = run_bounded(Command(("sh", "-c", "exec >&- 2>&-; sleep 0.3; exit 7"), env_of(home)), most=100)
    assert outcome.status == 7
    slow = Command(("sh", "-c", "exec >&- 2>&-; sleep 30"), env_of(home), timeout_s=0.3)
    assert run_bounded(slow, most=100).timed_out


def test_a_cancelled_question_leaves_no_process(home: Path) -> None:
    helper = script(home, f"echo $$ > {home}/pid; exec sleep 3000")
    (home / ".gitconfig").write_text(f"[credential]\n\thelper = {helper}\n")

    async def cancel() -> None:
        command = user_command(("credential", "fill"), env=env_of(home), stdin=FILL, timeout_s=60)
        task = asyncio.create_task(run_bounded_aside(command, most=1 << 16))
        await asyncio.to_thread(until_written, home / "pid")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    until_gone(int((home / "pid").read_text()))


def test_an_address_is_taken_as_it_is(home: Path, tmp_path: Path) -> None:
    """Also for a push: the address of a remote for pushing is subject to no rule of the user's for pushing."""
    right, wrong = tmp_path / "right.git", tmp_path / "wrong.git"
    for path in (right, wrong, tmp_path / "own.git"):
        run(Command(("git", "init", "--quiet", "--bare", str(path)), env_of(home)))
    url = f"file://{right}"
    (home / ".gitconfig").write_text(
        f'[url "ext::sh -c evil% "]\n\tinsteadOf = file://\n\tpushInsteadOf = file://\n'
        f'[url "file://{wrong}"]\n\tpushInsteadOf = {url}\n'
    )
    require_literal(url, env=env_of(home))
    own = tmp_path / "own.git"
    commit = run(
        Command(
            ("sh", "-c", 'git commit-tree -m x "$(git mktree < /dev/null)"'), env_of(home, **AUTHOR), cwd=own
        )
    )
    remote = (("remote.x.url", url), ("remote.x.pushurl", url), *literal(url))
    refspec = f"{commit.text().strip()}:refs/heads/main"
    command = user_command(
        ("push", "x", refspec), env=env_of(home), git_dir=own, settings=remote, timeout_s=20
    )
    assert run(command).ok
    assert (right / "refs/heads/main").exists()
    assert not (wrong / "refs/heads/main").exists()
    command = user_command(("ls-remote", "x"), env=env_of(home), git_dir=own, settings=remote, timeout_s=20)
    assert "refs/heads/main" in run(command).text()


def test_a_rule_for_exactly_this_address_is_noticed(home: Path) -> None:
    url = "https://forge.test/team/app.git"
    (home / ".gitconfig").write_text(f'[url "https://evil.test/x"]\n\tinsteadOf = {url}\n')
    with pytest.raises(GitError, match="rewrites the very address"):
        require_literal(url, env=env_of(home))


def test_no_repository_is_looked_for(home: Path, tmp_path: Path) -> None:
    """Nor would one be where the call is made: what it sets does not count."""
    assert run(user_command(("rev-parse", "--git-dir"), env=env_of(home), timeout_s=20)).status == 128
    command = user_command(("config", "--list"), env=env_of(home, GIT_DIR=str(tmp_path)), timeout_s=20)
    assert command.cwd == Path("/")
    assert "--git-dir=/dev/null" in command.argv


def test_ssh_asks_nobody_unless_the_user_chose_how_it_runs(home: Path) -> None:
    def way(**more: str) -> str | None:
        return user_command(("fetch",), env=env_of(home, **more), timeout_s=20).env.get("GIT_SSH_COMMAND")

    chosen = way() or ""
    assert "-oBatchMode=yes" in chosen
    assert "-oForwardAgent=no" in chosen
    assert way(GIT_SSH_COMMAND="ssh -i key") == "ssh -i key"
    assert way(GIT_SSH="/usr/bin/plink") is None
    (home / ".gitconfig").write_text("[core]\n\tsshCommand = ssh -i work\n")
    assert way() is None
