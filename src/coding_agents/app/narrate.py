"""How a use case talks to the person who waits for it, without knowing terminals."""

from __future__ import annotations

from typing import Protocol


class Narrator(Protocol):
    """Narration goes to standard error; the result of a verb never does."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def progress(self, text: str) -> None:
        """What is being done right now; shown in place, on a terminal only."""

    def confirm(self, question: str) -> bool:
        """Ask yes or no. False when there is nobody to ask."""
