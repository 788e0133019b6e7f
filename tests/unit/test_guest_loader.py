"""The command that runs the guest's program proves it first, on this machine's Python as in a container."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import coding_agents_guest
from coding_agents.channel.pyz import build_guest_pyz, guest_digest
from coding_agents.sandbox.guest import GUEST_ZIPAPP, NOT_OURS, guest_argv


def load(program: Path, *, digest: str) -> subprocess.CompletedProcess[str]:
    """The command of a container, but for the places of Python and program."""
    words = [{GUEST_ZIPAPP: str(program)}.get(word, word) for word in guest_argv(digest, "version")]
    return subprocess.run((sys.executable, *words[1:]), capture_output=True, text=True, check=False)


def test_the_program_that_was_meant_runs(tmp_path: Path) -> None:
    program = tmp_path / "guest.pyz"
    program.write_bytes(build_guest_pyz())
    done = load(program, digest=guest_digest(program.read_bytes()))
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, coding_agents_guest.__version__, "")


@pytest.mark.parametrize("change", ["a byte more", "a byte less", "another", "gone", "a directory"])
def test_any_other_ends_with_one_line(tmp_path: Path, change: str) -> None:
    program = tmp_path / "guest.pyz"
    ours = build_guest_pyz()
    if change == "a directory":
        program.mkdir()
    elif change != "gone":
        program.write_bytes(
            {"a byte more": ours + b"\0", "a byte less": ours[:-1]}.get(change, b"print(1)\n")
        )
    done = load(program, digest=guest_digest(ours))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{NOT_OURS}: wanted SHA-256 {guest_digest(ours)}, found ")
    assert done.stderr.count("\n") == 1
