"""A gate that was asked for and whose answer does not come: what the agent did meanwhile is not unmade."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.faults import StallingEngine, assert_nothing_left, kill_supervisor, refs, supervisors
from support.product import Product, git, wait_for

pytestmark = pytest.mark.engine

NAME = "demo-{}-session-1"
WORK = "echo u > early.txt; sleep 600"


def start_held(product: Product, repo: Path, *verb: str, done: str) -> subprocess.Popen[str]:
    """Start a verb that opens a gate, and stop its supervisor as the guest begins; returns when DONE is there.

    The guest has then told that it begins, and the supervisor has not yet told the verb.
    """
    steps = _steps(product)
    verb_process = product.start(*verb)
    deadline = time.monotonic() + 60
    while _steps(product) <= steps:
        assert time.monotonic() < deadline, "no guest began"
        assert verb_process.poll() is None
        time.sleep(0.001)
    (pid,) = supervisors(product)
    os.kill(pid, signal.SIGSTOP)
    name = NAME.format(repo.name)
    wait_for(lambda: _in_container(product, name, done), f"the agent's {done}")
    assert verb_process.poll() is None, "the answer was faster than we"
    return verb_process


def _steps(product: Product) -> int:
    logs = product.sessions_dir.glob("*/audit.jsonl")
    return sum(log.read_text().count('"guest-step"') for log in logs)


def _in_container(product: Product, name: str, test: str) -> bool:
    return product.engine_run("exec", name, "sh", "-c", f"{test} && echo yes", check=False).strip() == "yes"


def launched(product: Product, repo: Path, script: str, done: str, *options: str) -> subprocess.Popen[str]:
    task = ("--agent", "demo", "--network-proxy", "restricted", "-d", *options, "--", "sh", "-c", script)
    return start_held(product, repo, "launch", str(repo), *task, done=done)


def end(product: Product, verb: subprocess.Popen[str], how: str) -> str:
    """Cut the verb's wait short; what it says."""
    if how == "killed":
        kill_supervisor(product)
    else:
        verb.send_signal(signal.SIGINT)
        (pid,) = supervisors(product)
        os.kill(pid, signal.SIGCONT)
    _, err = verb.communicate(timeout=120)
    assert verb.returncode in ((45, 125) if how == "killed" else (130,)), err
    assert "Traceback" not in err
    return err


@pytest.mark.alike
@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_work_of_a_launch_whose_answer_is_lost_comes_home(product: Product, repo: Path, how: str) -> None:
    launch = launched(product, repo, WORK, "test -s early.txt")
    said = end(product, launch, how)
    assert "the agent may have begun: session demo-" in said
    assert git(repo, "show", "demo/session-1:early.txt") == "u"
    assert product.state(NAME.format(repo.name)) == "stopped"


@pytest.mark.alike
def test_work_of_a_launch_that_was_to_leave_nothing_else_comes_home(product: Product, repo: Path) -> None:
    launch = launched(product, repo, WORK, "test -s early.txt", "--rm")
    said = end(product, launch, "interrupted")
    assert "is removed, its work is in refs/heads/demo/session-1" in said
    assert git(repo, "show", "demo/session-1:early.txt") == "u"
    assert_nothing_left(product)


@pytest.mark.alike
@pytest.mark.parametrize("options", [(), ("--rm",)])
def test_a_launch_that_is_interrupted_before_anything_was_done_leaves_nothing(
    product: Product, repo: Path, options: tuple[str, ...]
) -> None:
    before = refs(repo)
    launch = launched(product, repo, "touch /tmp/begun; sleep 600", "test -e /tmp/begun", *options)
    assert end(product, launch, "interrupted").strip() == ""
    assert refs(repo) == before
    assert_nothing_left(product)


@pytest.mark.alike
@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_work_of_a_start_whose_answer_is_lost_comes_home(product: Product, repo: Path, how: str) -> None:
    script = "test -e first || { touch first; exit; }; " + WORK
    name = product.launch_detached(repo, script)
    product.run("wait", name)
    start = start_held(product, repo, "start", name, done="test -s early.txt")
    said = end(product, start, how)
    assert "the agent may have begun" in said
    assert git(repo, "show", "demo/session-1:early.txt") == "u"
    assert product.state(name) == "stopped"


@pytest.mark.parametrize("verb", ["start", "launch"])
def test_a_verb_that_is_killed_before_the_gate_leaves_nobody_waiting(
    product: Product, repo: Path, verb: str
) -> None:
    name = NAME.format(repo.name)
    options = ("--agent", "demo", "--network-proxy", "allow-all", "-d", "--", "sh", "-c", "echo u > u.txt")
    begin = ("launch", str(repo), *options)
    if verb == "start":
        product.run(*begin)
        product.run("wait", name)
        begin = ("start", name)
    engine = StallingEngine.make(product, "'container exec --user=0:0 '*'/usr/sbin/nft '*", after=False)
    killed = product.start(*begin, env=engine.env)
    engine.wait()
    opened = 2 if verb == "start" else 1
    wait_for(lambda: _count(product, name, "channel-opened") == opened, "the channel")
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    engine.release()
    product.run("wait", name, status=None, timeout_s=60)
    assert product.state(name) == ("stopped" if verb == "start" else "failed")
    assert product.engine_run("inspect", "--format", "{{.State.Running}}", name).strip() == "false"
    if verb == "start":
        assert git(repo, "show", "demo/session-1:u.txt") == "u"
        product.run("start", name)
        product.run("wait", name)
    product.run("remove", "--force", name)


def _count(product: Product, name: str, kind: str) -> int:
    return sum(one["type"] == kind for one in product.audit(name))
