"""Our own AppArmor profiles: `profiles.in`, which root loads once, and the names by which containers are given them.

The name of a profile holds the hash of its content, so that "NAME is in force" says which rules are.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

TEMPLATE = Path(__file__).parent / "profiles.in"
_PLACE = "@CONTENT@"
_DIRECTORY = "/etc/apparmor.d"  # what is in it is loaded at each boot
KINDS = ("agent", "holder")


@cache
def content() -> str:
    """What tells this version's profiles from others: 12 hex digits."""
    return hashlib.sha256(TEMPLATE.read_bytes()).hexdigest()[:12]


def profile_name(kind: str) -> str:
    """The name of the profile `agent` or `holder` of this version."""
    return f"coding-agents-{kind}-{content()}"


def text() -> str:
    """What `apparmor_parser` loads: both profiles."""
    return TEMPLATE.read_text(encoding="ascii").replace(_PLACE, content())


def installed_path() -> str:
    """The file in which a host keeps them; each version has its own, because each may be in use."""
    return f"{_DIRECTORY}/coding-agents-{content()}"
