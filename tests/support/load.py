"""A busy machine: what the kill tests run beside themselves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST_S = 600
# Both end by themselves when whoever started them is gone.
_WHILE = f"""
import os, sys, time
parent, deadline = os.getppid(), time.monotonic() + {_LONGEST_S}
def on():
    return os.getppid() == parent and time.monotonic() < deadline
"""
_COMPUTE = f"{_WHILE}\nwhile on(): sum(range(200_000))"
_WRITE = f"""{_WHILE}
with open(sys.argv[1], "wb", buffering=0) as file:
    while on():
        file.seek(0)
        for _ in range(16):
            file.write(os.urandom(1 << 16))
            os.fsync(file.fileno())
"""


@contextmanager
def busy_machine(directory: Path) -> Iterator[None]:
    """One process that computes and one that has the disk sync without end, for as long as this lasts."""
    running = [
        subprocess.Popen((sys.executable, "-c", _COMPUTE)),
        subprocess.Popen((sys.executable, "-c", _WRITE, str(directory / "load"))),
    ]
    try:
        yield
        assert [one.poll() for one in running] == [None, None], "the load has ended early"
    finally:
        for one in running:
            one.kill()
            one.wait()
