"""Pipes that hold up git in the agent's own container: found only when git is slow, for looking costs a walk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from coding_agents_guest.volume import feed_nothing, pipes_in_the_way

# Longer than a save of most repositories takes; a twelfth of what an automatic save may take.
PATIENCE_S = 5.0


@contextmanager
def unblocked(workspace: Path) -> Iterator[None]:
    """Let nothing that git does in here wait for ever where a pipe stands in the place of a file that it reads."""
    timer = threading.Timer(PATIENCE_S, _look, (workspace,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _look(workspace: Path) -> None:
    with suppress(Exception):  # then the time of the save is what ends it
        feed_nothing(pipes_in_the_way(workspace))
