"""Steps side by side: whenever Ctrl-C comes, what they run is ended, and the wait is short."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from coding_agents.app.steps import Parallel, Trace
from coding_agents.errors import EngineError
from coding_agents.proc import runner
from coding_agents.proc.runner import Command
from support.product import wait_for


def _sleeper(pid_file: Path) -> Command:
    return Command(("sh", "-c", f"echo $$ > {pid_file}; exec sleep 60"), env=dict(os.environ))


def _interrupt_when(condition: threading.Event) -> None:
    """SIGINT for this process, once, when `condition` is set."""

    def send() -> None:
        condition.wait(10)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=send, daemon=True).start()


@pytest.mark.parametrize("failed", [False, True])
def test_ctrl_c_while_leaving_the_block_ends_the_steps(tmp_path: Path, failed: bool) -> None:
    left, began, pid_file = threading.Event(), time.monotonic(), tmp_path / "pid"
    _interrupt_when(left)

    def interrupted() -> None:
        with Parallel(Trace()) as steps:
            steps.run("long", lambda: runner.run(_sleeper(pid_file)))
            wait_for(lambda: pid_file.exists() and pid_file.read_text(), "the step's process")
            left.set()
            if failed:
                raise EngineError("another step has failed")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - began < 20
    assert not Path(f"/proc/{pid_file.read_text().strip()}").exists()


def test_ctrl_c_ends_also_what_a_step_starts_later(tmp_path: Path) -> None:
    started = threading.Event()

    def late() -> None:
        started.set()
        time.sleep(0.5)
        runner.run(_sleeper(tmp_path / "pid"))

    def interrupted() -> None:
        with Parallel(Trace()) as steps:
            steps.run("late", late)
            started.wait(10)
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - began < 20
