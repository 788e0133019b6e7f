"""`./dev fuzz`: property tests take turns, on other inputs each time, and end when the time is over."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_CONFTEST = """
from hypothesis import settings

settings.register_profile("steady", derandomize=True)
settings.load_profile("steady")
"""
_TESTS = """
from hypothesis import given, settings, strategies as st

@given(st.integers(0, 2**64))
def test_sound(number):
    with open({seen!r}, "a") as file:
        print(number, file=file)

@given(st.integers())
def test_found(number):
    assert number < 1000

def test_no_property():
    raise AssertionError("it is not to run")
"""


def test_turns_are_taken_until_the_time_is_over(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    (tmp_path / "test_it.py").write_text(_TESTS.format(seen=str(seen)))
    (tmp_path / "conftest.py").write_text(
        _CONFTEST
    )  # as tests/conftest.py does: the same examples in every run
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "support.fuzzing", str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{_ROOT}/src:{_ROOT}/tests", "CODING_AGENTS_FUZZ_SECONDS": "3"},
    )  # fmt: skip
    assert time.monotonic() - began >= 3
    assert done.returncode == 1, done.stdout + done.stderr
    assert "assert 1000 < 1000" in done.stdout
    assert "it is not to run" not in done.stdout
    numbers = seen.read_text().split()
    assert len(numbers) > 400  # turns of 200
    assert len(set(numbers)) > 300
    shown = re.search(r"(\d+) test_it.py::test_sound", done.stdout)
    assert shown is not None, done.stdout
    assert int(shown[1]) == len(numbers)
