"""`prepare-commit-msg`: write at the end of a commit's message how it came to be, unless it stands there already.

The values are git's settings `coding-agents.trailer` of the session. A convenience: the agent may commit without.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_MAX = 1 << 20
_MAX_TRAILERS = 8


def main(arguments: Sequence[str]) -> int:
    """`arguments` are those of the hook (githooks(5)): the file with the message, and where that is from. Always 0."""
    with suppress(OSError, ValueError, IndexError):
        _add(arguments[0])
    return 0


def _add(path: str) -> None:
    with Path(path).open("rb") as file:
        text = file.read(_MAX + 1)
    if len(text) > _MAX or not _says_something(text):
        return  # a message that is still to be written: an empty one must stop the commit
    said = _git("config", "--get-all", "coding-agents.trailer")
    trailers = [line for line in said.split("\n") if line][:_MAX_TRAILERS]
    words = [word for trailer in trailers for word in ("--trailer", trailer)]
    if words:
        if not text.endswith(b"\n"):  # as of a merge: git would put them on the very next line
            with Path(path).open("ab") as file:
                file.write(b"\n")
        # `---` is part of a message here, and no end of it.
        _git("interpret-trailers", "--in-place", "--no-divider", "--if-exists=addIfDifferent", *words, path)


def _says_something(text: bytes) -> bool:
    return any(line.strip() and not line.startswith(b"#") for line in text.split(b"\n"))


def _git(*arguments: str) -> str:
    """What git prints, "" when it fails."""
    import subprocess  # most of our time; there are messages without any of this

    done = subprocess.run(
        ("git", *arguments), stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=20.0
    )
    if done.returncode != 0:
        sys.stderr.write(os.fsdecode(done.stderr)[-500:])
        return ""
    return os.fsdecode(done.stdout)
