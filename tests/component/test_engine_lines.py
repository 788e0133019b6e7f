"""Following a talking command: all its lines, both outputs, and an end in every case."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from coding_agents.engine.lines import follow
from coding_agents.proc.runner import Command


def _python(code: str, *, timeout_s: float = 30.0) -> Command:
    return Command((sys.executable, "-c", code), env={}, timeout_s=timeout_s)


def test_lines_of_both_outputs() -> None:
    seen: list[str] = []
    outcome = follow(
        _python(
            "import sys; print('one'); print('two', file=sys.stderr); print('last', end=''); sys.exit(3)"
        ),
        seen.append,
    )
    assert sorted(seen) == ["last", "one", "two"]
    assert (outcome.status, outcome.stdout) == (3, b"one\nlast")
    assert set(outcome.stderr.splitlines()) == {b"one", b"two", b"last"}


def test_progress_that_rewrites_its_line() -> None:
    seen: list[str] = []
    follow(_python("print('10%\\r20%\\r\\ndone')"), seen.append)
    assert [line for line in seen if line] == ["10%", "20%", "done"]


def test_a_line_without_an_end_comes_in_pieces() -> None:
    seen: list[str] = []
    follow(_python("print('x' * 1_000_000, end='')"), seen.append)
    assert sum(map(len, seen)) == 1_000_000
    assert max(map(len, seen)) <= 256 * 1024


def test_only_the_end_is_kept() -> None:
    outcome = follow(_python("for n in range(5000): print(n)"), lambda _line: None)
    assert outcome.stdout.splitlines()[-1] == b"4999"
    assert len(outcome.stdout.splitlines()) <= 400


def test_time_is_limited_and_children_end_too(tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    child = f"import time\nwhile True: open({str(beat)!r}, 'a').write('.'); time.sleep(0.02)"
    began = time.monotonic()
    outcome = follow(
        _python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])", timeout_s=1.0),
        lambda _line: None,
    )
    assert outcome.timed_out
    assert not outcome.ok
    assert time.monotonic() - began < 10
    size = beat.stat().st_size
    time.sleep(0.2)
    assert beat.stat().st_size == size


def test_a_listener_that_fails_ends_the_command() -> None:
    def fail(_line: str) -> None:
        raise RuntimeError("enough")

    began = time.monotonic()
    with pytest.raises(RuntimeError, match="enough"):
        follow(_python("import time; print('x', flush=True); time.sleep(60)"), fail)
    assert time.monotonic() - began < 10
