"""apt with a root of its own: this machine's archives and keys, nothing installed, nothing of the system's changed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

from coding_agents.images.apt import read_sources

_EMPTY_DIRS = ("state/lists/partial", "cache/archives/partial")


def this_release() -> str:
    """The code name of the Debian release that this machine has, or an empty string."""
    release = Path("/etc/os-release")
    found = re.search(r"(?m)^VERSION_CODENAME=(\w+)$", release.read_text() if release.exists() else "")
    return found[1] if found else ""


def apt_of(release: str, place: Path, *, sources: bool = False) -> tuple[str, ...]:
    """The `apt-get` for packages of the Debian release `release` (with `sources` for those that they are built from),
    its lists up to date, everything it keeps below `place`. Raises RuntimeError."""
    for name in _EMPTY_DIRS:
        (place / name).mkdir(parents=True, exist_ok=True)
    here, kind = this_release(), "deb-src" if sources else "deb"
    lines = [
        f"{kind} [{f'signed-by={source.signed_by}' if source.signed_by else ''}] {source.uri} "
        f"{source.suite.replace(here, release)} main\n"
        for source in read_sources(Path("/etc/apt"))
        if "main" in source.components
        and (source.suite == here if sources else source.suite.startswith(here))
    ]
    if not lines:
        raise RuntimeError(f"/etc/apt has no source of {here} main")
    (place / "sources.list").write_text("".join(lines))
    (place / "state/status").write_text("")
    options = [
        f"Dir::State={place}/state", f"Dir::State::status={place}/state/status", f"Dir::Cache={place}/cache",
        f"Dir::Etc::sourcelist={place}/sources.list", "Dir::Etc::sourceparts=/dev/null",
        "Dir::Etc::preferencesparts=/dev/null", "APT::Sandbox::User=", "Acquire::Languages=none",
        "Acquire::Retries=3", "Dpkg::Use-Pty=false",
        f"Debug::NoLocking={'false' if os.geteuid() == 0 else 'true'}",
    ]  # fmt: skip
    apt = ("apt-get", "-q", *(part for option in options for part in ("-o", option)))
    run(*apt, "update")
    return apt


def run(*argv: str, cwd: Path | None = None) -> str:
    """Standard output of a program that succeeds. Raises RuntimeError with what it said."""
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(argv)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout
