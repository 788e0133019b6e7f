"""Whether the kernel that an engine's containers run on knows our AppArmor profiles.

Asked of securityfs of this host, so for engines here alone: everybody may see names and modes of profiles there (the
list `profiles` is root's). What cannot be seen counts as not loaded, and then a container gets the engine's own
profile. That ours is in force is measured at each start, whatever is found here.
"""

from __future__ import annotations

from pathlib import Path

from coding_agents.engine.api import EngineInfo
from coding_agents.sandbox.apparmor import KINDS, profile_name

_KERNEL = Path("/sys/module/apparmor/parameters/enabled")
_POLICY = Path("/sys/kernel/security/apparmor/policy/profiles")


def kernel_has_apparmor() -> bool:
    """Whether AppArmor is active in the kernel of this host."""
    return _text(_KERNEL) == "Y"


def can_confine(info: EngineInfo) -> bool:
    """Whether the engine gives containers AppArmor profiles at all: without root it may not."""
    return info.apparmor and not info.rootless


def profiles_loaded(info: EngineInfo) -> bool:
    """Whether containers of this engine can be given our profiles, all in enforce mode."""
    return can_confine(info) and info.is_local and all(_loaded(profile_name(kind)) for kind in KINDS)


def _loaded(name: str) -> bool:
    """A loaded profile is a directory `NAME.NUMBER` with the files `name` and `mode` (apparmorfs.c)."""
    try:
        entries = list(_POLICY.glob(f"{name}.*"))
    except OSError:
        return False
    return any(_text(one / "name") == name and _text(one / "mode") == "enforce" for one in entries)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
