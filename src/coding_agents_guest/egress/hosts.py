"""Names of hosts in their one spelling. Pure.

Everything that another program could read as an address, or differently from us, is no name: addresses in any of
inet_aton(3)'s spellings, a trailing dot, userinfo, escapes, anything but letters, digits and hyphens (RFC 1123 §2.1).
"""

from __future__ import annotations

import re
from functools import lru_cache

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
MAX_NAME = 253
"""The longest name, in characters (RFC 1035 §2.3.4)."""


class HostError(ValueError):
    """What is no name of a host; `reason` is one of the words of `decide`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@lru_cache(maxsize=4096)
def parse_host(text: str) -> str:
    """The name in lower case. Raises HostError.

    A name whose last label is a number is an address to many programs (WHATWG URL, "ends in a number").

    >>> parse_host("API.GitHub.com")
    'api.github.com'
    """
    name = text.lower() if text.isascii() else text
    if not name:
        raise HostError("bad-host", "there is no host")
    if name.startswith("[") or ":" in name or _NUMBER.fullmatch(name.rpartition(".")[2]):
        raise HostError("ip-literal", f"{_shown(text)} is an address; name a host")
    if not name.isascii():
        raise HostError("bad-host", f"{_shown(text)} is not ASCII; write an international name as xn--…")
    if len(name) > MAX_NAME or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise HostError("bad-host", f"{_shown(text)} is no name of a host")
    if "." not in name:
        raise HostError("bad-host", f"{_shown(text)} has no domain; write the name in full")
    return name


def parse_port(text: str) -> int:
    """A port from 1 to 65535 in its plain spelling. Raises ValueError."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and text == str(int(text))):
        raise ValueError(f"not a port: {_shown(text)}")
    if not 0 < int(text) < 65536:
        raise ValueError(f"not a port: {_shown(text)}")
    return int(text)


def _shown(text: str) -> str:
    return ascii(text[:80])
