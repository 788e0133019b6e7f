"""Find the bytes of a credential in what goes to a guest, across the pieces in which it comes."""

from __future__ import annotations

from collections.abc import Iterable

LEAST = 8
"""A shorter credential would be found by chance; no provider gives one."""


class ReflectedError(Exception):
    """The credential was about to be sent to the guest."""


class KeyScanner:
    """Passes bytes on. Only an end that may be the beginning of a credential is held until the next piece."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = tuple(secret.encode() for secret in secrets if len(secret) >= LEAST)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What may go on of what is held and `data`. Raises ReflectedError; then nothing of it may."""
        seen = self._held + data
        if any(secret in seen for secret in self._secrets):
            raise ReflectedError
        keep = max((_overlap(seen, secret) for secret in self._secrets), default=0)
        self._held = seen[len(seen) - keep :]
        return seen[: len(seen) - keep]

    def finish(self) -> bytes:
        """What was held, at the end."""
        held, self._held = self._held, b""
        return held


def _overlap(data: bytes, secret: bytes) -> int:
    """The length of the longest end of `data` with which `secret` begins."""
    longest = min(len(data), len(secret) - 1)
    return next((size for size in range(longest, 0, -1) if data.endswith(secret[:size])), 0)
